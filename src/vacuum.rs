//! Removes the oldest crashes from the store by rules, together with the kept binaries that no core
//! needs any more. A core in the store is removed with its record; one on a volume or in a
//! container's layer is not ours and stays.

mod inventory;
mod plan;
mod removal;
mod stored_core;

pub(crate) use inventory::{Inventory, Item};
pub(crate) use plan::Rules;
pub(crate) use stored_core::has_core_in_store;

use crate::config::{Config, RUN_DIR};
use crate::store::Store;
use crate::store::uploads::Uploads;
use crate::sys::file;
use anyhow::{Context, Result};
use jiff::Timestamp;
use std::time::Duration;

/// Shortest time between two applications of the configured rules.
const EVERY: Duration = Duration::from_secs(600);

/// Applies the configured rules, at most every ten minutes. No crash and no container waits for it.
///
/// # Errors
/// What could not be read or removed.
pub(crate) fn now_and_then(config: &Config) -> Result<()> {
    if !is_due("vacuumed", EVERY) {
        return Ok(());
    }
    let apply = || -> Result<()> {
        let uploads = Uploads::open(&config.upload.state);
        let Some(inventory) = Store::open_existing(&config.store)?
            .map(|s| Inventory::take(&s, &uploads))
            .transpose()?
            .flatten()
        else {
            return Ok(());
        };
        let plan = inventory.plan_removal(Rules::configured(config, Timestamp::now()))?;
        for (item, bytes) in &plan.crashes {
            let of = &item.record;
            if let Err(e) = inventory.remove(item) {
                let id = &of.names.container_id;
                log::warn!("vacuum: the crash of {} in container {id} stays: {e:#}", of.time);
                continue;
            }
            log::info!(
                "vacuum: removed the crash of {} in container {} ({bytes} bytes)",
                item.record.time,
                item.record.names.container_id
            );
        }
        inventory.tidy(&plan);
        Ok(())
    };
    apply().context("vacuum")
}

/// Whether a recurring task is due, which runs at most once in `every`. If so,
/// records that it runs now.
pub(crate) fn is_due(what: &str, every: Duration) -> bool {
    file::open_dir(RUN_DIR.as_ref()).is_ok_and(|dir| file::is_due(&dir, what.as_ref(), every))
}
