//! A slot that was taken, and what is remembered of its account between crashes: tokens, cores, and
//! the dumps on their way.

use crate::bytes::Bytes;
use crate::cause::Cause;
use crate::dump::policy::quota::{self, AccountState, KeptCore, MOST, Running};
use crate::limits::{Keep, Limits};
use crate::sys::file::{self, FileIdentity, JsonFile};
use crate::sys::{AsFd, BorrowedFd, OwnedFd, kernel};
use anyhow::Result;

/// The memory: at most `MOST` cores with paths of 4 KiB, of which each byte is escaped.
const STATE: JsonFile = JsonFile("memory", 32 << 20);

/// A slot that was taken. It is free again when the last process with its descriptors has ended.
#[derive(Debug)]
pub(crate) struct Slot {
    dir: OwnedFd,
    number: u64,
    lock: OwnedFd,
    /// The slot of the host's that was taken with it, beyond the container's own.
    host: Option<OwnedFd>,
    limits: Limits,
    /// Taken from the memory when the slot began: the cores that are there, and the other dumps.
    cores: Vec<KeptCore>,
    others: Vec<Running>,
    expected: u64,
}

/// Opens the file of a slot, whose lock is the slot.
pub(super) fn open(dir: &OwnedFd, number: u64) -> Result<OwnedFd> {
    file::open_lock(dir, format!("slot-{number}").as_ref())
}

impl Slot {
    /// The slot `number` of the account with this directory, whose file is locked.
    pub(super) fn taken(
        dir: OwnedFd,
        number: u64,
        lock: OwnedFd,
        host: Option<OwnedFd>,
        limits: Limits,
    ) -> Self {
        Slot { dir, number, lock, host, limits, cores: Vec::new(), others: Vec::new(), expected: 0 }
    }

    /// What the writer keeps open, so that a slot lasts as long as its writer.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(&self.lock).chain(&self.host).map(|lock| lock.as_fd())
    }

    /// What makes room for this core, if the cores `there` are those that are left of
    /// [`Slot::cores`].
    pub(crate) fn room(&self, there: &[KeptCore]) -> Result<quota::Room, Cause> {
        quota::room(&self.limits, there, &self.others, self.expected)
    }

    /// Whether the core is to be remembered.
    pub(crate) fn remembers(&self) -> bool {
        quota::keeps_state(&self.limits)
    }

    /// `limits.keep`.
    pub(crate) fn keep(&self) -> Keep {
        self.limits.keep.unwrap_or_default()
    }

    /// `limits.bytes`.
    pub(crate) fn bytes(&self) -> Option<Bytes> {
        self.limits.most_bytes().map(Bytes)
    }

    /// The cores that were written, the oldest first.
    pub(crate) fn cores(&self) -> &[KeptCore] {
        &self.cores
    }

    /// Forgets cores that are not there any more.
    pub(crate) fn without(&mut self, gone: &[FileIdentity]) {
        self.cores.retain(|core| !gone.contains(&core.identity));
    }

    /// Takes a token, and says that a dump of about `expected` bytes is on its way.
    pub(super) fn begin(&mut self, expected: u64) -> Result<Result<(), Cause>> {
        self.expected = expected;
        let _locked = self.locked()?;
        let mut state: AccountState = STATE.read(&self.dir);
        if let Some(rate) = self.limits.rate {
            match quota::take(
                state.bucket,
                rate,
                self.limits.burst,
                kernel::since_boot().as_millis() as u64,
            ) {
                Ok(bucket) => state.bucket = Some(bucket),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        // A dump whose slot is free, or ours now, has ended without saying so.
        state.running.retain(|r| r.slot != self.number && self.is_taken(r.slot));
        self.others.clone_from(&state.running);
        self.cores.clone_from(&state.cores);
        state.running.push(Running { slot: self.number, bytes: self.expected });
        STATE.replace(&self.dir, &state)?;
        Ok(Ok(()))
    }

    /// Remembers what came of it. `gone`: cores that are not there any more. `ended`: the writer
    /// has.
    ///
    /// # Errors
    /// The memory could not be written.
    pub(crate) fn end(
        &self,
        core: Option<KeptCore>,
        gone: &[FileIdentity],
        ended: bool,
    ) -> Result<()> {
        if !self.remembers() {
            return Ok(());
        }
        let _locked = self.locked()?;
        let mut state: AccountState = STATE.read(&self.dir);
        if ended {
            state.running.retain(|r| r.slot != self.number);
        }
        // The file system may have reused the inode number of a core that has gone for the new one.
        state.cores.retain(|k| {
            !gone.contains(&k.identity)
                && core.as_ref().is_none_or(|c| c.identity.id != k.identity.id)
        });
        state.cores.extend(core);
        let surplus = state.cores.len().saturating_sub(MOST);
        state.cores.drain(..surplus);
        STATE.replace(&self.dir, &state)
    }

    fn locked(&self) -> Result<OwnedFd> {
        let again = file::reopen_dir(&self.dir)?;
        file::lock(&again)?;
        Ok(again)
    }

    fn is_taken(&self, number: u64) -> bool {
        open(&self.dir, number).and_then(|f| file::try_lock(&f)).is_ok_and(|free| !free)
    }
}
