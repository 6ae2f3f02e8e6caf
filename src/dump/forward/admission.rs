//! Whether the crash of a process that is in no container may be handed to the earlier handler: how
//! many crashes it may have at a time.
//!
//! This process becomes the earlier handler by exec(2), which closes our descriptors, so that a
//! lock cannot show how long it runs: process ID and start time are noted, and count as long as
//! that process lives.

use crate::dump::crash::arguments::Crash;
use crate::dump::crash::facts::Facts;
use crate::dump::policy::quota::{self, contained_part};
use crate::limits::{Free, Limits};
use crate::registry::Registry;
use crate::sys::file::JsonFile;
use crate::sys::proc::{self, Proc};
use crate::sys::{OwnedFd, file, kernel, ns};
use anyhow::Result;
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
    /// It was in a mount namespace of its own: a container's, most likely, which can take on any
    /// ID.
    #[serde(default)]
    is_contained: bool,
    /// The process that crashed.
    #[serde(default)]
    crashed: Option<Crashed>,
}

/// A process that crashed, which it does once: its ID and start time, in clock ticks since the
/// boot.
pub(super) type Crashed = (i32, u64);

/// Whether a crash may be handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may, and is noted.
    Granted,
    /// There is no room for it.
    Full,
    /// It was handed on before: the earlier handler has handed it back to us.
    Again,
}

/// Whose crash it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CrashOwner {
    /// The user on the host; for one in a user namespace, who made that.
    pub uid: u32,
    /// It was in another mount namespace than the host's.
    pub is_contained: bool,
}

impl CrashOwner {
    /// The owner of a crash of which /proc says so much.
    pub(crate) fn of(crash: &Crash, facts: &Facts) -> Self {
        let maker = facts.user_ns.as_ref().and_then(ns::owner).filter(|uid| *uid != 0);
        let is_contained = ns::own("mnt").is_ok_and(|own| own != facts.mount_ns);
        CrashOwner { uid: maker.unwrap_or(crash.said.uid), is_contained }
    }

    /// Whose slots it takes. Root in a container is another account than root on the host. One
    /// account stands for several user IDs, since a container can have all of them.
    pub(super) fn account(self) -> String {
        let kind = if self.is_contained { "in" } else { "uid" };
        format!(".{kind}-{}", self.uid % QUEUES)
    }
}

/// How many there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Of all users; 0 is no limit.
    pub all: u64,
    /// Of one user; 0 is no limit.
    pub each: u64,
    /// Of all that is not the host's own: the rest stays for that. 0 is no limit.
    pub contained: u64,
    /// How long a further one waits.
    pub wait: Duration,
    /// What of the host's memory must be available for one to wait.
    pub min_memory: Option<Free>,
}

impl Places {
    /// What the kernel would have kept to: `core_pipe_limit` as it was before us. Where that was 0
    /// it knows no limit: then `limits.host_concurrent` and `limits.concurrent` hold, and a further
    /// crash waits as long as one of a container would.
    pub(super) fn of(pipe_limit: u32, limits: &Limits) -> Self {
        match pipe_limit {
            0 => Places {
                all: limits.host_concurrent.unwrap_or(0),
                each: limits.concurrent.unwrap_or(0),
                contained: contained_part(limits.host_concurrent.unwrap_or(0)),
                wait: Duration::from_secs(limits.wait.unwrap_or(0)),
                min_memory: limits.min_memory,
            },
            n => Places { all: n.into(), ..Places::default() },
        }
    }

    fn has_room(self, busy: &[Busy], owner: CrashOwner) -> bool {
        let count =
            |is: fn(&Busy, CrashOwner) -> bool| busy.iter().filter(|b| is(b, owner)).count() as u64;
        let has = |most: u64, count: u64| most == 0 || count < most;
        has(self.all, busy.len() as u64)
            && has(
                self.each,
                count(|b, owner| (b.uid, b.is_contained) == (owner.uid, owner.is_contained)),
            )
            && (!owner.is_contained || has(self.contained, count(|b, _| b.is_contained)))
    }
}

/// The list of the crashes that are being handled.
const FILE: JsonFile = JsonFile("busy", 1 << 20);

/// How long the list may be another process's.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the crash that looks for room looks again.
const AGAIN: Duration = Duration::from_millis(50);

/// How often the crashes behind it check that their process is still there.
const STILL: Duration = Duration::from_secs(1);

