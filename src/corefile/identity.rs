//! By what an executable or library is known when it is kept: its build-id, from its notes; without one its content. The file is hostile: a bounded number of bounded
//! reads, never a mapping of it.

use super::image::Source;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use object::{Endianness, Pod};
use twox_hash::XxHash3_128;

/// Most program headers that are looked at; linkers make about ten.
const MAX_SEGMENTS: usize = 256;
/// Most bytes of one segment of notes.
const MAX_NOTES: usize = 64 << 10;

/// What stands before the hash of a content.
const CONTENT: &str = "content-";

/// Whether this can be the name of a kept file: a build-id in hexadecimal, long enough that two programs do not have the same by chance, or a content's.
pub fn is_name(name: &str) -> bool {
    let hex = name.strip_prefix(CONTENT).unwrap_or(name);
    (16..=128).contains(&hex.len()) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name of an ELF file; `None` for any other. The content is not read beyond `most` bytes. The hash keeps files apart; whoever wants two of the same can make
/// them, as he can with build-ids.
pub fn name(file: &dyn Source, most: u64) -> Option<String> {
    if let Some(id) = build_id(file).filter(|id| is_name(id)) {
        return Some(id);
    }
    let mut buffer = vec![0; 1 << 20];
    let (mut hasher, mut at) = (XxHash3_128::new(), 0);
    while at <= most {
        let n = file.read_at(at, &mut buffer);
        if at == 0 && !buffer[..n].starts_with(&elf::ELFMAG) {
            return None;
        }
        if n == 0 {
            return Some(format!("{CONTENT}{:032x}", hasher.finish_128()));
        }
        hasher.write(&buffer[..n]);
        at += n as u64;
    }
    None
}

/// The build-id of an ELF file, in hexadecimal.
pub fn build_id(file: &dyn Source) -> Option<String> {
    let mut head = [0; 64];
    let got = file.read_at(0, &mut head);
    let head = &head[..got];
    if !head.starts_with(&elf::ELFMAG) {
        return None;
    }
    match elf::FileClass(*head.get(4)?) {
        elf::ELFCLASS64 => of_class::<FileHeader64<Endianness>>(file, head),
        elf::ELFCLASS32 => of_class::<FileHeader32<Endianness>>(file, head),
        _ => None,
    }
}

fn of_class<H: FileHeader<Endian = Endianness> + Pod>(file: &dyn Source, head: &[u8]) -> Option<String> {
    let header = H::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let count = usize::from(header.e_phnum(endian)).min(MAX_SEGMENTS);
    let table = bytes(file, header.e_phoff(endian).into(), count * size_of::<H::ProgramHeader>())?;
    let (segments, _) = object::pod::slice_from_bytes::<H::ProgramHeader>(&table, count).ok()?;
    segments.iter().filter(|p| p.p_type(endian) == elf::PT_NOTE).find_map(|p| {
        let size = usize::try_from(p.p_filesz(endian).into()).ok()?.min(MAX_NOTES);
        let notes = bytes(file, p.p_offset(endian).into(), size)?;
        let mut notes = NoteIterator::<H>::new(endian, p.p_align(endian), &notes).ok()?;
        while let Ok(Some(note)) = notes.next() {
            if note.name() == b"GNU" && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                return super::binary::hex(note.desc());
            }
        }
        None
    })
}

fn bytes(file: &dyn Source, offset: u64, size: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; size];
    (file.read_at(offset, &mut bytes) == size).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_files_that_are_none() {
        assert_eq!(build_id(&Vec::new()), None);
        assert_eq!(build_id(&b"\x7fELF".to_vec()), None);
        assert_eq!(build_id(&b"\x7fELF\x02\x01\x01".iter().copied().chain([0xff; 200]).collect::<Vec<u8>>()), None);
    }

    #[test]
    fn names() {
        let with = |text: &str| name(&format!("\x7fELF{text}").into_bytes(), 1 << 20);
        let (a, b) = (with("a").unwrap(), with("b").unwrap());
        assert!(a != b && is_name(&a) && a.starts_with(CONTENT) && Some(&a) == with("a").as_ref());
        assert_eq!(name(&b"#!/bin/sh".to_vec(), 1 << 20), None);
        assert_eq!(name(&vec![], 1 << 20), None);
        let long = [&elf::ELFMAG[..], &[7; 5000]].concat();
        assert_eq!((name(&long, 5000), name(&long, 5004).is_some()), (None, true));
        for (id, good) in
            [("00112233445566ff", true), ("00112233445566f", false), ("00112233445566FF", false), ("../2233445566ff77", false), ("content-", false)]
        {
            assert_eq!(is_name(id), good, "{id}");
        }
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
