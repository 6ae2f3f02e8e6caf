//! Unpacks an archive that `export` has written, or one that only looks like it. Accepted are only
//! the names that `export` makes, each once, regular files, and links that stay inside. Owners and
//! modes in the archive are ignored.

use super::tree::{Tree, make_old};
use crate::sys::file;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use tar::{EntryType, GnuExtSparseHeader, Header};

/// Most entries of a bundle.
pub(super) const MOST_ENTRIES: usize = 20_000;
/// Most bytes of a name in a bundle, without its top directory.
pub(super) const LONGEST: usize = 2048;
/// Most pieces of data of one file: more than [`super::announced`] makes.
const PIECES: usize = 1 << 19;
const BLOCK: u64 = 512;

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    File,
    /// A symbolic link with this target.
    Link(&'a [u8]),
}

/// Checks that `export` could have made an entry of this name, which is relative
/// to the bundle's directory.
///
/// # Errors
/// The rule that it breaks.
pub(super) fn check(name: &[u8], kind: Kind<'_>) -> Result<(), &'static str> {
    let parts = plain(name)?;
    let is_hex = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_hexdigit);
    match (parts.as_slice(), kind) {
        ([b"core" | b"record.json" | b"README" | b"gdb.sh"], Kind::File) => Ok(()),
        ([b"root", _, ..], Kind::File) => Ok(()),
        ([b"debug", b".build-id", head, last], Kind::File)
            if is_hex(head) && last.strip_suffix(b".debug").is_some_and(is_hex) =>
        {
            Ok(())
        }
        ([b"exe"], Kind::Link(to)) if inside_root(to) => Ok(()),
        ([b"lib", _], Kind::Link(to)) if to.strip_prefix(b"../").is_some_and(inside_root) => Ok(()),
        ([b"exe"] | [b"lib", _], Kind::Link(_)) => Err("a link leads out of root/"),
        _ => Err(
            "it is none of core, exe, record.json, README, gdb.sh, root/..., lib/..., debug/...",
        ),
    }
}

fn inside_root(target: &[u8]) -> bool {
    plain(target).is_ok_and(|parts| parts.len() > 1 && parts[0] == b"root")
}

fn plain(name: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if name.len() > LONGEST {
        return Err("a name has at most 2048 bytes");
    }
    let parts: Vec<&[u8]> = name.split(|b| *b == b'/').collect();
    let odd = |part: &&[u8]| matches!(*part, b"" | b"." | b"..") || part.contains(&0);
    match parts.iter().any(|part| odd(part) || part.len() > 255) {
        true => Err("a name has plain components of at most 255 bytes"),
        false => Ok(parts),
    }
}

/// What has been unpacked, and what still may be.
struct State<'a> {
    into: &'a Tree,
    top: Option<Vec<u8>>,
    seen: BTreeSet<Vec<u8>>,
    entries: usize,
    /// Bytes of data that may still be written.
    room: u64,
}

/// Unpacks the decompressed archive `tar`, up to `room` bytes of data.
///
/// # Errors
/// Names the entry, and the rule that it breaks.
pub(super) fn unpack(tar: &File, into: &Tree, room: u64) -> Result<()> {
    let mut from = BufReader::new(tar);
    from.rewind().context("lseek")?;
    let mut state = State { into, top: None, seen: BTreeSet::new(), entries: 0, room };
    let (mut long_name, mut long_link) = (None, None);
    while let Some(header) = next(&mut from)? {
        state.entries += 1;
        ensure!(state.entries <= MOST_ENTRIES, "there are more than {MOST_ENTRIES} entries in it");
        match header.entry_type() {
            EntryType::GNULongName if long_name.is_none() => {
                long_name = Some(long(&mut from, &header)?);
            }
            EntryType::GNULongLink if long_link.is_none() => {
                long_link = Some(long(&mut from, &header)?);
            }
            _ => {
                let name = long_name.take().unwrap_or_else(|| header.path_bytes().into_owned());
                let target = long_link
                    .take()
                    .or_else(|| header.link_name_bytes().map(|target| target.into_owned()));
                state
                    .entry(&mut from, &header, &name, &target.unwrap_or_default())
                    .with_context(|| format!("entry {:?}", String::from_utf8_lossy(&name)))?;
            }
        }
    }
    ensure!(
        state.seen.contains(&b"core"[..]),
        "it is no bundle of `oci-coredump export`: there is no core in it"
    );
    Ok(())
}

