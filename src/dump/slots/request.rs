//! A crash asks for a slot, and waits for it.

use super::slot::{Slot, open};
use crate::cause::{Cause, CauseCode};
use crate::dump::crash::container_crash::ContainerCrash;
use crate::dump::policy::quota::{self, contained_part};
use crate::limits::Limits;
use crate::registry::Registry;
use crate::sys::{OwnedFd, file, kernel};
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Slots where no number is set, but the dumps on their way must be known.
const MANY: u64 = 1024;

/// Slots of a container that need none of the host's.
const OWN: u64 = 4;

/// How many of the host's slots are tried: when a thousand crashes come at once, trying more would
/// be most of their work.
const LOOK: u64 = 8;

/// How often a crash that waits checks that its process is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What came of a request for a slot.
pub(crate) enum SlotAnswer {
    /// No limit is set that needs slots.
    Free,
    Slot(Box<Slot>),
    /// A limit forbids the core.
    Refused(Cause),
}

/// With whom the slots beyond the first few are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// All registered containers. The first [`OWN`] slots of each are its own.
    Containers,
    /// Everybody else. Who can take on any user ID has any number of accounts: nobody has slots of
    /// his own, and a part is for the host's own processes alone.
    Others {
        /// It is not the host's own.
        is_contained: bool,
    },
}

impl Pool {
    fn own(self, slots: u64) -> u64 {
        match self {
            Pool::Containers => slots.min(OWN),
            Pool::Others { .. } => 0,
        }
    }

    fn dir(self, registry: &Registry) -> Result<OwnedFd> {
        match self {
            Pool::Containers => registry.host_limits_dir(),
            Pool::Others { .. } => registry.forwarded_dir(),
        }
    }
}

/// A crash that looks for a slot.
pub(crate) struct SlotRequest<'a> {
    /// Where slots are.
    pub registry: &'a Registry,
    /// Whose slots: [`crate::registry::Entry::account`].
    pub account: &'a str,
    /// With whom they are shared.
    pub pool: Pool,
    /// What holds for this container.
    pub limits: &'a Limits,
    /// Which slot to try first, so that crashes at the same time do not all try the same one.
    pub first: u64,
    /// Whether the crashed process is still there: nobody waits for one that was killed.
    pub is_still: &'a dyn Fn() -> bool,
}

impl SlotRequest<'_> {
    /// Asks for a slot for a dump, and waits for it as long as `limits.wait` says. `expected` bytes
    /// are to be written.
    ///
    /// # Errors
    /// The run directory cannot be used.
    pub(crate) fn ask(&self, expected: impl FnOnce() -> u64) -> Result<SlotAnswer> {
        let remembers = quota::keeps_state(self.limits);
        let Some(slots) = quota::slots(self.limits).or(remembers.then_some(MANY)) else {
            return Ok(SlotAnswer::Free);
        };
        let dir = self.registry.limits_dir(self.account)?;
        let Taken { number, lock, host } =
            match (Semaphore { dir: &dir, slots, request: self }).take()? {
                Ok(taken) => taken,
                Err(refusal) => return Ok(SlotAnswer::Refused(refusal)),
            };
        let mut slot = Slot::taken(dir, number, lock, host, self.limits.clone());
        if remembers && let Err(refusal) = slot.begin(expected())? {
            return Ok(SlotAnswer::Refused(refusal));
        }
        Ok(SlotAnswer::Slot(Box::new(slot)))
    }

    /// One of the account's slots for work that is no dump, if one is free at this moment.
    ///
    /// # Errors
    /// The run directory cannot be used.
    pub(crate) fn at_once(&self) -> Result<Option<Slot>> {
        let dir = self.registry.limits_dir(self.account)?;
        let slots = quota::slots(self.limits).unwrap_or(MANY).min(OWN);
        let found = free(&dir, 0, slots, self.first)?;
        Ok(found.map(|(number, lock)| Slot::taken(dir, number, lock, None, self.limits.clone())))
    }
}

/// Takes a slot for the dump of a container's crash, and waits for it as long as the limits say.
/// `None`: none is needed.
///
/// # Errors
/// Why there is to be no core.
pub(crate) fn slot_for(
    case: &ContainerCrash<'_>,
    limits: &Limits,
) -> Result<Option<Box<Slot>>, Cause> {
    let ContainerCrash { crash, facts, entry, registry, .. } = *case;
    let account = &entry.account();
    let asked = registry.context("there is no run directory").and_then(|registry| {
        let is_still = &|| facts.is_still(crash);
        let (pool, first) = (Pool::Containers, crash.said.host_pid as u64);
        SlotRequest { registry, account, pool, limits, first, is_still }
            .ask(|| facts.task.memory_in_use().unwrap_or(0))
    });
    match asked {
        Ok(SlotAnswer::Free) => Ok(None),
        Ok(SlotAnswer::Slot(slot)) => Ok(Some(slot)),
        Ok(SlotAnswer::Refused(cause)) => Err(cause),
        // A user could have any number of helpers wait for what is the user's.
        Err(e) if entry.user.is_some() => {
            Err(Cause::Failed(format!("the user's limits cannot be looked at: {e:#}")))
        }
        // A core that is not counted is better than none.
        Err(e) => {
            log::warn!("container {account}: its limits cannot be looked at, ignoring: {e:#}");
            Ok(None)
        }
    }
}

