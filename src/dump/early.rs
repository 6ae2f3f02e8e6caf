//! Early release: the crashed process is let go while its memory is held, and its core is completed behind it.
//!
//! Dying threads still write to that memory: the kernel clears the word that `set_tid_address` named and marks the robust futexes that they hold. Both lie in
//! the threads' own blocks or in small areas of data, which are therefore copied before.

use super::head::Head;
use super::memory::Source;
use super::output::Target;
use super::plan::PAGE;
use crate::sys::hold::{Held, Hold};
use crate::sys::memory::Span;
use anyhow::{Context, Result, ensure};

/// Areas up to this size are copied before the release, ...
const SMALL: u64 = 256 << 10;

/// ... as long as there are no more than this many bytes of them.
const MOST: u64 = 4 << 20;

/// Where a thread keeps what the kernel writes when it ends: pages around its thread pointer, where C libraries keep the thread's block, robust list included.
const AROUND: u64 = 2 * PAGE;

/// What is copied already: sorted starts and ends of addresses that the rest of the copy leaves alone.
pub type Done = Vec<(u64, u64)>;

/// Copies what the end of the process would change, and holds the rest. `threads`: the thread pointers, from the notes.
///
/// # Errors
/// The memory cannot be held or read: then nothing is released.
pub fn prepare(hold: Hold, source: &Source, head: &Head, threads: &[u64], target: &Target) -> Result<(Held, Done)> {
    let readable = head.loads.first().context("a core without memory")?.address;
    let held = hold.hold(source.memory.mem().context("dup")?, readable)?;
    let mut spans: Done = Vec::new();
    let mut room = MOST;
    for load in head.loads.iter().filter(|l| l.size <= SMALL) {
        let Some(left) = room.checked_sub(load.size) else { break };
        room = left;
        spans.push((load.address, load.address + load.size));
    }
    for pointer in threads {
        let start = (pointer & !(PAGE - 1)).saturating_sub(AROUND - PAGE);
        spans.push((start, start.saturating_add(2 * AROUND)));
    }
    let done = merge(spans);
    let mut buffer = Vec::new();
    for (start, end) in &done {
        // Only what is in the core; a thread's block may end where nothing is mapped.
        for load in head.loads.iter().filter(|l| l.address < *end && *start < l.address + l.size) {
            let (from, to) = ((*start).max(load.address), (*end).min(load.address + load.size));
            buffer.resize((to - from) as usize, 0);
            source.memory.read(&[Span { address: from, size: buffer.len() }], &mut buffer).map_err(|e| anyhow::anyhow!("read of the process: {e}"))?;
            target.write_at(&buffer, load.offset + (from - load.address)).map_err(|e| anyhow::anyhow!("write: {e:?}"))?;
        }
    }
    ensure!(source.alive(), "the process has gone");
    Ok((held, done))
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
}
