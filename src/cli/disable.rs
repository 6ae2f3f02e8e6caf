//! `disable`: undoes `enable`.

use super::completions::candidates;
use super::root::need_root;
use crate::config::Config;
use crate::hook::running_container;
use anyhow::Result;
use clap_complete::ArgValueCompleter;
use std::io::Write;
use std::process::ExitCode;

/// Undo what `enable` did. The container is as before; its cores stay.
///
/// Example: oci-coredump disable web
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name or ID of the container, the beginning of the ID, or POD/NAME.
    #[arg(add = ArgValueCompleter::new(candidates::registered))]
    container: String,
}

/// Gives a container back what it had.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    need_root()?;
    let id = running_container::find(&args.container)?;
    running_container::disable(&id, &Config::load()?)?;
    writeln!(out, "container {id} is as it was before")?;
    Ok(ExitCode::SUCCESS)
}
