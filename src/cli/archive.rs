//! Writes a bundle into a tar archive, with the holes of its files.

use super::announced::Announced;
use super::sink::BundleSink;
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A tar archive. The same crash gives the same bytes: owners, modes and times are fixed.
pub(super) struct Archive<W: Write>(tar::Builder<W>, PathBuf);

impl<W: Write> Archive<W> {
    /// `top` is the directory in the archive that contains everything.
    pub(super) fn new(out: W, top: &Path) -> Self {
        let mut builder = tar::Builder::new(out);
        builder.mode(tar::HeaderMode::Deterministic);
        Archive(builder, top.to_owned())
    }

    /// Finishes the archive.
    pub(super) fn finish(self) -> Result<W> {
        Ok(self.0.into_inner()?)
    }

    fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_mtime(1);
        header
    }
}

impl<W: Write> BundleSink for Archive<W> {
    fn file(&mut self, name: &Path, file: &mut Announced) -> Result<()> {
        let (mut header, map) = sparse(file)?;
        self.0
            .append_data(&mut header, self.1.join(name), map.chain(file))
            .with_context(|| format!("archive {}", name.display()))
    }

    fn text(&mut self, name: &Path, text: &str, program: bool) -> Result<()> {
        let mut header = Self::header(
            tar::EntryType::Regular,
            text.len() as u64,
            if program { 0o755 } else { 0o644 },
        );
        self.0
            .append_data(&mut header, self.1.join(name), text.as_bytes())
            .with_context(|| format!("archive {}", name.display()))
    }

    fn link(&mut self, name: &Path, target: &Path) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Symlink, 0, 0o777);
        self.0
            .append_link(&mut header, self.1.join(name), target)
            .with_context(|| format!("archive {}", name.display()))
    }
}

/// The header of a sparse file and the rest of its map, in GNU tar's format. The sizes are those
/// recorded in [`Announced`], to which its reader keeps.
///
/// # References
/// GNU tar, "Storing Sparse Files", the old GNU format.
fn sparse(file: &Announced) -> Result<(tar::Header, std::io::Cursor<Vec<u8>>)> {
    let mut header = Archive::<Vec<u8>>::header(tar::EntryType::Regular, file.size, 0o644);
    let mut map = Vec::new();
    if file.data() == file.size {
        return Ok((header, std::io::Cursor::new(map)));
    }
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(file.data());
    let gnu = header.as_gnu_mut().context("a header of GNU tar")?;
    gnu.set_real_size(file.size);
    // The end of the last piece gives the size of the file, even if it is in a hole.
    let mut pieces = file.pieces.clone();
    if pieces.last().is_none_or(|(start, len)| start + len < file.size) {
        pieces.push((file.size, 0));
    }
    let here = pieces.len().min(gnu.sparse.len());
    for (slot, (start, len)) in gnu.sparse.iter_mut().zip(&pieces[..here]) {
        slot.set_offset(*start);
        slot.set_length(*len);
    }
    gnu.set_is_extended(pieces.len() > here);
    let mut rest = pieces[here..].chunks(21).peekable();
    while let Some(chunk) = rest.next() {
        let mut block = tar::GnuExtSparseHeader::new();
        for (slot, (start, len)) in block.sparse.iter_mut().zip(chunk) {
            slot.set_offset(*start);
            slot.set_length(*len);
        }
        block.set_is_extended(rest.peek().is_some());
        map.extend_from_slice(block.as_bytes());
    }
    Ok((header, std::io::Cursor::new(map)))
}
