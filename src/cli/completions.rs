//! `completions`: prints what a shell needs to complete the command line.

use anyhow::Result;
use std::io::Write;
use std::process::ExitCode;

/// Print the completions of a shell.
///
/// Example: oci-coredump completions bash > /etc/bash_completion.d/oci-coredump
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Prints them.
pub(super) fn run(out: &mut impl Write, args: &Args, mut all: clap::Command) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut all, "oci-coredump", &mut text);
    out.write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}
