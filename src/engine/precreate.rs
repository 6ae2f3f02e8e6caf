//! podman's own hook stage: the container's configuration on stdin, the one
//! for the runtime on stdout.

use super::{Program, runtime, spec};
use crate::config::Config;
use crate::sys::file;
use anyhow::Result;
use std::io::Write;

/// Largest configuration that is read, in bytes.
const MAX: usize = 16 << 20;

/// Passes the configuration on, edited for a container that requests a pattern. If anything fails,
/// the input is passed on unchanged, since podman would otherwise refuse the container.
///
/// # Errors
/// The configuration cannot be read or written.
pub fn run() -> Result<()> {
    let text = file::read_bounded(std::io::stdin().lock(), MAX, "the configuration on stdin")?;
    let edited = edit(&text).unwrap_or_else(|e| {
        log::warn!("precreate: {e:#}, handing it on as it is");
        None
    });
    let mut out = std::io::stdout().lock();
    out.write_all(edited.as_deref().unwrap_or(&text))?;
    Ok(out.flush()?)
}

fn edit(text: &[u8]) -> Result<Option<Vec<u8>>> {
    let config = Config::load()?;
    spec::edit(text, None, &config, &Program::own()?.path, runtime::reach()?)
}
