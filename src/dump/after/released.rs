//! What is done when the process was let go and its core is whole: the summary, and keeping its
//! executable and libraries. Nobody waits for it.

use super::deleted_files::DeletedFiles;
use super::record_client::RecordClient;
use super::{kept_binaries, summary, termination_log};
use crate::config::Config;
use crate::dump::crash::arguments::Crash;
use crate::dump::crash::facts::Facts;
use crate::dump::policy::plan::{CoreFile, Rights};
use crate::dump::policy::slot::Slot;
use crate::dump::writer::crasher_task::Charge;
use crate::record::{Outcome, Record};
use crate::registry::Entry;
use crate::store::Store;
use crate::sys::file::FileId;
use crate::sys::{OwnedFd, kernel, pidfd};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// A crash whose process was let go.
pub(crate) struct Released<'a> {
    /// What the kernel said.
    pub crash: &'a Crash,
    /// What /proc said.
    pub facts: &'a Facts,
    /// Its container.
    pub entry: &'a Entry,
    /// The configuration.
    pub config: &'a Config,
    /// The core's file, by its number.
    pub file: &'a CoreFile,
    /// Device and inode number of the core.
    pub core: FileId,
    /// The process's files that have no name any more.
    pub deleted: &'a DeletedFiles,
    /// Its slot, if its container has limits.
    pub slot: Option<&'a Slot>,
}

impl Released<'_> {
    /// Puts into the record where it crashed. `log`: with whose rights that is added to the
    /// termination log, if a line of this crash is there.
    pub(crate) fn summarize(
        &self,
        record: &mut Record,
        client: &mut RecordClient<'_>,
        log: Option<&CoreFile>,
    ) {
        let Self { facts, entry, file, core, deleted, slot, .. } = *self;
        if !self.config.summary || record.outcome != Outcome::Written {
            return;
        }
        let first = self.first_process();
        match summary::summarize(facts, file, core, deleted, slot, charge(first.as_ref())) {
            Ok(Some(summary)) => {
                (record.stack, record.stack_hash) = (summary.stack, Some(summary.hash));
                client.say(record);
            }
            Ok(None) => {}
            Err(e) => log::warn!("the core cannot be summarized, ignoring: {e:#}"),
        }
        // What root's rights could read is not for a log that the container's users read.
        let log = log.filter(|_| file.rights == Rights::Crasher);
        if let Some((log, text)) = log.zip(record.crashed_in()) {
            termination_log::add(facts, log, entry, &text, slot).unwrap_or_else(|e| {
                log::warn!("cannot write the termination log, ignoring: {e:#}")
            });
        }
    }

    /// Keeps the executable and libraries, and puts into the record which are there.
    ///
    /// # Errors
    /// They cannot be kept; the record says that none is.
    pub(crate) fn keep(&self, record: &mut Record, client: &mut RecordClient<'_>) -> Result<()> {
        let first = self.first_process();
        let keeper = kept_binaries::Keeper {
            facts: self.facts,
            charge: charge(first.as_ref()),
            core_file: self.file,
            core: self.core,
            deleted: self.deleted,
            account: &self.entry.account(),
            slot: self.slot,
            most: &self.config.binaries,
            free: kernel::free_bytes(&self.config.store).unwrap_or(0),
        };
        // A store that was removed meanwhile is not made again.
        let kept = Store::open_existing(&self.config.store)
            .and_then(|store| store.map_or(Ok(BTreeMap::new()), |store| keeper.keep(&store)));
        record.keeping = false;
        record.binaries = kept.as_ref().ok().cloned().unwrap_or_default();
        client.say(record);
        kept.map(drop).context("keep the executable and libraries of the core")
    }

    /// The container goes with its first process, which may be the one that has crashed.
    fn first_process(&self) -> Option<OwnedFd> {
        let is_another = self.entry.init.pid != self.crash.said.host_pid;
        let first = is_another.then(|| pidfd::open(self.entry.init.pid).ok()).flatten();
        first.filter(|_| self.entry.init_lives())
    }
}

fn charge(first: Option<&OwnedFd>) -> Charge<'_> {
    first.map_or(Charge::Nobody, Charge::Until)
}
