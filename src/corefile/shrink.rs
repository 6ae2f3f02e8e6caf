//! Makes a small core of a core, in an unnamed file.

use super::decompress::unnamed;
use super::reduced::SmallCore;
use crate::config::KeptMemory;
use crate::sys::AsFd;
use crate::sys::sandbox::{self, SandboxBounds};
use anyhow::{Result, bail};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Duration;

/// Bounds for it. Besides the notes, a small core has at most about 90 MiB.
const BOUNDS: SandboxBounds = SandboxBounds {
    memory: 2 << 30,
    cpu: 60,
    time: Duration::from_secs(120),
    output: 4096,
    file: 512 << 20,
};

/// The small core of a core, which is not compressed. It is chosen and written in a sandbox.
///
/// # Errors
/// The file is not a core that can be read, or there is no room for the small one.
pub(crate) fn shrunk(core: &File, keep: KeptMemory) -> Result<File> {
    let file = unnamed()?;
    let result = sandbox::run(&BOUNDS, &[core.as_fd(), file.as_fd()], |out| {
        let written = SmallCore::of_file(core, keep).and_then(|small| {
            let mut to = BufWriter::with_capacity(256 << 10, &file);
            small.write(&mut |bytes| to.write_all(bytes))?;
            Ok(to.flush()?)
        });
        let _ = match written {
            Ok(()) => out.write_all(b"ok"),
            Err(e) => write!(out, "{e:#}"),
        };
    })?;
    let message = String::from_utf8_lossy(&result.output).into_owned();
    match (result.cut, message.as_str()) {
        (None, "ok") => Ok(file),
        (why, _) => bail!("no small core can be made of it: {}", why.unwrap_or(message)),
    }
}
