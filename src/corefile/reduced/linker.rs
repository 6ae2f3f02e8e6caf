//! What a debugger reads to find the libraries: the executable's dynamic section, the dynamic
//! linker's list (`struct r_debug` and `struct link_map` of `<link.h>`), and the names in it. To
//! the byte, since they may lie in the heap.

use crate::corefile::image::CoreImage;
use crate::corefile::link_map;
use crate::elf::spans::Spans;
use object::LittleEndian as LE;
use object::elf::{self, ProgramHeader64};
use object::read::elf::ProgramHeader;

/// Types of the auxiliary vector: the executable's program headers, their number, the dynamic
/// linker's address.
const PROGRAM_HEADERS: u64 = 3;
const NUMBER: u64 = 5;
pub(super) const LINKER: u64 = 7;
/// The entry of the dynamic section that points to `struct r_debug`.
const DEBUG: u64 = 21;
/// Most program headers; linkers make about ten.
const MOST_HEADERS: u64 = 64;
/// Most bytes of a dynamic section, and of a name (PATH_MAX).
const LONGEST: u64 = 64 << 10;
const LONGEST_NAME: usize = 4096;
/// Most libraries, and most name spaces of them (dlmopen(3)).
const MOST: usize = 4096;
const MOST_SPACES: usize = 16;
/// Bytes of `struct r_debug_extended`, and of the part of `struct link_map` that is public.
const DEBUG_SIZE: u64 = 48;
const MAP_SIZE: u64 = 40;

/// All of it, not sorted.
pub(super) fn of(image: &CoreImage<'_>) -> Spans {
    let mut spans = Spans::new();
    let word = |at: u64| image.memory.word(at);
    let mut first = None;
    if let Some((start, end)) = dynamic_section(image) {
        spans.push((start, end));
        let mut debug = (start..end)
            .step_by(16)
            .find_map(|at| (word(at)? == DEBUG).then(|| word(at.checked_add(8)?)).flatten());
        for _ in 0..MOST_SPACES {
            let Some(at) = debug.filter(|at| *at != 0) else { break };
            spans.push((at, at.saturating_add(DEBUG_SIZE)));
            list(image, at.checked_add(8).and_then(word), &mut spans);
            first = first.or(Some(at));
            // r_next, from version 2 on.
            let version = word(at).unwrap_or(0) as u32;
            debug = at.checked_add(40).filter(|_| version >= 2).and_then(word);
        }
    }
    if let (None, Some(linker)) = (first, image.notes.auxv.get(&LINKER)) {
        list(image, link_map::first_link(image, *linker), &mut spans);
    }
    spans
}

/// The executable's dynamic section, if its program headers are in the core.
fn dynamic_section(image: &CoreImage<'_>) -> Option<(u64, u64)> {
    let auxv = |kind: u64| image.notes.auxv.get(&kind).copied();
    let (start, count) = (auxv(PROGRAM_HEADERS)?, auxv(NUMBER)?.min(MOST_HEADERS) as usize);
    let mut bytes = vec![0; count * size_of::<ProgramHeader64<LE>>()];
    image.memory.read(start, &mut bytes)?;
    let (headers, _) = object::pod::slice_from_bytes::<ProgramHeader64<LE>>(&bytes, count).ok()?;
    let find = |kind| headers.iter().find(|p| p.p_type(LE) == kind);
    let bias = find(elf::PT_PHDR).map_or(0, |p| start.wrapping_sub(p.p_vaddr(LE)));
    let dynamic = find(elf::PT_DYNAMIC)?;
    let at = bias.wrapping_add(dynamic.p_vaddr(LE));
    Some((at, at.saturating_add(dynamic.p_memsz(LE).min(LONGEST))))
}

/// The list from its first entry on.
fn list(image: &CoreImage<'_>, first: Option<u64>, spans: &mut Spans) {
    let mut next = first;
    for _ in 0..MOST {
        // l_addr, l_name, l_ld, l_next, l_prev
        let Some(at) = next.filter(|at| *at != 0) else { return };
        let word = |i: u64| image.memory.word(at.checked_add(8 * i)?);
        spans.push((at, at.saturating_add(MAP_SIZE)));
        if let Some(name) = word(1) {
            let bytes = image.memory.up_to(name, LONGEST_NAME);
            let length = bytes.iter().position(|b| *b == 0).map_or(bytes.len(), |at| at + 1);
            spans.push((name, name.saturating_add(length as u64)));
        }
        next = word(3);
    }
}
