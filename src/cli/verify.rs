//! `verify`: the table of what a runtime does for its hooks.

use crate::sys::user;
use crate::verify::{self, CheckVerdict};
use anyhow::{Result, ensure};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Checks a runtime and prints what came of it.
pub(super) fn run(out: &mut impl Write, runtime: &Path, json: bool) -> Result<ExitCode> {
    ensure!(
        user::is_host_root(),
        "only root of the host can start containers; run it with sudo, outside of any container"
    );
    let checks = verify::run(runtime)?;
    let failed = checks.iter().filter(|c| c.verdict == CheckVerdict::Failed).count();
    if json {
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
    out.flush()?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
