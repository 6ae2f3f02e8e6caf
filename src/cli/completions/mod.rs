//! `completions`: prints what a shell needs to complete the command line. The shell then asks this
//! program, which knows the containers and the crashes that there are.

pub(super) mod candidates;

use anyhow::{Context, Result};
use clap_complete::env::{CompleteEnv, EnvCompleter, Fish, Zsh};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// The variable by which a shell asks; its value is the name of the shell.
const ASKED: &str = "OCI_COREDUMP_COMPLETE";

const PROGRAM: &str = "oci-coredump";

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Print the completions of a shell.
///
/// Options, containers, crashes and engines are completed: the shell asks this program.
///
/// Example: oci-coredump completions bash > /etc/bash_completion.d/oci-coredump
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell.
    shell: Shell,
}

pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    let registration = |shell: &dyn EnvCompleter| -> Result<Vec<u8>> {
        let mut text = Vec::new();
        shell.write_registration(ASKED, PROGRAM, PROGRAM, PROGRAM, &mut text)?;
        Ok(text)
    };
    match args.shell {
        Shell::Bash => out.write_all(include_bytes!("oci-coredump.bash"))?,
        Shell::Fish => out.write_all(&registration(&Fish)?)?,
        Shell::Zsh => {
            out.write_all(&registration(&Zsh)?)?;
            // Where zsh loads the file as the function itself, this is the first call.
            writeln!(
                out,
                "[[ $funcstack[1] = _oci-coredump ]] && _clap_dynamic_completer_oci_coredump \"$@\""
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Answers a shell that asks. Returns whether one did.
///
/// # Errors
/// The answer cannot be written.
pub(super) fn answer(args: &[OsString], definition: fn() -> clap::Command) -> Result<bool> {
    candidates::use_store_of(args);
    let asked = CompleteEnv::with_factory(definition).var(ASKED);
    let directory = std::env::current_dir().ok();
    asked.try_complete(args, directory.as_deref()).context("completion")
}
