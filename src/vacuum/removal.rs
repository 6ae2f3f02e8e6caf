//! Removes what was planned.

use super::inventory::{Inventory, Item, gone};
use super::plan::RemovalPlan;
use super::stored_core::StoredCore;
use crate::store::{Store, tree};
use crate::sys::file;
use anyhow::Result;

impl Inventory {
    /// Removes one crash. The core is removed first: a record without its core says so, but a
    /// core without its record is lost. What is gone already is no error, and a file that is not
    /// that core any more stays.
    ///
    /// # Errors
    /// The crash could not be removed and stays.
    pub(crate) fn remove(&self, item: &Item) -> Result<()> {
        if let Some(path) = &item.orphan {
            let dir = self.store.join("containers").join(&item.record.names.container_id);
            let found = tree::parent(&file::open_dir(&dir)?, path);
            return found.map_or(Ok(()), |(dir, name)| file::unlink(dir, name));
        }
        if item.core.is_some()
            && let Some(record) = self.records.read(&item.name)
            && let Some(core) = StoredCore::of(&self.store, &record)
        {
            file::unlink(&core.dir, &core.name)?;
        }
        self.records.remove(&item.name)
    }

    fn forget_empty(&self) -> Result<()> {
        let Some(store) = Store::open_existing(&self.store)? else { return Ok(()) };
        for id in gone(&store)? {
            store.forget_empty(&id)?;
        }
        Ok(())
    }

    /// Removes, after the crashes, what is not needed any more: binaries, and the leftovers of
    /// helpers that were killed. A failure is logged, and the rest is tried.
    pub(crate) fn tidy(&self, plan: &RemovalPlan<'_>) {
        let attempt = |what: &str, result: Result<()>| {
            if let Err(e) = result {
                log::warn!("vacuum: {what} cannot be removed, ignoring: {e:#}");
            }
        };
        attempt("what killed helpers left of records", self.records.sweep());
        attempt("an empty directory of a container that has gone", self.forget_empty());
        if let Some((_, fetched)) = &self.fetched {
            for file in &plan.fetched {
                attempt(&file.name, fetched.remove(&file.name));
            }
        }
        let Some(binaries) = &self.binaries else { return };
        attempt("what killed helpers left of binaries", binaries.sweep());
        for id in plan.unneeded.iter().map(|(id, _)| id).chain(&plan.left_over) {
            attempt(id, binaries.remove(id));
        }
    }
}
