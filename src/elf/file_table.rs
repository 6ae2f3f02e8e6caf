//! NT_FILE, the note of a core that lists the mapped files (`fill_files_note` in
//! `fs/binfmt_elf.c`): their count, the page size, then start, end and offset in pages of each,
//! then their paths, each ended by a NUL.

use object::endian::Endian;
use object::pod::{from_bytes, slice_from_bytes};
use object::{NativeEndian, U64};

/// The contents of an NT_FILE note of a 64-bit process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileTable<'n, E: Endian> {
    endian: E,
    page: u64,
    rows: &'n [[U64<E>; 3]],
    paths: &'n [u8],
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MappedFile<'n> {
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// Offset in the file, in bytes.
    pub offset: u64,
    pub path: &'n [u8],
}

impl<'n, E: Endian> FileTable<'n, E> {
    /// Reads the contents of a note; `None` if its rows are not whole.
    pub(crate) fn parse(note: &'n [u8], endian: E) -> Option<Self> {
        let (count, rest) = from_bytes::<U64<E>>(note).ok()?;
        let (page, rest) = from_bytes::<U64<E>>(rest).ok()?;
        let count = usize::try_from(count.get(endian)).ok()?.checked_mul(3)?;
        let (numbers, paths) = slice_from_bytes::<U64<E>>(rest, count).ok()?;
        Some(FileTable { endian, page: page.get(endian), rows: numbers.as_chunks().0, paths })
    }

    /// The first address of each file.
    pub(crate) fn starts(self) -> impl Iterator<Item = u64> + 'n {
        self.rows.iter().map(move |[start, ..]| start.get(self.endian))
    }

    /// The rows that have a path; `None` in place of a row whose offset is damaged.
    pub(crate) fn files(self) -> impl Iterator<Item = Option<MappedFile<'n>>> {
        self.rows.iter().zip(self.paths.split(|b| *b == 0)).map(
            move |([start, end, pages], path)| {
                let offset = pages.get(self.endian).checked_mul(self.page)?;
                let (start, end) = (start.get(self.endian), end.get(self.endian));
                Some(MappedFile { start, end, offset, path })
            },
        )
    }
}

/// The first address of each file in the NT_FILE note of a core that this kernel writes; `None` if
/// its rows are not whole.
pub(crate) fn starts_of_files(note: &[u8]) -> Option<Vec<u64>> {
    Some(FileTable::parse(note, NativeEndian)?.starts().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_note() {
        let note = |words: &[u64]| words.iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<u8>>();
        let mut good = note(&[2, 4096, 0x1000, 0x2000, 0, 0x5000, 0x6000, 1]);
        assert_eq!(starts_of_files(&good), Some(vec![0x1000, 0x5000]));
        good.extend(b"/a\0/b\0");
        let files: Vec<_> = FileTable::parse(&good, NativeEndian).unwrap().files().collect();
        let row = MappedFile { start: 0x5000, end: 0x6000, offset: 4096, path: b"/b" };
        assert_eq!((files.len(), files[1]), (2, Some(row)));
        assert_eq!(starts_of_files(&note(&[3, 4096, 0x1000, 0x2000, 0])), None);
        assert_eq!(starts_of_files(&note(&[u64::MAX, 4096])), None);
        assert_eq!(starts_of_files(b""), None);
    }
}
