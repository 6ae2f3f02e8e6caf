//! `plan`: prints what the hook would do for a bundle.

use crate::report::one_line;
use crate::{config::Config, hook};
use anyhow::{Context, Result};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Print what the hook would do for a bundle, and change nothing.
///
/// Every rule that a request breaks is on a line with `refused:`, and the exit status is 1 then.
///
/// Example: oci-coredump plan /run/containers/storage/overlay-containers/ID/userdata
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bundle: a directory with a config.json.
    bundle: PathBuf,
    /// A file with the state that a runtime would pass to the hook. Only the container ID in it
    /// is used; without this option the ID is the name of the bundle's directory.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Use this configuration instead of /etc/oci-coredump/config.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Prints the plan, or the reason why there is none.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    let config = match &args.config {
        Some(path) => {
            // One that is absent means the defaults elsewhere; here it was named.
            std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?;
            Config::load_from(path)?
        }
        None => Config::load()?,
    };
    let read = |p: &PathBuf| std::fs::read(p).with_context(|| format!("read {}", p.display()));
    let state = args.state.as_ref().map(read).transpose()?;
    let plan = hook::explain(&args.bundle, state.as_deref(), &config)?;
    for line in plan.text.lines() {
        writeln!(out, "{}", one_line(line))?;
    }
    Ok(if plan.is_honoured { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