/// Of the crashes of a user that wait, only one at a time looks for room: a thousand would do
/// little else. Users are spread over this many locks, since one may have many IDs: a container
/// without a user namespace has all of them.
const QUEUES: u32 = 256;

/// Entries from which on the dead ones are looked for, where there is room all the same.
const MANY: usize = 1024;

/// Notes that this process handles a crash of `owner`, where there is room for it; waits for that
/// as long as `most` says and `is_still` there.
///
/// # Errors
/// The run directory cannot be used.
pub(super) fn admit(
    registry: &Registry,
    most: Places,
    owner: CrashOwner,
    crashed: Option<Crashed>,
    is_still: impl Fn() -> bool,
) -> Result<Admission> {
    let until = Instant::now() + most.wait;
    let left = || until.saturating_duration_since(Instant::now());
    let dir = registry.forwarded_dir()?;
    match attempt(&dir, most, owner, crashed)? {
        Admission::Full => {}
        known => return Ok(known),
    }
    if most.wait.is_zero() || quota::room_to_wait(most.min_memory, kernel::memory().ok()).is_err() {
        return Ok(Admission::Full);
    }
    let queue = file::open_lock(&dir, format!("queue{}", owner.account()).as_ref())?;
    while !file::lock_within(&queue, left().min(STILL))? {
        if left().is_zero() || !is_still() {
            return Ok(Admission::Full);
        }
    }
    loop {
        match attempt(&dir, most, owner, crashed)? {
            Admission::Full => {}
            known => return Ok(known),
        }
        if left().is_zero() || !is_still() {
            return Ok(Admission::Full);
        }
        std::thread::sleep(AGAIN);
    }
}

fn attempt(
    dir: &OwnedFd,
    most: Places,
    owner: CrashOwner,
    crashed: Option<Crashed>,
) -> Result<Admission> {
    let lock = file::reopen_dir(dir)?;
    // In a storm the list's lock cannot be had in time: that counts as full.
    if !file::lock_within(&lock, PATIENCE)? {
        return Ok(Admission::Full);
    }
    let mut busy: Vec<Busy> = FILE.read(dir);
    // The process that forwarded it may have ended: an earlier handler may fork and go on.
    if crashed.is_some() && busy.iter().any(|b| b.crashed == crashed) {
        return Ok(Admission::Again);
    }
    if !most.has_room(&busy, owner) || busy.len() >= MANY {
        busy.retain(lives);
    }
    if !most.has_room(&busy, owner) {
        return Ok(Admission::Full);
    }
    let pid = std::process::id() as i32;
    let CrashOwner { uid, is_contained } = owner;
    let start_time = Proc::open(pid)?.start_time()?;
    busy.push(Busy { pid, start_time, uid, is_contained, crashed });
    FILE.replace(dir, &busy)?;
    Ok(Admission::Granted)
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
        let busy = |uids: &[u32], is_contained: bool| -> Vec<Busy> {
            let of =
                |uid: &u32| Busy { pid: 1, start_time: 1, uid: *uid, is_contained, crashed: None };
            uids.iter().map(of).collect()
        };
        let of = |uid| CrashOwner { uid, is_contained: false };
        // A container's root is not the host's.
        assert_ne!(of(0).account(), CrashOwner { uid: 0, is_contained: true }.account());
        assert_eq!(of(7).account(), of(7 + QUEUES).account());
        let kernel = Places::of(2, &limits);
        assert_eq!(kernel, Places { all: 2, ..Places::default() });
        assert!(kernel.has_room(&busy(&[7], false), of(7)));
        assert!(!kernel.has_room(&busy(&[7, 8], false), of(9)));
        let ours = Places::of(0, &limits);
        assert_eq!((ours.all, ours.each, ours.contained), (256, 64, 192));
        assert_eq!(ours.min_memory, limits.min_memory);
        assert!(!ours.has_room(&busy(&[7; 64], false), of(7)));
        assert!(ours.has_room(&busy(&[7; 64], false), of(8)));
        assert!(ours.has_room(&busy(&[0; 64], true), of(0)), "root in a container is another one");
        assert!(!ours.has_room(&busy(&[7; 256], false), of(8)));
        // A container with any number of user IDs leaves places for the host's own.
        let ids: Vec<u32> = (0..192).collect();
        let contained = CrashOwner { uid: 500, is_contained: true };
        assert!(!ours.has_room(&busy(&ids, true), contained));
        assert!(ours.has_room(&busy(&ids, true), of(0)));
        let none = Places::default();
        assert!(none.has_room(&busy(&[7; 999], true), contained));
    }
}
