//! The modules of a core without NT_FILE, such as QEMU writes for a program of another
//! architecture: the executable by the auxiliary vector, its libraries by the list that the dynamic
//! linker keeps for debuggers (`struct r_debug` and `struct link_map` of `<link.h>`). Such a core
//! has no code, nor ELF headers: only memory that could be written to.

use super::image::CoreImage;
use super::results::Module;
use crate::sys::proc::printable;

/// Types of the auxiliary vector: the executable's program headers, the dynamic linker's address,
/// and where the executable's path is.
const PROGRAM_HEADERS: u64 = 3;
const LINKER: u64 = 7;
const PATH: u64 = 31;
/// The entry of the executable's dynamic section that points to `struct r_debug`.
const DEBUG: u64 = 21;
/// Most bytes of a path (PATH_MAX).
const LONGEST: usize = 4096;
/// Most bytes of memory that are searched, and most of one segment.
const SEARCHED: usize = 64 << 20;
const SEARCHED_EACH: usize = 4 << 20;
const PAGE: u64 = 4096;
/// Most libraries.
const MAX: usize = 4096;

/// Finds the executable and its libraries.
pub(super) fn modules(image: &CoreImage<'_>) -> Vec<Module> {
    let auxv = |kind: u64| image.notes.auxv.get(&kind).copied();
    let Some(headers) = auxv(PROGRAM_HEADERS) else { return Vec::new() };
    let path = auxv(PATH).map(|at| text(image, at)).unwrap_or_default();
    // Linkers place the program headers behind the ELF header, at the executable's start.
    let mut found = vec![(headers & !(PAGE - 1), path)];
    if let Some(linker) = auxv(LINKER).filter(|linker| *linker != 0) {
        found.extend(libraries(image, linker));
    }
    found.sort_unstable();
    found.dedup_by_key(|(start, _)| *start);
    let ends: Vec<u64> = found.iter().skip(1).map(|(start, _)| *start).chain([u64::MAX]).collect();
    found
        .into_iter()
        .zip(ends)
        .map(|((start, path), next)| {
            let end = end_of_run(image, start).min(next);
            Module { path, start, end, ..Module::default() }
        })
        .filter(|m| m.start < m.end)
        .collect()
}

/// Where the segments that follow one another without a gap end.
fn end_of_run(image: &CoreImage<'_>, start: u64) -> u64 {
    let segments = image.segments.iter().filter(|s| s.end() > start);
    segments.fold(start, |end, s| if s.start() <= end { end.max(s.end()) } else { end })
}

/// The start of each library with its path.
fn libraries(image: &CoreImage<'_>, linker: u64) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let mut next = first_link(image, linker);
    while let Some(at) = next.filter(|at| *at != 0 && found.len() < MAX) {
        // l_addr, l_name, l_ld, l_next
        let word = |i: u64| image.memory.word(at.checked_add(8 * i)?);
        let (Some(start), Some(name)) = (word(0), word(1)) else { break };
        next = word(3);
        let path = text(image, name);
        if !path.is_empty() {
            found.push((start, path));
        }
    }
    found
}

/// The first `struct link_map`. The dynamic section points to `struct r_debug`; where that section
/// is only the program headers say, which are not in the core: it is recognised by its contents.
pub(super) fn first_link(image: &CoreImage<'_>, linker: u64) -> Option<u64> {
    let mut left = SEARCHED;
    for segment in image.segments.iter().filter(|s| s.dumped.size > 0) {
        let bytes = image.memory.up_to(segment.start(), SEARCHED_EACH.min(left));
        left -= bytes.len();
        let (words, _) = bytes.as_chunks::<8>();
        for (tag, value) in words.iter().zip(words.iter().skip(1)) {
            if u64::from_le_bytes(*tag) != DEBUG {
                continue;
            }
            // r_version, r_map, r_brk, r_state, r_ldbase
            let debug = u64::from_le_bytes(*value);
            let word = |i: u64| image.memory.word(debug.checked_add(8 * i)?);
            if word(4) == Some(linker) {
                return word(1);
            }
        }
    }
    None
}

fn text(image: &CoreImage<'_>, at: u64) -> String {
    let bytes = image.memory.up_to(at, LONGEST);
    printable(bytes.split(|b| *b == 0).next().unwrap_or_default())
}
