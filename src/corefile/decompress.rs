//! Decompresses a core into an unnamed file, with its holes.

use crate::sys::sandbox::{self, SandboxBounds};
use crate::sys::{AsFd, kernel};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What other compressed files begin with, what they are compressed by, and what decompresses them.
const OTHERS: [(&[u8], &str, &str); 4] = [
    (b"\xfd7zXZ\0", "xz", "unxz"),
    (b"\x1f\x8b", "gzip", "gunzip"),
    (b"\x04\x22\x4d\x18", "lz4", "unlz4"),
    (b"BZh", "bzip2", "bunzip2"),
];

/// Directory of the unnamed file: on disk, since a core is large.
const PLACE: &str = "/var/tmp";

/// A new file without a name, on disk if possible.
pub(super) fn unnamed() -> Result<File> {
    tempfile::tempfile_in(PLACE).or_else(|_| tempfile::tempfile()).context("make a temporary file")
}

pub(crate) fn is_compressed(core: &File) -> bool {
    let mut start = [0; 4];
    core.read_at(&mut start, 0).is_ok_and(|n| n == 4) && start == ZSTD
}

/// The core as the kernel wrote it, decompressed if it is compressed. The decompressor runs in a
/// sandbox, and may use at most half of the free space.
///
/// # Errors
/// It cannot be decompressed: by the system, or since it is compressed by something else.
pub(crate) fn decompressed(core: File) -> Result<File> {
    if !is_compressed(&core) {
        let mut start = [0; 6];
        let read = core.read_at(&mut start, 0).unwrap_or(0);
        let other = OTHERS.iter().find(|(mark, ..)| start[..read].starts_with(mark));
        return match other {
            None => Ok(core),
            Some((_, by, tool)) => {
                bail!("it is compressed by {by}, and only zstd is read here: `{tool}` it first")
            }
        };
    }
    // What the owner appends from now on is not read.
    let size = core.metadata().context("fstat")?.len();
    let file = unnamed()?;
    let room = kernel::free_bytes(Path::new(PLACE)).unwrap_or(1 << 30) / 2;
    let bounds = SandboxBounds {
        memory: 1 << 30,
        cpu: 3600,
        time: Duration::from_secs(3600),
        output: 4096,
        file: room,
    };
    let result = sandbox::run(&bounds, &[core.as_fd(), file.as_fd()], |out| {
        let copied = zstd::stream::read::Decoder::new((&core).take(size))
            .and_then(|from| copy_sparse(from, &file, room));
        let _ = match copied {
            Ok(()) => out.write_all(b"ok"),
            Err(e) => write!(out, "{e}"),
        };
    })?;
    let message = String::from_utf8_lossy(&result.output).into_owned();
    if result.cut.is_some() || message != "ok" {
        let why = result.cut.unwrap_or(message);
        // The beginning of a core that was cut while it was written is still useful.
        ensure!(file.metadata()?.len() > 0, "decompress: {why}");
        log::warn!("decompress: {why}, going on with what came before");
    }
    Ok(file)
}

/// Copies bytes into an empty file; runs of zeros become holes. More than `most` bytes, including
/// holes, are an error, since a small file can decompress to a very large one.
fn copy_sparse(mut from: impl Read, mut to: &File, most: u64) -> std::io::Result<()> {
    let mut all = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut n = 0;
        // Whole blocks, so that holes are recognised.
        while n < buffer.len() {
            match from.read(&mut buffer[n..]) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if n == 0 {
            break;
        }
        all += n as u64;
        if all > most {
            return Err(std::io::Error::other("there is more in it than there is room for"));
        }
        for page in buffer[..n].chunks(4096) {
            if page.iter().all(|b| *b == 0) {
                to.seek(SeekFrom::Current(page.len() as i64))?;
            } else {
                to.write_all(page)?;
            }
        }
    }
    let size = to.stream_position()?;
    to.set_len(size)?;
    to.rewind()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn decompressed_with_its_holes() {
        let mut bytes = vec![7u8; 100_000];
        bytes.resize(8 << 20, 0);
        bytes.extend([9; 10]);
        bytes.resize(bytes.len() + 200_000, 0);
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(&zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
        (&file).rewind().unwrap();
        let plain = decompressed(file).unwrap();
        let mut got = vec![0; bytes.len()];
        plain.read_exact_at(&mut got, 0).unwrap();
        assert!(got == bytes && plain.metadata().unwrap().len() == bytes.len() as u64);
        assert!(plain.metadata().unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn what_else_it_is_compressed_by_is_said() {
        for (mark, by, tool) in OTHERS {
            let file = tempfile::tempfile().unwrap();
            (&file).write_all(&[mark, &[0; 50]].concat()).unwrap();
            let why = decompressed(file).unwrap_err().to_string();
            assert!(why.contains(by) && why.contains(tool), "{why}");
        }
    }

    #[test]
    fn damage_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(&[&ZSTD[..], &[0xff; 50]].concat()).unwrap();
        (&file).rewind().unwrap();
        assert!(decompressed(file).unwrap_err().to_string().starts_with("decompress: "));
    }
}