impl State<'_> {
    fn entry(
        &mut self,
        from: &mut BufReader<&File>,
        header: &Header,
        name: &[u8],
        target: &[u8],
    ) -> Result<()> {
        let slash = name.iter().position(|b| *b == b'/').unwrap_or(0);
        let (top, name) = (&name[..slash], &name[(slash + 1).min(name.len())..]);
        ensure!(
            !matches!(top, b"" | b"." | b"..") && *self.top.get_or_insert(top.to_vec()) == top,
            "entries lie below more than one directory"
        );
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::GNUSparse => Kind::File,
            EntryType::Symlink => Kind::Link(target),
            other => {
                bail!("only regular files and symbolic links belong in a bundle, no {other:?}")
            }
        };
        check(name, kind).map_err(anyhow::Error::msg)?;
        ensure!(self.seen.insert(name.to_vec()), "this name is in it twice");
        let path = Path::new(crate::sys::proc::os(name));
        match kind {
            Kind::Link(target) => {
                ensure!(header.entry_size().is_ok_and(|size| size == 0), "a link has content");
                let dir = self.into.dir(path.parent().unwrap_or(Path::new("")))?;
                let last = path.file_name().unwrap_or_default();
                Ok(file::symlink(dir, crate::sys::proc::os(target), last).context("symlink")?)
            }
            Kind::File => {
                let size = header.entry_size().context("its size")?;
                let sparse = header.entry_type() == EntryType::GNUSparse;
                let pieces = if sparse { pieces(from, header)? } else { vec![(0, size)] };
                let whole = match header.as_gnu() {
                    Some(gnu) if sparse => gnu.real_size().context("its real size")?,
                    _ => size,
                };
                let mut end = 0;
                for (start, len) in &pieces {
                    ensure!(*start >= end, "its pieces are out of order or overlap");
                    end = start.checked_add(*len).context("its pieces do not fit its size")?;
                }
                ensure!(
                    end <= whole && pieces.iter().map(|(_, len)| len).sum::<u64>() == size,
                    "its pieces do not fit its size"
                );
                ensure!(
                    size <= self.room,
                    "there is room for {} bytes more, and it has {size}",
                    self.room
                );
                self.room -= size;
                let mut to = self.into.create(path)?;
                for (start, len) in pieces {
                    to.seek(SeekFrom::Start(start)).context("lseek")?;
                    let n =
                        std::io::copy(&mut from.by_ref().take(len), &mut to).context("write")?;
                    ensure!(n == len, "the archive ends in it");
                }
                to.flush()?;
                to.set_len(whole).context("ftruncate")?;
                make_old(&to)?;
                skip(from, (BLOCK - size % BLOCK) % BLOCK)
            }
        }
    }
}

/// The next header, or `None` at the block of zeros that ends an archive.
fn next(from: &mut impl Read) -> Result<Option<Header>> {
    let mut block = [0; BLOCK as usize];
    from.read_exact(&mut block).context("it is no tar archive, or not a whole one")?;
    if block.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    let header = Header::from_byte_slice(&block).clone();
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
        .sum();
    ensure!(header.cksum().is_ok_and(|said| said == sum), "it is no tar archive");
    Ok(Some(header))
}

/// Reads a long name: that of the next entry, or of its link's target.
fn long(from: &mut impl Read, header: &Header) -> Result<Vec<u8>> {
    let size = header.entry_size().context("the size of a name")?;
    ensure!(size <= 2 * LONGEST as u64, "a name has at most {LONGEST} bytes");
    let mut name = vec![0; size as usize];
    from.read_exact(&mut name).context("the archive ends in a name")?;
    skip(from, (BLOCK - size % BLOCK) % BLOCK)?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

fn pieces(from: &mut impl Read, header: &Header) -> Result<Vec<(u64, u64)>> {
    let gnu = header.as_gnu().context("a sparse file is GNU tar's")?;
    let mut all = Vec::new();
    let mut add = |sparse: &tar::GnuSparseHeader| -> Result<()> {
        if !sparse.is_empty() {
            ensure!(all.len() < PIECES, "a file has at most {PIECES} pieces");
            all.push((sparse.offset()?, sparse.length()?));
        }
        Ok(())
    };
    gnu.sparse.iter().try_for_each(&mut add)?;
    let mut more = gnu.is_extended();
    while more {
        let mut ext = GnuExtSparseHeader::new();
        from.read_exact(ext.as_mut_bytes()).context("the archive ends in a map of holes")?;
        ext.sparse.iter().try_for_each(&mut add)?;
        more = ext.is_extended();
    }
    Ok(all)
}

fn skip(from: &mut impl Read, bytes: u64) -> Result<()> {
    let n = std::io::copy(&mut from.take(bytes), &mut std::io::sink())?;
    ensure!(n == bytes, "the archive ends in padding");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_export_makes() {
        let long = [b"root/".as_slice(), &[b'x'; 256]].concat();
        let deep = [b"root".as_slice(), &b"/x".repeat(1100)].concat();
        let cases: [(&[u8], Kind<'_>, bool); 25] = [
            (b"core", Kind::File, true),
            (b"README", Kind::File, true),
            (b"root/usr/bin/a b", Kind::File, true),
            (b"debug/.build-id/ab/cdef.debug", Kind::File, true),
            (b"exe", Kind::Link(b"root/bin/a"), true),
            (b"lib/libc.so.6", Kind::Link(b"../root/lib/libc.so.6"), true),
            (b"core", Kind::Link(b"root/bin/a"), false),
            (b"exe", Kind::File, false),
            (b"exe", Kind::Link(b"/bin/sh"), false),
            (b"exe", Kind::Link(b"root/../../x"), false),
            (b"exe", Kind::Link(b"root"), false),
            (b"lib/x", Kind::Link(b"../../root/x"), false),
            (b"lib/x/y", Kind::Link(b"../root/x"), false),
            (b"lib/x", Kind::File, false),
            (b"root/x", Kind::Link(b"../root/x"), false),
            (b"root", Kind::File, false),
            (b"root/", Kind::File, false),
            (b"root/../x", Kind::File, false),
            (b".gdbinit", Kind::File, false),
            (b".config/gdb/gdbinit", Kind::File, false),
            (b"debug/.build-id/ab/../x.debug", Kind::File, false),
            (b"debug/x-gdb.py", Kind::File, false),
            (b"", Kind::File, false),
            (&long, Kind::File, false),
            (&deep, Kind::File, false),
        ];
        for (name, kind, good) in cases {
            assert_eq!(check(name, kind).is_ok(), good, "{} {kind:?}", name.escape_ascii());
        }
    }
}
