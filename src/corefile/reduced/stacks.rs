//! Where the used part of a stack is: from the stack pointer, less the red zone, to the end of the
//! mapping, of the goroutine's stack, or of what is kept of it.

use super::threads::ThreadRegisters;
use crate::corefile::image::CoreImage;
use crate::corefile::segments::{Machine, Segment};
use crate::elf::u64_at;

/// What a function may use below the stack pointer.
const RED_ZONE: u64 = 128;
/// A stack pointer that is below its stack, as after an overflow, is at most so far below it: the
/// kernel's own gap (stack_guard_gap).
const GUARD: u64 = 1 << 20;
/// Most bytes of the stack of the thread that crashed, where that is one: the usual RLIMIT_STACK.
const MOST_FIRST: u64 = 8 << 20;
/// A larger mapping is not one stack.
const LARGEST: u64 = 64 << 20;
/// Most bytes of another stack, and of all of them.
const MOST: u64 = 256 << 10;
const MOST_ALL: u64 = 64 << 20;
/// AT_EXECFN of the auxiliary vector: an address on the stack of the first thread.
const EXECFN: u64 = 31;
/// Longest goroutine's stack (runtime.maxstacksize).
const LONGEST_GO: u64 = 1 << 30;
/// Most stacks of one thread: its own, and those on which signal handlers interrupted it.
pub(super) const MOST_INTERRUPTED: usize = 4;

/// Where a thread was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ThreadPlace {
    /// The stack pointer.
    pub sp: u64,
    /// Addresses where Go may have the current goroutine.
    pub go: [u64; 2],
}

impl ThreadPlace {
    /// Where its registers say that it is.
    pub(super) fn of(image: &CoreImage<'_>, thread: &ThreadRegisters) -> Self {
        // Go has it in its thread-local storage too: at the end of that, below the pointer.
        let slot = thread.tls.checked_sub(8).and_then(|at| image.memory.word(at));
        ThreadPlace { sp: thread.sp, go: [thread.go, slot.unwrap_or(0)] }
    }
}

/// Most bytes of each stack but the first, of so many threads.
pub(super) fn share(threads: usize) -> u64 {
    (MOST_ALL / threads.max(1) as u64).min(MOST)
}

/// The dumped segment that an address is in.
pub(super) fn dumped(segments: &[Segment], address: u64) -> Option<&Segment> {
    let after = segments.partition_point(|s| s.start() <= address);
    let segment = segments[..after].last()?;
    (address - segment.start() < segment.dumped.size).then_some(segment)
}

/// The used part of the stack that `sp` points to, without what its memory says. `is_first`: the
/// thread that crashed.
pub(super) fn used(
    image: &CoreImage<'_>,
    sp: u64,
    is_first: bool,
    share: u64,
) -> Option<(u64, u64)> {
    let segments = &image.segments;
    let segment = dumped(segments, sp).or_else(|| {
        let after = segments.partition_point(|s| s.start() <= sp);
        let above = segments[after..].iter().find(|s| s.dumped.size > 0)?;
        (above.start() - sp <= GUARD && above.is_writable()).then_some(above)
    })?;
    let end = segment.start().saturating_add(segment.dumped.size);
    let holds = |at: &u64| (segment.start()..end).contains(at);
    let is_main = image.notes.auxv.get(&EXECFN).is_some_and(holds);
    let most = match is_first && (is_main || segment.dumped.size <= LARGEST) {
        true => MOST_FIRST,
        false => share,
    };
    let start = sp.saturating_sub(RED_ZONE).max(segment.start()) & !15;
    Some((start, end.min(start.saturating_add(most))))
}

/// The same, cut at the end of the goroutine's stack where it is one.
pub(super) fn of(
    image: &CoreImage<'_>,
    place: ThreadPlace,
    is_first: bool,
    share: u64,
) -> Option<(u64, u64)> {
    if let Some(end) = place.go.iter().find_map(|g| goroutine(image, *g, place.sp)) {
        let start = place.sp.saturating_sub(RED_ZONE) & !15;
        return Some((start, end.min(start.saturating_add(MOST_FIRST))));
    }
    used(image, place.sp, is_first, share)
}

/// The end of the goroutine's stack, if `g` is one whose stack `sp` points to: `struct g` of Go's
/// runtime begins with the bounds of its stack.
fn goroutine(image: &CoreImage<'_>, g: u64, sp: u64) -> Option<u64> {
    if g == 0 || !g.is_multiple_of(8) {
        return None;
    }
    let (low, high) = (image.memory.word(g)?, image.memory.word(g.checked_add(8)?)?);
    let is_one = low <= sp && sp < high && high - low <= LONGEST_GO && low > 0;
    (is_one && dumped(&image.segments, sp).is_some()).then_some(high)
}

/// Where a signal handler on this stack interrupted the thread, the innermost first: the registers
/// that the kernel has saved (`struct sigcontext`), by words in them that it always writes.
pub(super) fn interrupted(image: &CoreImage<'_>, span: (u64, u64)) -> Vec<ThreadPlace> {
    // Distances in words from the word that is recognised back to sp and Go's register.
    let (is_mark, sp, go): (fn(u64) -> bool, usize, usize) = match image.machine {
        // cs, gs, fs and ss of a 64-bit program; before them flags, rip, rsp; r14 is the seventh.
        Machine::X86_64 => (|w| w == 0x002b_0000_0000_0033, 3, 12),
        // The head of struct fpsimd_context; before it padding, pstate, pc, sp; x28.
        Machine::Aarch64 => (|w| w == 0x0210_4650_8001, 4, 7),
    };
    let mut found = Vec::new();
    let mut before = [0; 16];
    let mut number = 0usize;
    words(image, span, &mut |_, word| {
        if is_mark(word) && number >= before.len() {
            let back = |n: usize| before[(number - n) % before.len()];
            found.push(ThreadPlace { sp: back(sp), go: [back(go), 0] });
        }
        before[number % before.len()] = word;
        number += 1;
        found.len() < MOST_INTERRUPTED
    });
    found
}

/// Calls `each` with the words of some memory and their addresses until it returns `false`, or up
/// to the first gap.
pub(super) fn words(
    image: &CoreImage<'_>,
    (start, end): (u64, u64),
    each: &mut dyn FnMut(u64, u64) -> bool,
) {
    const STEP: u64 = 32 << 10;
    let mut at = start.next_multiple_of(8);
    while at < end {
        let bytes = image.memory.up_to(at, STEP.min(end - at) as usize);
        for i in (0..bytes.len()).step_by(8) {
            let Some(word) = u64_at(&bytes, i) else { return };
            if !each(at + i as u64, word) {
                return;
            }
        }
        if bytes.len() < 8 {
            return;
        }
        at += bytes.len() as u64;
    }
}
