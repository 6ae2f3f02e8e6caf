//! Which memory a small core may keep, before any memory is read: for where the core comes through
//! a pipe, past which nothing is read again.

use super::select::{PAGE, block, known};
use super::{stacks, threads};
use crate::corefile::head::CoreHead;
use crate::corefile::image::CoreImage;
use crate::elf::spans::{Spans, merge};

/// Segments up to this size, in bytes, may hold what the dynamic linker keeps, and global
/// variables.
const SMALL: u64 = 256 << 10;
/// Most bytes of those segments together.
const MOST: u64 = 8 << 20;
/// Most pages around registers.
const MOST_PAGES: usize = 1024;
/// Most bytes of the first thread's stack where another one, such as a signal handler's, is used.
const MOST_MAIN: u64 = 256 << 10;
/// AT_EXECFN of the auxiliary vector: an address on the stack of the first thread.
const EXECFN: u64 = 31;

/// Spans of addresses in whole pages, sorted.
pub(super) fn candidates(head: &CoreHead, image: &CoreImage<'_>) -> Spans {
    let threads = threads::of(head);
    let share = stacks::share(threads.len());
    let mut spans = known(image);
    let mut pages = 0;
    for (i, thread) in threads.iter().enumerate() {
        spans.extend(stacks::used(image, thread.sp, i == 0, share));
        if pages < MOST_PAGES {
            spans.push(block(image.machine, thread));
            let values = thread.general.iter().chain([&thread.pc]);
            spans.extend(values.map(|value| (*value, value.saturating_add(1))));
            pages += thread.general.len() + 2;
        }
    }
    if let Some(segment) =
        image.notes.auxv.get(&EXECFN).and_then(|at| stacks::dumped(&image.segments, *at))
    {
        let end = segment.start().saturating_add(segment.dumped.size);
        spans.push((segment.start().max(end.saturating_sub(MOST_MAIN)), end));
    }
    let mut left = MOST;
    for segment in image.segments.iter().filter(|s| (1..=SMALL).contains(&s.dumped.size)) {
        let Some(rest) = left.checked_sub(segment.dumped.size) else { continue };
        left = rest;
        spans.push((segment.start(), segment.start().saturating_add(segment.dumped.size)));
    }
    let whole = |(start, end): (u64, u64)| {
        (start & !(PAGE - 1), end.checked_next_multiple_of(PAGE).unwrap_or(end))
    };
    merge(spans.into_iter().filter(|(start, end)| start < end).map(whole).collect())
}
