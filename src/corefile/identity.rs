//! Names the kept executables and libraries: by the build-id, which the debugger looks for, and by
//! a hash of the content, which no other file shares whatever build-id it claims. The file is not
//! trusted: a bounded number of bounded reads, and it is never mapped.

use crate::elf::{self, Source};
use object::elf::ELFMAG;

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
        if at == 0 && !buffer[..n].starts_with(&ELFMAG) {
            return None;
        }
        if n == 0 {
            let hash = elf::hex(&hasher.finalize().as_bytes()[..HASH])?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let long = [&ELFMAG[..], &[7; 5000]].concat();
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
}
