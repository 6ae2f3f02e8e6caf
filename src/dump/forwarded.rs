//! How many crashes of everybody else are in the hands of the earlier handler.
//!
//! A pipe program takes the place of this process, with nothing of ours open, so no lock can tell how
//! long it runs: its process ID and start time are noted, and count for as long as that process lives.

use crate::limits::Limits;
use crate::registry::Registry;
use crate::sys::proc::{self, Proc};
use crate::sys::{OwnedFd, file, kernel};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A crash that is being handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Busy {
    pid: i32,
    /// Clock ticks since the boot.
    start_time: u64,
    /// Whose process crashed, on the host.
    uid: u32,
}

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Of all users; 0 is no limit.
    pub all: u64,
    /// Of one user; 0 is no limit.
    pub each: u64,
    /// How long a further one waits.
    pub wait: Duration,
}

impl Most {
    /// What the kernel would have kept to: `core_pipe_limit` as it was before us. Where that was 0 it
    /// knows no limit: then `limits.host_concurrent` and `limits.concurrent` hold, and a further crash
    /// waits as long as one of a container would.
    pub fn of(pipe_limit: u32, limits: &Limits) -> Self {
        match pipe_limit {
            0 => Most {
                all: limits.host_concurrent.unwrap_or(0),
                each: limits.concurrent.unwrap_or(0),
                wait: Duration::from_secs(limits.wait.unwrap_or(0)),
            },
            n => Most { all: n.into(), each: 0, wait: Duration::ZERO },
        }
    }

    fn has_room(self, busy: &[Busy], uid: u32) -> bool {
        let of_user = busy.iter().filter(|b| b.uid == uid).count() as u64;
        (self.all == 0 || (busy.len() as u64) < self.all) && (self.each == 0 || of_user < self.each)
    }
}

const FILE: &str = "busy";

/// Largest list that is read, in bytes.
const MAX: usize = 1 << 20;

/// How long the list may be another process's.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the crash that is at the door looks again, ...
const AGAIN: Duration = Duration::from_millis(50);

/// ... and how often those behind it see whether their process is still there.
const STILL: Duration = Duration::from_secs(1);

/// Of the crashes of a user that wait, one looks for room: a thousand of them would do little else. The
/// doors have numbers, since a user may have many IDs.
const DOORS: u32 = 256;

/// Entries from which on the dead ones are looked for, where there is room all the same.
const MANY: usize = 1024;

/// Notes that this process handles a crash of `uid`, where there is room for it; waits for that as long
/// as `most` says and `is_still` there. Returns whether there is.
///
/// # Errors
/// The run directory cannot be used.
pub fn enter(
    registry: &Registry,
    most: Most,
    uid: u32,
    is_still: impl Fn() -> bool,
) -> Result<bool> {
    let until = Instant::now() + most.wait;
    let left = || until.saturating_duration_since(Instant::now());
    let dir = registry.forwarded_dir()?;
    if attempt(&dir, most, uid)? {
        return Ok(true);
    }
    if most.wait.is_zero() || no_memory() {
        return Ok(false);
    }
    let door = file::open_lock(&dir, format!("door-{}", uid % DOORS).as_ref())?;
    while !file::lock_within(&door, left().min(STILL))? {
        if left().is_zero() || !is_still() {
            return Ok(false);
        }
    }
    loop {
        if attempt(&dir, most, uid)? {
            return Ok(true);
        }
        if left().is_zero() || !is_still() {
            return Ok(false);
        }
        std::thread::sleep(AGAIN);
    }
}

/// Whoever waits has a process of its own for as long.
fn no_memory() -> bool {
    kernel::memory().is_ok_and(|(total, available)| available < total / 20)
}

fn attempt(dir: &OwnedFd, most: Most, uid: u32) -> Result<bool> {
    let lock = file::reopen_dir(dir)?;
    // Where so many come at once that the list is not to be had, there is no room for one more.
    if !file::lock_within(&lock, PATIENCE)? {
        return Ok(false);
    }
    let text = file::open_read(dir, FILE.as_ref()).ok();
    let text = text.and_then(|f| file::read_bounded(f, MAX, FILE).ok()).unwrap_or_default();
    // A damaged list is an empty one.
    let mut busy: Vec<Busy> = serde_json::from_slice(&text).unwrap_or_default();
    if !most.has_room(&busy, uid) || busy.len() >= MANY {
        busy.retain(lives);
    }
    if !most.has_room(&busy, uid) {
        return Ok(false);
    }
    let pid = std::process::id() as i32;
    busy.push(Busy { pid, start_time: Proc::open(pid)?.start_time()?, uid });
    let text = serde_json::to_vec(&busy).context("list to JSON")?;
    file::replace(dir, FILE.as_ref(), &text, 0o600)?;
    Ok(true)
}

fn lives(busy: &Busy) -> bool {
    let Ok(stat) = Proc::open(busy.pid).and_then(|process| process.read("stat")) else {
        return false;
    };
    proc::start_time(&stat) == Some(busy.start_time) && proc::is_zombie(&stat) == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kernel_would_or_by_our_own_limits() {
        let limits = Limits::defaults();
        let busy = |uids: &[u32]| -> Vec<Busy> {
            uids.iter().map(|uid| Busy { pid: 1, start_time: 1, uid: *uid }).collect()
        };
        let kernel = Most::of(2, &limits);
        assert_eq!(kernel, Most { all: 2, each: 0, wait: Duration::ZERO });
        assert!(kernel.has_room(&busy(&[7]), 7) && !kernel.has_room(&busy(&[7, 8]), 9));
        let ours = Most::of(0, &limits);
        assert_eq!((ours.all, ours.each), (256, 64));
        assert!(!ours.has_room(&busy(&[7; 64]), 7) && ours.has_room(&busy(&[7; 64]), 8));
        assert!(!ours.has_room(&busy(&[7; 256]), 8));
        assert!(Most { all: 0, each: 0, wait: Duration::ZERO }.has_room(&busy(&[7; 999]), 7));
    }
}
