//! `plan`: what the hook would do for a bundle.

use crate::{config::Config, hook};
use anyhow::Result;
use std::io::Write;
use std::path::Path;

/// Prints the plan, or why there is none.
pub fn run(out: &mut impl Write, bundle: &Path, config: Option<&Path>) -> Result<()> {
    let config = match config {
        Some(path) => Config::load_from(path)?,
        None => Config::load()?,
    };
    write!(out, "{}", hook::explain(bundle, &config)?)?;
    Ok(())
}
