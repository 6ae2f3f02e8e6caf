//! Build-ids: the note by which a linker names a build.

use super::segments::read_program_headers;
use super::source::{Source, read_exactly};
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use object::{Endianness, Pod};

/// Most program headers that are read; linkers make about ten.
const MAX_SEGMENTS: usize = 256;
/// Most bytes of one note segment.
const MAX_NOTES: usize = 64 << 10;

/// Hexadecimal text of a build-id of 1 to 64 bytes; `None` for any other length.
pub(crate) fn hex(bytes: &[u8]) -> Option<String> {
    let valid = (1..=64).contains(&bytes.len());
    valid.then(|| bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// The build-id of an ELF file, in hexadecimal. It is read at a few places and never mapped.
pub(crate) fn build_id(file: &dyn Source) -> Option<String> {
    let mut head = [0; 64];
    let got = file.read_at(0, &mut head);
    let head = &head[..got];
    if !head.starts_with(&elf::ELFMAG) {
        return None;
    }
    match elf::FileClass(*head.get(4)?) {
        elf::ELFCLASS64 => build_id_of_class::<FileHeader64<Endianness>>(file, head),
        elf::ELFCLASS32 => build_id_of_class::<FileHeader32<Endianness>>(file, head),
        _ => None,
    }
}

fn build_id_of_class<H: FileHeader<Endian = Endianness> + Pod>(
    file: &dyn Source,
    head: &[u8],
) -> Option<String> {
    let header = H::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let count = usize::from(header.e_phnum(endian)).min(MAX_SEGMENTS);
    let segments = read_program_headers(file, header, endian, count)?;
    segments.iter().filter(|p| p.p_type(endian) == elf::PT_NOTE).find_map(|p| {
        let size = usize::try_from(p.p_filesz(endian).into()).ok()?.min(MAX_NOTES);
        let notes = read_exactly(file, p.p_offset(endian).into(), size)?;
        build_id_in_notes::<H>(&notes, endian, p.p_align(endian))
    })
}

/// The build-id in the contents of a note segment, in hexadecimal.
pub(crate) fn build_id_in_notes<H: FileHeader>(
    notes: &[u8],
    endian: H::Endian,
    align: H::Word,
) -> Option<String> {
    hex(note_of::<H>(notes, endian, align, b"GNU", elf::NT_GNU_BUILD_ID)?)
}

/// The contents of the first note of an owner and a type in the contents of a note segment.
pub(crate) fn note_of<'n, H: FileHeader>(
    notes: &'n [u8],
    endian: H::Endian,
    align: H::Word,
    owner: &[u8],
    kind: elf::NoteType,
) -> Option<&'n [u8]> {
    let mut notes = NoteIterator::<H>::new(endian, align, notes).ok()?;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == owner && note.n_type(endian) == kind {
            return Some(note.desc());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_files_that_are_none() {
        assert_eq!(build_id(&Vec::new()), None);
        assert_eq!(build_id(&b"\x7fELF".to_vec()), None);
        assert_eq!(
            build_id(
                &b"\x7fELF\x02\x01\x01".iter().copied().chain([0xff; 200]).collect::<Vec<u8>>()
            ),
            None
        );
    }

    #[test]
    fn damage_anywhere_is_no_panic() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let head = whole[..whole.len().min(8 << 10)].to_vec();
        for i in 0..1024.min(head.len()) {
            for value in [0, 0x7f, 0xff] {
                let mut bad = head.clone();
                bad[i] = value;
                build_id(&bad);
            }
        }
    }
}
