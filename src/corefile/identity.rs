//! Names the kept executables and libraries: by the build-id, which the debugger looks for, and by
//! a hash of the content, which no other file shares whatever build-id it claims. The file is not
//! trusted: a bounded number of bounded reads, and it is never mapped.

use super::image::Source;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use object::{Endianness, Pod};

/// Most program headers that are read; linkers make about ten.
const MAX_SEGMENTS: usize = 256;
/// Most bytes of one note segment.
const MAX_NOTES: usize = 64 << 10;

/// Stands in place of the build-id in the name of a file without one.
const NONE: &str = "content";
/// Bytes of the content's BLAKE3 hash in a name: to find another file with the same ones,
/// 2^128 would have to be tried.
const HASH: usize = 16;
/// Valid lengths of a build-id in bytes; linkers make 8, 16 or 20.
const BUILD_ID: std::ops::RangeInclusive<usize> = 4..=64;

/// Whether this can be the name of a kept file: `BUILD_ID-HASH`, a build-id in hexadecimal
/// and the hash of the content.
pub(crate) fn is_name(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |id: &str| id == NONE || BUILD_ID.contains(&(id.len() / 2)) && hex(id);
    name.split_once('-').is_some_and(|(id, hash)| is_id(id) && hash.len() == 2 * HASH && hex(hash))
}

/// Whether this is the name of a kept file that claims this build-id. There may be several.
pub(super) fn is_name_of(name: &str, build_id: &str) -> bool {
    is_name(name) && name.split_once('-').is_some_and(|(id, _)| id == build_id)
}

/// The name of an ELF file that has this build-id; `None` if it is not such a file or
/// has more than `most` bytes.
pub(crate) fn name(file: &dyn Source, build_id: Option<&str>, most: u64) -> Option<String> {
    let mut buffer = vec![0; 128 << 10];
    let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
    while at <= most {
        let n = file.read_at(at, &mut buffer);
        if at == 0 && !buffer[..n].starts_with(&elf::ELFMAG) {
            return None;
        }
        if n == 0 {
            let hash = super::binary::hex(&hasher.finalize().as_bytes()[..HASH])?;
            return Some(format!(
                "{}-{hash}",
                build_id.filter(|id| BUILD_ID.contains(&(id.len() / 2))).unwrap_or(NONE)
            ));
        }
        hasher.update(&buffer[..n]);
        at += n as u64;
    }
    None
}

/// The build-id of an ELF file, in hexadecimal.
pub(crate) fn build_id(file: &dyn Source) -> Option<String> {
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

fn of_class<H: FileHeader<Endian = Endianness> + Pod>(
    file: &dyn Source,
    head: &[u8],
) -> Option<String> {
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
        assert_eq!(
            build_id(
                &b"\x7fELF\x02\x01\x01".iter().copied().chain([0xff; 200]).collect::<Vec<u8>>()
            ),
            None
        );
    }

    #[test]
    fn names() {
        let with = |text: &str, id| name(&format!("\x7fELF{text}").into_bytes(), id, 1 << 20);
        let (a, b) = (with("a", None).unwrap(), with("b", None).unwrap());
        assert!(
            a != b && is_name(&a) && a.starts_with(NONE) && Some(&a) == with("a", None).as_ref()
        );
        // Files with the same build-id differ in content, and files with the
        // same content in build-id.
        let (a, b) = (with("a", Some("00112233")).unwrap(), with("b", Some("00112233")).unwrap());
        assert!(
            a != b
                && is_name_of(&a, "00112233")
                && is_name_of(&b, "00112233")
                && !is_name_of(&a, "0011223344")
        );
        assert_eq!(
            a.split_once('-').unwrap().1,
            with("a", None).unwrap().split_once('-').unwrap().1
        );
        assert_eq!(name(&b"#!/bin/sh".to_vec(), None, 1 << 20), None);
        assert_eq!(name(&vec![], None, 1 << 20), None);
        let long = [&elf::ELFMAG[..], &[7; 5000]].concat();
        assert_eq!((name(&long, None, 5000), name(&long, None, 5004).is_some()), (None, true));
        let hash = "00112233445566778899aabbccddeeff";
        for (id, good) in [
            ("00112233", true),
            ("content", true),
            ("001122", false),
            ("0011223X", false),
            ("../22334455", false),
            ("", false),
        ] {
            assert_eq!(is_name(&format!("{id}-{hash}")), good, "{id}");
        }
        assert!(
            !is_name(hash)
                && !is_name(&format!("content-{hash}0"))
                && !is_name(&format!("content-{hash}-{hash}"))
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
