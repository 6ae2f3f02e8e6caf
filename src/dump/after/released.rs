//! What is done when the process was let go and its core is whole: the summary, and keeping its
//! executable and libraries. Nobody waits for it.

use super::deleted_files::DeletedFiles;
use super::kept_binaries::Keeper;
use super::reading::{Reading, SeenFile};
use super::record_client::RecordClient;
use super::{termination_log, turn};
use crate::corefile::Summary;
use crate::dump::container_crash::ContainerCrash;
use crate::dump::policy::plan::{CoreFile, Rights};
use crate::dump::policy::slot::Slot;
use crate::dump::writer::crasher_task::Charge;
use crate::record::{Outcome, Record};
use crate::report;
use crate::store::Store;
use crate::sys::file::FileId;
use crate::sys::{OwnedFd, kernel, pidfd};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// A crash whose process was let go.
pub(crate) struct Released<'a> {
    /// The crash.
    pub case: &'a ContainerCrash<'a>,
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
    /// Puts into the record where it crashed; keeps the executable and libraries, if the record
    /// says that they are being kept, and puts into it which are there. `log`: with whose rights
    /// the first is added to the termination log, if a line of this crash is there.
    ///
    /// # Errors
    /// The files cannot be kept; the record says that none is.
    pub(crate) fn finish(
        &self,
        record: &mut Record,
        client: &mut RecordClient<'_>,
        log: Option<&CoreFile>,
    ) -> Result<()> {
        let Self { file, core, deleted, slot, .. } = *self;
        let ContainerCrash { facts, config, .. } = *self.case;
        let is_whole = record.outcome == Outcome::Written && !file.compress;
        let summary = config.summary && is_whole;
        let files = record.keeping.then(|| config.binaries.max_file.raw());
        if !summary && files.is_none() {
            report::crash_to_journal(record);
            return Ok(());
        }
        let _turn = self.turn();
        let first = self.first_process();
        let charge = first.as_ref().map_or(Charge::Nobody, Charge::Until);
        let core_file = file;
        let reading = Reading { facts, core_file, core, deleted, slot, charge, summary, files };
        let (told, failed) = match reading.read() {
            Ok(told) => (told, None),
            Err(e) => (Default::default(), Some(e)),
        };
        if let Some(summary) = told.summary {
            self.say_where(summary, record, client, log);
        }
        report::crash_to_journal(record);
        match failed {
            _ if record.keeping => {
                self.keep(reading, failed.map_or(Ok(told.files), Err), record, client)
            }
            Some(e) => {
                log::warn!("the core cannot be summarized, ignoring: {e:#}");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The turn of its account, if there is one to be had.
    fn turn(&self) -> Option<OwnedFd> {
        let ContainerCrash { crash, registry, limits, .. } = *self.case;
        let waited = turn::wait(registry?, limits?, self.slot, crash.said.host_pid as u64);
        waited.unwrap_or_else(|e| {
            log::warn!("the crash does not wait for its turn, ignoring: {e:#}");
            None
        })
    }

    fn say_where(
        &self,
        summary: Summary,
        record: &mut Record,
        client: &mut RecordClient<'_>,
        log: Option<&CoreFile>,
    ) {
        (record.stack, record.stack_hash) = (summary.stack, Some(summary.hash));
        client.say(record);
        // What root's rights could read is not for a log that the container's users read.
        let log = log.filter(|_| self.file.rights == Rights::Crasher);
        let ContainerCrash { facts, entry, .. } = *self.case;
        if let Some((log, text)) = log.zip(record.crashed_in()) {
            termination_log::add(facts, log, entry, &text, self.slot).unwrap_or_else(|e| {
                log::warn!("cannot write the termination log, ignoring: {e:#}")
            });
        }
    }

    /// `files`: what belongs to the core, or why that is not known.
    fn keep(
        &self,
        of: Reading<'_>,
        files: Result<Vec<SeenFile>>,
        record: &mut Record,
        client: &mut RecordClient<'_>,
    ) -> Result<()> {
        let config = self.case.config;
        let keep = |files| {
            let account = &self.case.entry.account();
            let free = kernel::free_bytes(&config.store).unwrap_or(0);
            let keeper = Keeper { of, account, most: &config.binaries, free };
            // A store that was removed meanwhile is not made again.
            let store = Store::open_existing(&config.store)?;
            store.map_or(Ok(BTreeMap::new()), |store| keeper.keep(&store, files))
        };
        let kept = files.and_then(keep);
        record.keeping = false;
        record.binaries = kept.as_ref().ok().cloned().unwrap_or_default();
        client.say(record);
        kept.map(drop).context("keep the executable and libraries of the core")
    }

    /// The container goes with its first process, which may be the one that has crashed.
    fn first_process(&self) -> Option<OwnedFd> {
        let ContainerCrash { crash, entry, .. } = *self.case;
        let is_another = entry.init.pid != crash.said.host_pid;
        let first = is_another.then(|| pidfd::open(entry.init.pid).ok()).flatten();
        first.filter(|_| entry.init_lives())
    }
}
