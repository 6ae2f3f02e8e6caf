//! `ship`: becomes oci-coredump-ship, which has the network.

use super::remote;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Upload crashes to object storage, as `[upload]` of the configuration says.
///
/// Starts the program oci-coredump-ship, which is beside this one where it is installed.
///
/// Example: oci-coredump ship run --once
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Args {
    /// The arguments of that program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Becomes that program. Returns only when it cannot.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let program = remote::program();
    let error = Command::new(&program).args(&args.arguments).exec();
    Err(error)
        .with_context(|| format!("start {}: is oci-coredump-ship installed?", program.display()))
}
