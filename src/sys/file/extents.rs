//! Where a file holds data, and copies that keep its holes.

use rustix::fs;
use rustix::io::Errno;
use std::io::Read;

/// Makes the new file `to` share all blocks with `from`.
///
/// # Errors
/// The file system cannot do that.
///
/// # References
/// ioctl_ficlone(2), Linux 4.5.
pub(crate) fn clone_of(from: &std::fs::File, to: &std::fs::File) -> std::io::Result<()> {
    Ok(fs::ioctl_ficlone(to, from)?)
}

/// Copies `size` bytes of `from` with their holes to the new file `to`; blocks are shared if the
/// file system can do that. At most `most` bytes are written.
///
/// # Errors
/// There is more to write, or the file changed while it was copied.
///
/// # References
/// lseek(2): `SEEK_DATA`, `SEEK_HOLE`, Linux 3.1; copy_file_range(2).
pub(crate) fn copy_whole(
    from: &std::fs::File,
    to: &std::fs::File,
    size: u64,
    most: u64,
) -> std::io::Result<()> {
    use std::io::Seek;
    if clone_of(from, to).is_err() {
        let (mut at, mut written) = (0, 0u64);
        while at < size {
            let start = match fs::seek(from, fs::SeekFrom::Data(at)) {
                Ok(start) => start,
                // Only a hole up to the end.
                Err(Errno::NXIO) => break,
                Err(e) => return Err(e.into()),
            };
            let end = fs::seek(from, fs::SeekFrom::Hole(start))?.min(size);
            written = written.saturating_add(end.saturating_sub(start));
            if written > most {
                return Err(std::io::Error::other("there is more in the file than it had on disk"));
            }
            let (mut source, mut target) = (from, to);
            source.seek(std::io::SeekFrom::Start(start))?;
            target.seek(std::io::SeekFrom::Start(start))?;
            std::io::copy(&mut source.take(end.saturating_sub(start)), &mut target)?;
            at = end.max(start + 1);
        }
        to.set_len(size)?;
    }
    match (from.metadata()?.len(), to.metadata()?.len()) {
        (a, b) if a == size && b == size => Ok(()),
        _ => Err(std::io::Error::other("the file changed while it was copied")),
    }
}

/// Where a file holds data, up to `size`: offset and length of each piece. At most `most` pieces;
/// if there are more, the smallest holes between them count as data.
///
/// # References
/// lseek(2): `SEEK_DATA`, `SEEK_HOLE`, Linux 3.1; a file system without holes returns
/// `EINVAL`, or that all is data.
pub(crate) fn extents(
    file: &std::fs::File,
    size: u64,
    most: usize,
) -> rustix::io::Result<Vec<(u64, u64)>> {
    let (mut all, mut gap, mut at) = (Vec::<(u64, u64)>::new(), 0, 0);
    while at < size {
        let start = match fs::seek(file, fs::SeekFrom::Data(at)) {
            // The answer may come from a hostile file system.
            Ok(start) => start.max(at),
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            Err(e) => return Err(e),
        };
        if start >= size {
            break;
        }
        let end = fs::seek(file, fs::SeekFrom::Hole(start)).unwrap_or(size);
        let end = end.clamp(start + 1, size);
        all.push((start, end - start));
        while all.len() > most {
            gap = (gap * 2).max(4096);
            join(&mut all, gap);
        }
        at = end;
    }
    join(&mut all, 0);
    Ok(all)
}

/// Joins pieces with at most `gap` bytes between them.
fn join(pieces: &mut Vec<(u64, u64)>, gap: u64) {
    pieces.dedup_by(|next, before| {
        let near = next.0 - (before.0 + before.1) <= gap;
        if near {
            before.1 = next.0 + next.1 - before.0;
        }
        near
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn pieces_are_bounded() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        for n in 0..100u64 {
            file.write_all_at(&[1], n << 18).unwrap();
        }
        file.set_len(100 << 18).unwrap();
        let all = super::extents(&file, 100 << 18, 1000).unwrap();
        // On a file system without holes all is one piece.
        if all.len() > 1 {
            assert_eq!((all.len(), all[1].0), (100, 1 << 18));
            let few = super::extents(&file, 100 << 18, 10).unwrap();
            assert!(few.len() <= 10 && few[0].0 == 0, "{few:?}");
            let last = few.last().unwrap();
            assert!(last.0 + last.1 > 99 << 18);
            assert_eq!(super::extents(&file, 2 << 18, 1000).unwrap().len(), 2);
        }
    }
}
