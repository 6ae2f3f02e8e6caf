//! What is done after a process was let go is done for one crash of an account at a time. In a
//! storm it would otherwise take the processors from the dumps, for which processes wait; and its
//! slots, which are given up to other dumps for as long as this crash waits for its turn.

use crate::dump::policy::slot::Slot;
use crate::registry::Registry;
use crate::sys::{OwnedFd, file};
use anyhow::Result;
use std::time::Duration;

/// Name of the file in the directory of an account's limits whose lock is the turn.
const FILE: &str = "after";

/// How long a turn is waited for. Then it is done all the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for the turn of an account, which lasts until what is returned is dropped. `None`: it has
/// not come, or so many wait already that this one keeps its slot and goes on at once. `account`:
/// the directory of its limits. `first`: which place to try first of those that crashes wait in.
pub(super) fn wait(
    registry: &Registry,
    account: &OwnedFd,
    slot: Option<&Slot>,
    first: u64,
) -> Result<Option<OwnedFd>> {
    let turn = file::open_lock(account, FILE.as_ref())?;
    if file::try_lock(&turn)? {
        return Ok(Some(turn));
    }
    let host = registry.host_limits_dir()?;
    if !slot.map_or(Ok(false), |slot| slot.stand_aside(&host, first))? {
        return Ok(None);
    }
    Ok(file::lock_within(&turn, PATIENCE)?.then_some(turn))
}
