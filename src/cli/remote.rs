//! Uploaded bundles: `oci-coredump-ship`, which has the network, fetches them. They are then read
//! as any other.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const NAME: &str = "oci-coredump-ship";

/// Where it is when it is not beside this program.
const USUAL: &str = "/usr/libexec/oci-coredump/oci-coredump-ship";

/// Where a bundle is kept while it is read: on disk, since it may be large. Never taken from the
/// environment.
const PLACE: &str = "/var/tmp";

/// That program: the one beside this one, else the one in the usual place.
pub(super) fn program() -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|path| Some(path.parent()?.join(NAME)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| USUAL.into())
}

/// Whether it is the URL of an uploaded bundle.
pub(super) fn is_url(word: &str) -> bool {
    ["s3://", "oss://", "obs://", "gs://", "az://", "file://"]
        .iter()
        .any(|scheme| word.starts_with(scheme))
}

/// Fetches a bundle into a file without a name.
///
/// # Errors
/// It cannot be fetched, is not what was uploaded, or would need more than half of the free space.
pub(super) fn fetch(url: &str) -> Result<File> {
    let mut file = tempfile::tempfile_in(PLACE).or_else(|_| tempfile::tempfile())?;
    let room = crate::sys::kernel::free_bytes(Path::new(PLACE)).unwrap_or(1 << 30) / 2;
    let program = program();
    let mut child = Command::new(&program)
        .args(["cat", "--", url])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let from = child.stdout.take().context("its output")?;
    let copied = std::io::copy(&mut from.take(room + 1), &mut file).context("write");
    if !matches!(copied, Ok(n) if n <= room) {
        let _ = child.kill();
    }
    let status = child.wait().context("wait")?;
    ensure!(copied? <= room, "fetch {url}: it has more than half of the free bytes of {PLACE}");
    ensure!(status.success(), "fetch {url}: {NAME} failed");
    file.flush()?;
    file.rewind()?;
    Ok(file)
}
