//! A container's turn: one of the few dumps that it may have at a time, and what is remembered of it between its crashes.
//!
//! ```text
//! /run/oci-coredump/limits/<id>/    locked by whoever reads or changes `memory`; gone with the container
//!   slot-<n>                        locked by the writer whose turn it is, and by nobody else: a writer that hangs keeps its turn
//!   memory                          tokens, cores, dumps on their way
//! ```

use super::quota::{self, Kept, MOST, Memory, Refusal, Running};
use crate::limits::{Limits, Size};
use crate::registry::Registry;
use crate::sys::file::Identity;
use crate::sys::{AsFd, BorrowedFd, OwnedFd, file, kernel};
use anyhow::{Context, Result};
use std::time::Duration;

/// Largest memory that is read, in bytes: `MOST` cores with long paths.
const MAX: usize = 8 << 20;

/// Turns where no number is set but the dumps on their way must be known.
const MANY: u64 = 1024;

/// A turn. It ends with the processes that have its descriptor.
#[derive(Debug)]
pub struct Turn {
    dir: OwnedFd,
    slot: u64,
    lock: OwnedFd,
    limits: Limits,
    /// Taken from the memory when the turn began: the cores that are there, and the other dumps.
    cores: Vec<Kept>,
    others: Vec<Running>,
    expected: u64,
}

/// What came of asking for a turn.
pub enum Asked {
    /// No limit needs one.
    Free,
    /// It is the container's turn.
    Turn(Box<Turn>),
    /// A limit acted.
    Refused(Refusal),
}

/// Asks for a turn for a dump of the container `id`, and waits for it as long as `limits.wait` says. `first`: where to look first, so that the crashes of a
/// storm do not all look at the same place. `expected` bytes are to be written.
///
/// # Errors
/// The run directory cannot be used.
pub fn ask(registry: &Registry, id: &str, limits: &Limits, first: u64, expected: impl FnOnce() -> u64) -> Result<Asked> {
    let remembers = quota::has_memory(limits);
    let Some(turns) = quota::turns(limits).or(remembers.then_some(MANY)) else { return Ok(Asked::Free) };
    let dir = registry.limits_dir(id)?;
    let Some((slot, lock)) = slot(&dir, turns, first, limits)? else {
        let (key, waited) = (if Some(turns) == limits.cores { "cores" } else { "concurrent" }, limits.wait.unwrap_or(0));
        return Ok(Asked::Refused(Refusal::new(key, turns, format_args!("so many are being written, and none was done in {waited} seconds"))));
    };
    let mut turn = Turn { dir, slot, lock, limits: limits.clone(), cores: Vec::new(), others: Vec::new(), expected: 0 };
    if remembers {
        turn.expected = expected();
        if let Err(refusal) = turn.begin()? {
            return Ok(Asked::Refused(refusal));
        }
    }
    Ok(Asked::Turn(Box::new(turn)))
}

/// One of the slots, locked. Where all are taken: waits for one of them, and does not look around any more, or a thousand who wait would do nothing else.
fn slot(dir: &OwnedFd, turns: u64, first: u64, limits: &Limits) -> Result<Option<(u64, OwnedFd)>> {
    let open = |n: u64| file::open_lock(dir, format!("slot-{n}").as_ref());
    for n in (0..turns).map(|i| (first + i) % turns) {
        let lock = open(n)?;
        if file::try_lock(&lock)? {
            return Ok(Some((n, lock)));
        }
    }
    let n = first % turns;
    let lock = open(n)?;
    let wait = Duration::from_secs(limits.wait.unwrap_or(0));
    Ok(file::lock_within(&lock, wait)?.then_some((n, lock)))
}

impl Turn {
    /// What the writer keeps open, so that a turn lasts as long as its writer.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// What makes room for this core, if the cores `there` are those that are left of [`Turn::cores`].
    pub fn room(&self, there: &[Kept]) -> Result<quota::Room, Refusal> {
        quota::room(&self.limits, there, &self.others, self.expected)
    }

    /// Whether the core is to be remembered.
    pub fn remembers(&self) -> bool {
        quota::has_memory(&self.limits)
    }

    /// `limits.bytes`.
    pub fn bytes(&self) -> Option<Size> {
        self.limits.bytes
    }

    /// The cores that were written, the oldest first.
    pub fn cores(&self) -> &[Kept] {
        &self.cores
    }

    /// Takes a token, and says that a dump is on its way.
    fn begin(&mut self) -> Result<Result<(), Refusal>> {
        let _locked = self.locked()?;
        let mut memory = self.read();
        if let Some(rate) = self.limits.rate {
            match quota::take(memory.bucket, rate, self.limits.burst, kernel::since_boot().as_millis() as u64) {
                Ok(bucket) => memory.bucket = Some(bucket),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        // Whose slot is free, or ours now, has ended without a word.
        memory.running.retain(|r| r.slot != self.slot && self.is_taken(r.slot));
        self.others.clone_from(&memory.running);
        self.cores.clone_from(&memory.cores);
        memory.running.push(Running { slot: self.slot, bytes: self.expected });
        self.write(&memory)?;
        Ok(Ok(()))
    }

    /// Remembers what came of it. `gone`: cores that are not there any more. `ended`: the writer has.
    ///
    /// # Errors
    /// The memory could not be written.
    pub fn end(&self, core: Option<Kept>, gone: &[Identity], ended: bool) -> Result<()> {
        if !self.remembers() {
            return Ok(());
        }
        let _locked = self.locked()?;
        let mut memory = self.read();
        if ended {
            memory.running.retain(|r| r.slot != self.slot);
        }
        // The file system may have given the number of one that has gone to the new one.
        memory.cores.retain(|k| !gone.contains(&k.identity) && core.as_ref().is_none_or(|c| c.identity.id != k.identity.id));
        memory.cores.extend(core);
        let surplus = memory.cores.len().saturating_sub(MOST);
        memory.cores.drain(..surplus);
        self.write(&memory)
    }

    fn locked(&self) -> Result<OwnedFd> {
        let again = file::reopen_dir(&self.dir)?;
        file::lock(&again)?;
        Ok(again)
    }

    fn is_taken(&self, slot: u64) -> bool {
        file::open_lock(&self.dir, format!("slot-{slot}").as_ref()).and_then(|f| file::try_lock(&f)).is_ok_and(|free| !free)
    }

    /// A memory that is damaged is none.
    fn read(&self) -> Memory {
        let text = file::open_read(&self.dir, "memory".as_ref()).ok().and_then(|f| file::read_bounded(f, MAX, "memory").ok());
        text.and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default()
    }

    fn write(&self, memory: &Memory) -> Result<()> {
        file::replace(&self.dir, "memory".as_ref(), &serde_json::to_vec(memory).context("memory to JSON")?, 0o600)
    }
}
