//! `verify`: the table of what a runtime does for its hooks.

use super::programs;
use super::root::need_root;
use crate::runtime_check::{self, CheckVerdict};
use anyhow::{Context, Result};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check whether an OCI runtime treats its hooks as a hook like this one needs.
///
/// Checks the order and namespaces of the hooks, the state passed to them, the mounts and
/// limits that they set, and what follows when one fails. It starts a few containers in a
/// scratch directory, with this program as their hooks and their only file: no image, no
/// network. Needs root. The exit status is 1 if a check failed.
///
/// Example: oci-coredump verify --runtime runc
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The runtime: a program with the command line of runc, by its path, or by its name if it is
    /// in a directory of PATH.
    #[arg(long, value_name = "PROGRAM")]
    runtime: PathBuf,
    /// Print a JSON array of {"subject", "need", "verdict", "found"}.
    #[arg(long)]
    json: bool,
}

/// Checks a runtime and prints what came of it.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    need_root()?;
    let runtime = programs::find(&args.runtime).context("--runtime")?;
    let checks = runtime_check::run(&runtime)?;
    let failed = checks.iter().filter(|c| c.verdict == CheckVerdict::Failed).count();
    if args.json {
        writeln!(out, "{}", crate::sys::text::json(&serde_json::to_string_pretty(&checks)?))?;
    } else {
        for c in &checks {
            let verdict = if c.verdict == CheckVerdict::Ok { "ok    " } else { "failed" };
            writeln!(out, "{verdict}  {:<10}  {}", c.subject, c.need)?;
            if !c.found.is_empty() {
                writeln!(out, "{:20}{}", "", crate::report::one_line(&c.found))?;
            }
        }
        writeln!(out, "{}: {} of {} ok", runtime.display(), checks.len() - failed, checks.len())?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs as a hook, or as the program, of a container that `verify` starts.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct ProbeArgs {
    /// The name under which it reports.
    stage: String,
    /// The file to which it appends what it observes.
    report: PathBuf,
    /// The scratch directory on the host.
    scratch: PathBuf,
    /// What it does besides reporting.
    actions: Vec<crate::runtime_check::ProbeAction>,
}

/// Runs as that hook or program.
pub(super) fn probe(args: &ProbeArgs) -> Result<ExitCode> {
    let code = runtime_check::probe(&args.stage, &args.report, &args.scratch, &args.actions)?;
    Ok(ExitCode::from(code))
}
