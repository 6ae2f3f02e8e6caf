//! Which memory a small core keeps.

use super::stacks::{self, ThreadPlace, dumped};
use super::threads::{self, ThreadRegisters};
use super::{linker, linker::LINKER};
use crate::config::KeptMemory;
use crate::corefile::head::CoreHead;
use crate::corefile::image::{CoreImage, MOST_HEADS};
use crate::corefile::segments::{Machine, Segment};
use crate::elf::spans::{Spans, merge};
use std::collections::BTreeSet;

pub(super) const PAGE: u64 = 4096;
/// Most bytes of the vDSO, which has a few pages.
const MOST_VDSO: u64 = 64 << 10;
/// AT_SYSINFO_EHDR of the auxiliary vector: the address of the vDSO.
const VDSO: u64 = 33;
/// Most bytes of global variables: what is dumped of mapped files.
const MOST_GLOBALS: u64 = 1 << 20;
/// Most bytes of a segment that may be the data of a program, in a core that does not say which
/// files were mapped.
const SMALL: u64 = 64 << 10;
/// How the file names of C libraries with threads begin.
const LIBC: [&[u8]; 4] = [b"libc.so", b"libc-", b"libpthread", b"ld-musl"];
/// A thread's block (`struct pthread`), with which a debugger tells threads apart: its size is
/// less, and most threads of which it is kept.
const BLOCK: u64 = 2560;
const MOST_BLOCKS: usize = 4096;
/// Most pages that the registers and the stack of the thread that crashed point to, and those of
/// all threads; and how many bytes of a stack are searched for pointers, of that thread's and of
/// another's.
const MOST_FIRST: usize = 256;
const MOST_PAGES: usize = 512;
const SEARCHED_FIRST: u64 = 64 << 10;
const SEARCHED: u64 = 4 << 10;

/// Chooses what is kept of the memory: spans of addresses, sorted, all of which can be read.
pub(super) fn select(head: &CoreHead, image: &CoreImage<'_>, keep: KeptMemory) -> Spans {
    let threads = threads::of(head);
    let share = stacks::share(threads.len());
    let mut spans = known(image);
    spans.extend(linker::of(image));
    let mut own: Vec<Spans> = Vec::new();
    for (i, thread) in threads.iter().enumerate() {
        let all = stacks_of(image, thread, i == 0, share);
        spans.extend(&all);
        own.push(all);
    }
    spans.extend(threads.iter().take(MOST_BLOCKS).map(|t| block(image.machine, t)));
    let mut left = MOST_GLOBALS;
    for segment in globals(image, keep) {
        let size = segment.dumped.size.min(left);
        left -= size;
        spans.push((segment.start(), segment.start().saturating_add(size)));
    }
    let pages = Pointed::of(image, &threads, &own, keep).pages;
    spans.extend(pages.into_iter().map(|page| (page, page.saturating_add(PAGE))));
    present(image, merge(spans))
}

/// What the head alone says: the vDSO, and the first page of each mapped file.
pub(super) fn known(image: &CoreImage<'_>) -> Spans {
    let mut spans = Spans::new();
    if let Some(vdso) = image.notes.auxv.get(&VDSO) {
        spans.push((*vdso, vdso.saturating_add(MOST_VDSO)));
        if let Some(segment) = dumped(&image.segments, *vdso) {
            let end = segment.start().saturating_add(segment.dumped.size);
            spans.last_mut().into_iter().for_each(|span| span.1 = span.1.min(end));
        }
    }
    let heads = image.notes.files.iter().filter(|file| file.offset == 0);
    spans.extend(heads.take(MOST_HEADS).map(|f| (f.start, f.start.saturating_add(PAGE))));
    spans
}

/// The stacks of a thread: its own, and where signal handlers interrupted it.
fn stacks_of(image: &CoreImage<'_>, thread: &ThreadRegisters, is_first: bool, share: u64) -> Spans {
    let mut found = Spans::new();
    let mut next = vec![ThreadPlace::of(image, thread)];
    while let Some(place) = next.pop() {
        let is_new = |span: &(u64, u64)| !found.iter().any(|f| f.0 <= span.0 && span.0 < f.1);
        let span = stacks::of(image, place, is_first, share).filter(is_new);
        let Some(span) = span else { continue };
        found.push(span);
        if found.len() >= stacks::MOST_INTERRUPTED {
            break;
        }
        next.extend(stacks::interrupted(image, span));
    }
    found
}

