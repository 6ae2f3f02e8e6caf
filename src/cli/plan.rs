//! `plan`: prints what the hook would do for a bundle.

use crate::report::one_line;
use crate::{config::Config, hook};
use anyhow::{Context, Result};
use std::io::Write;
use std::path::Path;

/// Prints the plan, or the reason why there is none.
pub(super) fn run(
    out: &mut impl Write,
    bundle: &Path,
    state: Option<&Path>,
    config: Option<&Path>,
) -> Result<()> {
    let config = match config {
        Some(path) => Config::load_from(path)?,
        None => Config::load()?,
    };
    let state = state
        .map(|p| std::fs::read(p).with_context(|| format!("read {}", p.display())))
        .transpose()?;
    let plan = hook::explain(bundle, state.as_deref(), &config)?.to_string();
    for line in plan.lines() {
        writeln!(out, "{}", one_line(line))?;
    }
    Ok(())
}
