//! podman's own hook stage: the container's configuration on stdin, the one
//! for the runtime on stdout.

use super::{Program, runtime, spec};
use crate::config::Config;
use crate::sys::file;
use anyhow::{Context, Result};
use std::io::Write;
use std::sync::OnceLock;

/// Largest configuration that is read, in bytes.
const MAX: usize = 16 << 20;

/// The configuration as podman gave it, from when it was read whole.
static INPUT: OnceLock<Vec<u8>> = OnceLock::new();

/// Passes the configuration on, edited for a container that requests a pattern. If anything fails,
/// the input is passed on unchanged, since podman would otherwise refuse the container.
///
/// # Errors
/// The configuration cannot be read or written.
pub fn run() -> Result<()> {
    let text = file::read_bounded(std::io::stdin().lock(), MAX, "the configuration on stdin")?;
    let text = INPUT.get_or_init(|| text);
    let edited = edit(text).unwrap_or_else(|e| {
        log::warn!("precreate: {e:#}, handing it on as it is");
        None
    });
    write(edited.as_deref().unwrap_or(text))
}

/// Passes the configuration on as it was read, after a panic.
///
/// # Errors
/// It was not read, or cannot be written.
pub fn hand_on() -> Result<()> {
    write(INPUT.get().context("no configuration was read")?)
}

fn write(text: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text)?;
    Ok(out.flush()?)
}

fn edit(text: &[u8]) -> Result<Option<Vec<u8>>> {
    let config = Config::load()?;
    spec::edit(text, None, &config, &Program::own()?.path, runtime::reach()?)
}