/// The block of a thread: behind its thread pointer on x86-64, before it on AArch64.
pub(super) fn block(machine: Machine, thread: &ThreadRegisters) -> (u64, u64) {
    let tls = thread.tls & !15;
    match machine {
        _ if tls == 0 => (0, 0),
        Machine::X86_64 => (tls, tls.saturating_add(BLOCK)),
        Machine::Aarch64 => (tls.saturating_sub(BLOCK), tls.saturating_add(16)),
    }
}

/// The segments with global variables: what is dumped of mapped files, and what lies right behind
/// that (`.bss`). Those by which a debugger finds the threads come first, and without the heap
/// there are no others: the dynamic linker's and the C library's.
fn globals<'i>(image: &'i CoreImage<'_>, keep: KeptMemory) -> Vec<&'i Segment> {
    let files = &image.notes.files;
    let dumped = image.segments.iter().filter(|s| s.dumped.size > 0);
    if files.is_empty() {
        return dumped.filter(|s| s.dumped.size <= SMALL).collect();
    }
    let linker = image.notes.auxv.get(&LINKER).copied().unwrap_or(0);
    let linker = files.iter().find(|f| (f.start..f.end).contains(&linker)).map(|f| &f.path);
    let is_libc = |path: &[u8]| {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        LIBC.iter().any(|start| name.starts_with(start))
    };
    let mut found: Vec<(bool, &Segment)> = dumped
        .filter(|s| s.is_writable())
        .filter_map(|s| {
            let after = files.partition_point(|f| f.start <= s.start());
            let file = files[..after].last().filter(|f| s.start() <= f.end)?;
            Some((Some(&file.path) != linker && !is_libc(&file.path), s))
        })
        .filter(|(is_other, _)| !is_other || keep == KeptMemory::Stacks)
        .collect();
    found.sort_by_key(|(is_other, _)| *is_other);
    found.into_iter().map(|(_, segment)| segment).collect()
}

/// The pages that registers and stacks point to.
struct Pointed<'i, 's> {
    image: &'i CoreImage<'s>,
    /// Whether all of them count, or only code that is in no file.
    is_all: bool,
    most: usize,
    pages: BTreeSet<u64>,
}

impl<'i, 's> Pointed<'i, 's> {
    fn of(
        image: &'i CoreImage<'s>,
        threads: &[ThreadRegisters],
        own: &[Spans],
        keep: KeptMemory,
    ) -> Self {
        let is_all = keep == KeptMemory::Stacks;
        let mut found = Pointed { image, is_all, most: MOST_FIRST, pages: BTreeSet::new() };
        for (i, (thread, own)) in threads.iter().zip(own).enumerate() {
            if i == 1 {
                found.most = MOST_PAGES;
            }
            found.add(thread.pc, own);
            for value in &thread.general {
                found.add(*value, own);
            }
            let searched = if i == 0 { SEARCHED_FIRST } else { SEARCHED };
            for (start, end) in own {
                let part = (*start, start.saturating_add(searched).min(*end));
                stacks::words(image, part, &mut |_, word| found.add(word, own));
            }
            if found.pages.len() >= MOST_PAGES {
                break;
            }
        }
        found
    }

    /// Adds the page of an address, unless it is on the thread's own stack. Returns whether there
    /// is room for more.
    fn add(&mut self, address: u64, own: &Spans) -> bool {
        if self.pages.len() >= self.most {
            return false;
        }
        let counts = |s: &Segment| self.is_all || s.is_code;
        if dumped(&self.image.segments, address).is_some_and(counts)
            && !own.iter().any(|(start, end)| (*start..*end).contains(&address))
        {
            self.pages.insert(address & !(PAGE - 1));
        }
        true
    }
}

/// What of some spans can be read.
fn present(image: &CoreImage<'_>, spans: Spans) -> Spans {
    let mut found = Spans::new();
    for (start, end) in spans {
        let mut at = start;
        while at < end {
            let Some(segment) = dumped(&image.segments, at) else {
                // To the next segment.
                let after = image.segments.partition_point(|s| s.start() <= at);
                match image.segments.get(after) {
                    Some(next) if next.start() < end => at = next.start(),
                    _ => break,
                }
                continue;
            };
            let stop = (at & !(PAGE - 1)).saturating_add(PAGE).min(end);
            let stop = stop.min(segment.start().saturating_add(segment.dumped.size));
            let mut bytes = [0; PAGE as usize];
            if image.memory.read(at, &mut bytes[..(stop - at) as usize]).is_some() {
                found.push((at, stop));
            }
            at = stop;
        }
    }
    merge(found)
}
