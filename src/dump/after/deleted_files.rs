//! Executables and libraries that have no name any more, of a process that still exists: replaced
//! while it ran, as every upgrade does, or made in memory (memfd_create(2)). They are pinned while
//! the core is written, since nothing leads to them once the process has gone.
//!
//! They are pinned by `O_PATH`, which neither contacts the file system nor needs a right to the
//! file. A reader opens such a descriptor anew, with the crasher's rights.

use crate::sys::proc::Proc;
use crate::sys::{AsFd, BorrowedFd, OwnedFd};
use std::collections::{BTreeMap, BTreeSet};

/// Most files that are pinned.
const MOST: usize = 64;

/// What the kernel adds to the path of a file without a name.
const DELETED: &[u8] = b" (deleted)";

/// Pinned files, by the address at which their beginning is mapped.
#[derive(Debug, Default)]
pub(crate) struct DeletedFiles(BTreeMap<u64, OwnedFd>);

impl DeletedFiles {
    /// Pins those of a process, by the text of its /proc/PID/maps. What cannot be pinned is left
    /// out.
    pub(crate) fn of(task: &Proc, maps: &[u8]) -> Self {
        let pin = |(start, end)| Some((start, task.mapped_file(start, end).ok()?));
        DeletedFiles(beginnings(maps).into_iter().take(MOST).filter_map(pin).collect())
    }

    /// The file whose beginning is mapped at this address.
    pub(crate) fn at(&self, start: u64) -> Option<&OwnedFd> {
        self.0.get(&start)
    }

    /// All descriptors in it, which stay open.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.values().map(AsFd::as_fd)
    }
}

/// Where the beginnings of deleted files with code are mapped, in the text of /proc/PID/maps: lines
/// of `start-end perms offset device inode path`, see proc_pid_maps(5).
fn beginnings(maps: &[u8]) -> Vec<(u64, u64)> {
    struct Row<'m> {
        range: (u64, u64),
        is_code: bool,
        is_beginning: bool,
        file: (&'m str, &'m str),
    }
    fn row(line: &[u8]) -> Option<Row<'_>> {
        let line = line.strip_suffix(DELETED)?;
        // The path may be anything.
        let numbers = line.split(|b| *b == b'/').next()?;
        let mut words = std::str::from_utf8(numbers).ok()?.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let (perms, offset) = (words.next()?, words.next()?);
        Some(Row {
            range: (hex(start)?, hex(end)?),
            is_code: perms.contains('x'),
            is_beginning: hex(offset)? == 0,
            file: (words.next()?, words.next()?),
        })
    }
    let rows: Vec<_> = maps.split(|b| *b == b'\n').filter_map(row).collect();
    let with_code: BTreeSet<_> = rows.iter().filter(|r| r.is_code).map(|r| r.file).collect();
    let is_wanted = |row: &&Row<'_>| row.is_beginning && with_code.contains(&row.file);
    rows.iter().filter(is_wanted).map(|row| row.range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_of_deleted_files_with_code() {
        let maps = b"\
00400000-00401000 r--p 00000000 08:01 77                         /bin/server (deleted)
00401000-00402000 r-xp 00001000 08:01 77                         /bin/server (deleted)
7f0000000000-7f0000001000 r-xp 00000000 00:01 3 /memfd:a b (deleted)
7f0000002000-7f0000003000 rw-s 00000000 00:01 4 /SYSV00000000 (deleted)
7f0000004000-7f0000005000 r--p 00000000 08:01 78 /lib/libc.so.6
7f0000005000-7f0000006000 r-xp 00001000 08:01 78 /lib/libc.so.6
7f0000006000-7f0000007000 r-xp 00000000 00:00 0
nonsense (deleted)
-/x (deleted)
";
        assert_eq!(
            beginnings(maps),
            [(0x40_0000, 0x40_1000), (0x7f00_0000_0000, 0x7f00_0000_1000)]
        );
        assert_eq!(beginnings(b""), []);
    }
}
