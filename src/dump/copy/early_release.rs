//! Early release: the crashed process is let go while its memory is held, and its core is completed
//! after that.
//!
//! What can still change is copied before. Others can change mapped files and shared memory, both
//! of which the list of mapped files names. The dying threads change two things themselves: the
//! kernel clears the word that `set_tid_address` named, and marks the robust futexes that they
//! hold. The word lies in a thread's own block or in a small area of data; the futexes are found
//! from the heads of their lists.

use super::crashed_memory::{CrashedMemory, Failed};
use super::pages::page_size;
use super::parallel;
use super::stop::Stop;
use super::target::CopyTarget;
use crate::elf::spans::{Spans, merge};
use crate::elf::{Head, Load};
use crate::sys::Errno;
use crate::sys::memory::Span;
use crate::sys::pinned_memory::{HeldMemory, Hold};
use std::sync::Arc;

/// Areas up to this size, in bytes, are copied before the release.
const SMALL: u64 = 256 << 10;

/// Most bytes of those areas together.
const MOST: u64 = 4 << 20;

/// The kernel follows a list of robust futexes no further than this: `ROBUST_LIST_LIMIT`.
const LONGEST: usize = 2048;

/// How the process is let go early.
pub(crate) struct Release<'a> {
    /// What its memory is held with.
    pub hold: Hold,
    /// Lets it go.
    pub go: &'a mut dyn FnMut(),
}

impl Release<'_> {
    /// Lets the process go, if its memory can be held; else it waits as usual.
    ///
    /// # Errors
    /// What is to be copied before cannot be read.
    pub(crate) fn act(
        self,
        source: &'static CrashedMemory,
        head: &Head,
        files: &[u64],
        threads: &[u64],
        target: &Arc<CopyTarget>,
    ) -> Result<Option<Spans>, Failed> {
        // Of other architectures than x86-64 and AArch64 it is not known where the threads' blocks
        // are.
        if threads.is_empty() {
            return Ok(None);
        }
        let Some((held, done)) = prepare(self.hold, source, head, files, threads, target)? else {
            return Ok(None);
        };
        source.memory.detach();
        (self.go)();
        // For as long as this process lives.
        std::mem::forget(held);
        Ok(Some(done))
    }
}

/// Holds the memory, and copies what others or the end of the process would change. `files`: the
/// starts of the mapped files; `threads`: the thread pointers, from the notes. `None` if the memory
/// cannot be held: then nothing was written.
///
/// # Errors
/// What is to be copied cannot be read.
fn prepare(
    hold: Hold,
    source: &'static CrashedMemory,
    head: &Head,
    files: &[u64],
    threads: &[u64],
    target: &Arc<CopyTarget>,
) -> Result<Option<(HeldMemory, Spans)>, Failed> {
    let hold = |load: &Load| hold.hold(source.memory.mem().ok()?, load.address).ok();
    let Some(held) = head.loads.first().and_then(hold) else { return Ok(None) };
    let robust = parallel::within(|| robust(source))
        .ok_or(Failed::Stream(Stop::Memory(Errno::TIMEDOUT), 0))?;
    let done = merge([areas(head, files, threads), robust].concat());
    let loads: Vec<Load> = done
        .iter()
        .flat_map(|span| head.loads.iter().filter_map(|load| part(load, span)))
        .collect();
    // All of it is read, also what is not mapped yet.
    let all = loads.iter().map(|load| load.address).collect();
    match parallel::copy_memory(source, loads, all, target, None) {
        Ok(()) => Ok(Some((held, done))),
        // Between the areas nothing is copied yet.
        Err(Failed::Ended(_)) => Err(Failed::Ended(0)),
        Err(failed @ Failed::Stream(..)) => Err(failed),
    }
}

/// Mapped files, threads' blocks and small areas.
fn areas(head: &Head, files: &[u64], threads: &[u64]) -> Spans {
    let mut files = files.to_vec();
    files.sort_unstable();
    let mut room = MOST;
    let mut small = |load: &Load| {
        load.size <= SMALL && room.checked_sub(load.size).map(|left| room = left).is_some()
    };
    let loads =
        head.loads.iter().filter(|load| files.binary_search(&load.address).is_ok() || small(load));
    let mut spans: Spans = loads.map(|load| (load.address, load.address + load.size)).collect();
    // Where a thread keeps what the kernel writes when it ends: C libraries have the thread's block
    // behind the thread pointer, or, on AArch64, before it.
    let page = page_size();
    for pointer in threads {
        let start = (pointer & !(page - 1)).saturating_sub(page);
        spans.push((start, start.saturating_add(4 * page)));
    }
    spans
}

/// The pages with the robust futexes of all threads.
///
/// # References
/// get_robust_list(2); Documentation/locking/robust-futex-ABI.rst.
fn robust(source: &CrashedMemory) -> Spans {
    let word = |address: u64| {
        let mut bytes = [0; 8];
        // What cannot be read is zero here, and the end of the list for the kernel.
        source
            .memory
            .read(&[Span { address, size: bytes.len() }], &mut bytes)
            .map_or(0, |()| u64::from_ne_bytes(bytes))
    };
    let mut pages = Spans::new();
    let size = page_size();
    for head in &source.robust {
        let offset = word(head + 8);
        // The lowest bit of an entry tells something else.
        let mut mark = |entry: u64| {
            let page = (entry & !1).wrapping_add(offset) & !(size - 1);
            pages.push((page, page.saturating_add(size)));
        };
        let pending = word(head + 16);
        if pending != 0 {
            mark(pending);
        }
        let mut entry = word(*head);
        for _ in 0..LONGEST {
            if entry == 0 || entry & !1 == *head {
                break;
            }
            mark(entry);
            entry = word(entry & !1);
        }
    }
    merge(pages)
}

/// What of a load lies within a span.
fn part(load: &Load, span: &(u64, u64)) -> Option<Load> {
    let (start, end) = (span.0.max(load.address), span.1.min(load.address + load.size));
    (start < end).then(|| Load {
        offset: load.offset + (start - load.address),
        address: start,
        size: end - start,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_loads() {
        let load = Load { offset: 0x100, address: 0x1000, size: 0x2000 };
        let of = |span| part(&load, &span).map(|l| (l.offset, l.address, l.size));
        assert_eq!(of((0, 0x1000)), None);
        assert_eq!(of((0, 0x1001)), Some((0x100, 0x1000, 1)));
        assert_eq!(of((0x2000, 0x9000)), Some((0x1100, 0x2000, 0x1000)));
        assert_eq!(of((0x3000, 0x9000)), None);
    }
}
