//! A container's file as it was when it was opened, with its size fixed at that moment. What the
//! owner appends later is not read; what the owner removes reads as zeros and is counted.

use crate::sys::file;
use anyhow::{Context, Result};
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

/// Most pieces of data of one file. A core with more small holes gets some of them filled.
const PIECES: usize = 1 << 18;

/// An opened file with its size and the positions of its data.
#[derive(Debug)]
pub(super) struct Announced {
    file: File,
    /// Its size when it was opened, in bytes.
    pub size: u64,
    /// Offset and length in bytes of each piece of data; the rest is holes.
    pub pieces: Vec<(u64, u64)>,
    /// Bytes that were gone when they were read.
    pub lacking: u64,
    piece: usize,
    at: u64,
}

impl Announced {
    /// Records the file's size and holes.
    pub(super) fn new(file: File) -> Result<Self> {
        let size = file.metadata().context("fstat")?.len();
        let pieces = file::extents(&file, size, PIECES).context("lseek(SEEK_DATA)")?;
        Ok(Announced { file, size, pieces, lacking: 0, piece: 0, at: 0 })
    }

    pub(super) fn inner(&self) -> &File {
        &self.file
    }

    /// What is said where it was made shorter while it was read. `name`: what it is.
    pub(super) fn shortened(&self, name: &dyn Display) -> Option<String> {
        let Announced { lacking, size, .. } = self;
        (*lacking > 0).then(|| {
            format!(
                "{name} was made shorter while it was read: {lacking} of its {size} bytes are \
                 zeros here"
            )
        })
    }

    /// Bytes of data, holes excluded.
    pub(super) fn data(&self) -> u64 {
        self.pieces.iter().map(|(_, len)| len).sum()
    }

    /// Copies the whole file into an empty one. Holes stay holes, and pages of zeros become holes.
    pub(super) fn copy_to(&mut self, to: &File) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        for (start, len) in self.pieces.clone() {
            let (mut at, end) = (start, start + len);
            while at < end {
                let most = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
                self.read_exact(&mut buffer[..most]).context("read")?;
                for page in buffer[..most].chunks(4096) {
                    if page.iter().any(|b| *b != 0) {
                        to.write_all_at(page, at).context("write")?;
                    }
                    at += page.len() as u64;
                }
            }
        }
        to.set_len(self.size).context("ftruncate")
    }

    /// Writes the whole file, holes as zeros, to a stream that cannot seek.
    pub(super) fn stream_to(&mut self, to: &mut (impl Write + ?Sized)) -> Result<()> {
        let mut at = 0;
        for (start, len) in self.pieces.clone() {
            std::io::copy(&mut std::io::repeat(0).take(start - at), to)?;
            std::io::copy(&mut self.by_ref().take(len), to)?;
            at = start + len;
        }
        std::io::copy(&mut std::io::repeat(0).take(self.size - at), to)?;
        Ok(())
    }
}

/// Reads the pieces of data one after the other, without the holes.
impl Read for Announced {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Some((start, len)) = self.pieces.get(self.piece).copied() else { return Ok(0) };
        let most = buffer.len().min(usize::try_from(len - self.at).unwrap_or(usize::MAX));
        let n = match self.file.read_at(&mut buffer[..most], start + self.at)? {
            0 => {
                buffer[..most].fill(0);
                self.lacking += most as u64;
                most
            }
            n => n,
        };
        self.at += n as u64;
        if self.at == len {
            (self.piece, self.at) = (self.piece + 1, 0);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn exactly_what_was_announced() {
        let bytes: Vec<u8> = (0..10_000u32).map(|n| n as u8 | 1).collect();
        for (change, lacking) in [(10_000u64, 0u64), (20_000, 0), (7_000, 3_000), (0, 10_000)] {
            let source = file(&bytes);
            let mut announced = Announced::new(source.try_clone().unwrap()).unwrap();
            if change > 10_000 {
                source.write_all_at(&[9; 10_000], 10_000).unwrap();
            } else {
                source.set_len(change).unwrap();
            }
            let to = file(b"");
            announced.copy_to(&to).unwrap();
            let mut got = vec![0; to.metadata().unwrap().len() as usize];
            to.read_exact_at(&mut got, 0).unwrap();
            let kept = change.min(10_000) as usize;
            assert_eq!((got.len(), announced.lacking), (10_000, lacking));
            assert!(got[..kept] == bytes[..kept] && got[kept..].iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn a_large_hole_costs_nothing() {
        let source = file(b"start");
        source.write_all_at(b"end", 1 << 40).unwrap();
        let mut announced = Announced::new(source).unwrap();
        let to = file(b"");
        announced.copy_to(&to).unwrap();
        assert_eq!(to.metadata().unwrap().len(), (1 << 40) + 3);
        let mut end = [0; 3];
        to.read_exact_at(&mut end, 1 << 40).unwrap();
        assert_eq!(&end, b"end");
    }
}