/// A slot of the crash's container, if one is free at this moment. By the host's limits: what it is
/// taken for is no dump of the container's.
pub(crate) fn free_slot(case: &ContainerCrash<'_>) -> Option<Slot> {
    let request = SlotRequest {
        registry: case.registry?,
        account: &case.entry.account(),
        pool: Pool::Containers,
        limits: &case.config.limits,
        first: case.crash.said.host_pid as u64,
        is_still: &|| false,
    };
    request.at_once().ok()?
}

/// The slots of an account, as one of its crashes looks for one.
struct Semaphore<'a> {
    dir: &'a OwnedFd,
    slots: u64,
    request: &'a SlotRequest<'a>,
}

/// One of them, locked.
struct Taken {
    number: u64,
    lock: OwnedFd,
    host: Option<OwnedFd>,
}

impl Semaphore<'_> {
    /// Takes a slot. Where all are taken it waits for one of them, and does not try the others
    /// again: a thousand crashes that wait would do nothing else.
    fn take(&self) -> Result<Result<Taken, Cause>> {
        let own = self.request.pool.own(self.slots);
        if let Some((number, lock)) = free(self.dir, 0, own, self.request.first)? {
            return Ok(Ok(Taken { number, lock, host: None }));
        }
        let host = self.of_host()?;
        let full = host.is_none();
        if let Some(host) = host
            && let Some((number, lock)) = free(self.dir, own, self.slots, self.request.first)?
        {
            return Ok(Ok(Taken { number, lock, host }));
        }
        let wait = Duration::from_secs(self.request.limits.wait.unwrap_or(0));
        if !wait.is_zero()
            && let Err(refusal) =
                quota::room_to_wait(self.request.limits.min_memory, kernel::memory().ok())
        {
            return Ok(Err(refusal));
        }
        let until = Instant::now() + wait;
        let within = |dir: &OwnedFd, number: u64| -> Result<Option<OwnedFd>> {
            let lock = open(dir, number)?;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                if file::lock_within(&lock, left.min(LOOK_AGAIN))? {
                    return Ok(Some(lock));
                }
                // Otherwise a process that kills its children while they dump core could have any
                // number of helpers wait.
                if left.is_zero() || !(self.request.is_still)() {
                    return Ok(None);
                }
            }
        };
        let number = self.request.first % self.slots;
        let Some(lock) = within(self.dir, number)? else { return Ok(Err(self.refusal(full))) };
        if number < own {
            return Ok(Ok(Taken { number, lock, host: None }));
        }
        if let Some(host) = self.of_host()? {
            return Ok(Ok(Taken { number, lock, host }));
        }
        if own == 0 {
            let (pool, most) =
                (self.request.pool.dir(self.request.registry)?, self.shared().max(1));
            return Ok(within(&pool, self.request.first % most)?
                .map(|host| Taken { number, lock, host: Some(host) })
                .ok_or_else(|| self.refusal(true)));
        }
        // Others have all of the host's slots. A container does not wait for those: this crash
        // waits for one of its own container's.
        drop(lock);
        let number = self.request.first % own;
        Ok(within(self.dir, number)?
            .map(|lock| Taken { number, lock, host: None })
            .ok_or_else(|| self.refusal(true)))
    }

    /// How many slots there are that are shared; 0 is no limit.
    fn shared(&self) -> u64 {
        let most = Limits::nonzero(self.request.limits.host_concurrent);
        match self.request.pool {
            Pool::Containers => most.unwrap_or(0),
            Pool::Others { is_contained: true } => contained_part(most.unwrap_or(MANY)).max(1),
            Pool::Others { is_contained: false } => most.unwrap_or(MANY),
        }
    }

    /// One of the host's slots, if one is free among a few; none where there is no such limit. The
    /// outer `None`: all of those are taken.
    fn of_host(&self) -> Result<Option<Option<OwnedFd>>> {
        if self.slots <= self.request.pool.own(self.slots) {
            return Ok(None);
        }
        let most = self.shared();
        if most == 0 {
            return Ok(Some(None));
        }
        let dir = self.request.pool.dir(self.request.registry)?;
        for number in (0..most.min(LOOK)).map(|i| self.request.first.wrapping_add(i) % most) {
            let lock = open(&dir, number)?;
            if file::try_lock(&lock)? {
                return Ok(Some(Some(lock)));
            }
        }
        Ok(None)
    }

    /// `full`: the host's slots were all taken.
    fn refusal(&self, full: bool) -> Cause {
        let waited = self.request.limits.wait.unwrap_or(0);
        let none = format_args!("waited {waited} seconds for one");
        match self.request.limits.host_concurrent.filter(|_| full && self.slots > OWN) {
            Some(most) => Cause::limit(
                CauseCode::HostConcurrent,
                most,
                format_args!(
                    "all slots beyond the first {OWN} of each container are in use; {none}"
                ),
            ),
            None => {
                let key = if Some(self.slots) == self.request.limits.cores {
                    CauseCode::Cores
                } else {
                    CauseCode::Concurrent
                };
                Cause::limit(key, self.slots, format_args!("all slots are in use; {none}"))
            }
        }
    }
}

/// One of the slots `from..to` that nobody has, locked.
fn free(dir: &OwnedFd, from: u64, to: u64, first: u64) -> Result<Option<(u64, OwnedFd)>> {
    let count = to - from;
    for number in (0..count).map(|i| from + (first + i) % count) {
        let lock = open(dir, number)?;
        if file::try_lock(&lock)? {
            return Ok(Some((number, lock)));
        }
    }
    Ok(None)
}
