//! Early release: the crashed process is let go while its memory is held, and its core is completed
//! behind it.
//!
//! What others can still change is copied before: mapped files and memory that is shared, which the
//! list of mapped files names too. And what the dying threads themselves change: the kernel clears
//! the word that `set_tid_address` named and marks the robust futexes that they hold. The former
//! lies in the threads' own blocks or in small areas of data, the latter are followed from the
//! heads of their lists.

use crate::dump::copy::head::{Head, Load};
use crate::dump::copy::lanes::Stop;
use crate::dump::copy::output::Target;
use crate::dump::copy::parallel::{self, Failed, Source};
use crate::dump::policy::plan::PAGE;
use crate::sys::Errno;
use crate::sys::hold::{Held, Hold};
use crate::sys::memory::Span;
use std::sync::Arc;

/// Areas up to this size are copied before the release, ...
const SMALL: u64 = 256 << 10;

/// ... as long as there are no more than this many bytes of them.
const MOST: u64 = 4 << 20;

/// Where a thread keeps what the kernel writes when it ends: pages around its thread pointer, where
/// C libraries keep the thread's block.
const AROUND: u64 = 2 * PAGE;

/// The kernel follows a list of robust futexes no further than this: `ROBUST_LIST_LIMIT`.
const LONGEST: usize = 2048;

/// What is copied already: sorted starts and ends of addresses that the rest of the copy leaves
/// alone.
pub type Done = Vec<(u64, u64)>;

/// Holds the memory, and copies what others or the end of the process would change. `files`: the
/// starts of the mapped files; `threads`: the thread pointers, from the notes. `None` if the memory
/// cannot be held: then nothing was written.
///
/// # Errors
/// What is to be copied cannot be read.
pub fn prepare(
    hold: Hold,
    source: &'static Source,
    head: &Head,
    files: &[u64],
    threads: &[u64],
    target: &Arc<Target>,
) -> Result<Option<(Held, Done)>, Failed> {
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
    match parallel::copy(source, loads, all, target, None) {
        Ok(()) => Ok(Some((held, done))),
        // Between the areas nothing is copied yet.
        Err(Failed::Ended(_)) => Err(Failed::Ended(0)),
        Err(failed @ Failed::Stream(..)) => Err(failed),
    }
}

/// Mapped files, threads' blocks and small areas.
fn areas(head: &Head, files: &[u64], threads: &[u64]) -> Done {
    let mut files = files.to_vec();
    files.sort_unstable();
    let mut room = MOST;
    let mut small = |load: &Load| {
        load.size <= SMALL && room.checked_sub(load.size).map(|left| room = left).is_some()
    };
    let loads =
        head.loads.iter().filter(|load| files.binary_search(&load.address).is_ok() || small(load));
    let mut spans: Done = loads.map(|load| (load.address, load.address + load.size)).collect();
    for pointer in threads {
        let start = (pointer & !(PAGE - 1)).saturating_sub(AROUND - PAGE);
        spans.push((start, start.saturating_add(2 * AROUND)));
    }
    spans
}

/// The pages with the robust futexes of all threads.
///
/// # References
/// get_robust_list(2); Documentation/locking/robust-futex-ABI.rst.
fn robust(source: &Source) -> Done {
    let word = |address: u64| {
        let mut bytes = [0; 8];
        // What cannot be read is zero here, and the end of the list for the kernel.
        source
            .memory
            .read(&[Span { address, size: bytes.len() }], &mut bytes)
            .map_or(0, |()| u64::from_ne_bytes(bytes))
    };
    let mut pages = Done::new();
    for head in &source.robust {
        let offset = word(head + 8);
        // The lowest bit of an entry tells something else.
        let mut mark = |entry: u64| {
            let page = (entry & !1).wrapping_add(offset) & !(PAGE - 1);
            pages.push((page, page.saturating_add(PAGE)));
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

/// Sorts, and joins what touches.
fn merge(mut spans: Done) -> Done {
    spans.sort_unstable();
    let mut out: Done = Vec::new();
    for (start, end) in spans {
        match out.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}

/// The part of a run of addresses from `at` on that is not done yet, if there is any.
pub fn next_open(done: &Done, at: u64, end: u64) -> Option<(u64, u64)> {
    let mut at = at;
    let mut stop = end;
    for (start, after) in &done[done.partition_point(|d| d.1 <= at)..] {
        if at < *start {
            stop = end.min(*start);
            break;
        }
        at = *after;
    }
    (at < stop).then_some((at, stop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open() {
        let done = merge(vec![(30, 40), (10, 20), (15, 25)]);
        assert_eq!(done, [(10, 25), (30, 40)]);
        let all = |mut at, end| {
            let mut out = vec![];
            while let Some((a, b)) = next_open(&done, at, end) {
                out.push((a, b));
                at = b;
            }
            out
        };
        assert_eq!(all(0, 50), [(0, 10), (25, 30), (40, 50)]);
        assert_eq!(all(12, 20), []);
        assert_eq!(all(12, 28), [(25, 28)]);
        assert_eq!(all(40, 41), [(40, 41)]);
        assert_eq!(merge(vec![]), []);
        assert_eq!(next_open(&vec![], 1, 2), Some((1, 2)));
    }

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
