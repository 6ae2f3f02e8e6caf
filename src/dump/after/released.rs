//! What is done when the process was let go and its core is as complete as it will be: the summary,
//! and keeping its executable and libraries.

use super::crash_record::CrashRecord;
use super::deleted_files::DeletedFiles;
use super::kept_binaries::Keeper;
use super::kept_with_last_core::{self, MappedFilesHash};
use super::reading::{Reading, SeenFile};
use super::termination_log;
use crate::corefile::Summary;
use crate::dump::crash::container_crash::ContainerCrash;
use crate::dump::crash::transport::Transport;
use crate::dump::policy::plan::{CorePlan, Rights};
use crate::dump::slots::Slot;
use crate::dump::writer::as_crasher::Charge;
use crate::record::{Outcome, Record};
use crate::report;
use crate::store::Store;
use crate::sys::file::{self, FileId};
use crate::sys::{AsFd, BorrowedFd, OwnedFd, child, kernel, pidfd};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Crashes of one account that are summarized at the same time.
const SUMMARIES: u64 = 4;

/// A crash whose process was let go.
pub(crate) struct Released<'a> {
    /// The crash.
    pub case: &'a ContainerCrash<'a>,
    /// The core's file, by its number.
    pub file: CorePlan,
    /// Device and inode number of the core.
    pub core: FileId,
    /// The process's files that have no name any more.
    pub deleted: DeletedFiles,
    /// Which files it had mapped, where all of them still had a name.
    pub mapped: Option<MappedFilesHash>,
    /// What is known.
    pub record: Record,
    /// Where it is said.
    pub client: CrashRecord<'a>,
    /// With whose rights the summary is added to the termination log, if a line of this crash was
    /// to be written there.
    pub log: Option<CorePlan>,
}

impl Released<'_> {
    /// Puts into the record where it crashed; keeps the executable and libraries, if the record
    /// says that they are being kept, and puts into it which are there. `slot`: its slot, if its
    /// container has limits, which other dumps get where nobody waits for this.
    ///
    /// # Errors
    /// The files cannot be kept; the record says that none is.
    pub(crate) fn finish(mut self, slot: Option<Box<Slot>>) -> Result<()> {
        let config = self.case.config;
        let wants_summary = config.summary && self.record.outcome == Outcome::Written;
        let summary_slot = wants_summary.then(|| self.summary_slot()).flatten();
        // A child that was left behind goes on having the slot.
        let slot = slot.filter(|_| summary_slot.is_none());
        let summary = summary_slot.is_some();
        self.record.summary_left_out = wants_summary && !summary;
        let files = self.record.keeping.then(|| config.binaries.max_file.raw());
        if !summary && files.is_none() {
            report::crash_to_journal(&self.record);
            if self.record.summary_left_out {
                self.client.say(&self.record);
            }
            return Ok(());
        }
        if !summary && let Some(kept) = self.kept_before() {
            (self.record.keeping, self.record.binaries) = (false, kept);
            report::crash_to_journal(&self.record);
            self.client.say(&self.record);
            return Ok(());
        }
        let slot = slot.iter().flat_map(|slot| slot.fds());
        let locks: Vec<_> = summary_slot.iter().map(AsFd::as_fd).chain(slot).collect();
        if summary && self.case.crash.transport == Transport::Socket {
            // The server counts this process, and those whose crashes come next wait for it.
            let aside = child::fork(|| {
                let done = self.read(&locks, summary, files);
                i32::from(done.inspect_err(|e| log::error!("handle: {e:#}")).is_err())
            });
            if aside.is_ok() {
                return Ok(());
            }
        }
        self.read(&locks, summary, files)
    }

    /// `locks`: what a child that hangs keeps. `summary`: it is wanted, and nobody waits for it.
    /// `files`: they are wanted; the largest that is kept, in bytes.
    fn read(&mut self, locks: &[BorrowedFd<'_>], summary: bool, files: Option<u64>) -> Result<()> {
        let first = self.first_process();
        let (file, deleted) = (self.file.clone(), std::mem::take(&mut self.deleted));
        let reading = Reading {
            facts: self.case.facts,
            core_file: &file,
            core: self.core,
            deleted: &deleted,
            locks,
            charge: first.as_ref().map_or(Charge::Nobody, Charge::Until),
            summary,
            files,
        };
        let (told, failed) = match reading.read() {
            Ok(told) => (told, None),
            Err(e) => (Default::default(), Some(e)),
        };
        if let Some(summary) = told.summary {
            self.say_where(summary, locks);
        }
        report::crash_to_journal(&self.record);
        match failed {
            _ if self.record.keeping => self.keep(reading, failed.map_or(Ok(told.files), Err)),
            Some(e) => {
                log::warn!("the core cannot be summarized, ignoring: {e:#}");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// One of the few slots of its account for what nobody waits for, if one is free at this
    /// moment. A crash that has one gives its slot to other dumps; one that has none has no
    /// summary, which in a storm would take the processors from the dumps. Without a run directory
    /// there is no bound, and no slot.
    fn summary_slot(&self) -> Option<OwnedFd> {
        let ContainerCrash { crash, account_dir, .. } = *self.case;
        let first = crash.said.host_pid as u64;
        (0..SUMMARIES).map(|i| first.wrapping_add(i) % SUMMARIES).find_map(|number| {
            let slot = file::open_lock(account_dir?, format!("after-{number}").as_ref()).ok()?;
            file::try_lock(&slot).is_ok_and(|free| free).then_some(slot)
        })
    }

    /// What is kept of this crash already, since the last one of its account had the same files.
    fn kept_before(&self) -> Option<BTreeMap<String, String>> {
        let ContainerCrash { account_dir, entry, config, .. } = *self.case;
        let store = Store::open_existing(&config.store).ok()??.binaries().ok()?;
        kept_with_last_core::recall(account_dir?, &entry.account(), self.mapped.as_ref()?, &store)
    }

    fn say_where(&mut self, summary: Summary, locks: &[BorrowedFd<'_>]) {
        let record = &mut self.record;
        (record.stack, record.stack_hash) = (summary.stack, Some(summary.hash));
        self.client.say(record);
        // What root's rights could read is not for a log that the container's users read.
        let log = self.log.as_ref().filter(|_| self.file.rights == Rights::Crasher);
        let ContainerCrash { facts, entry, .. } = *self.case;
        if let Some((log, text)) = log.zip(record.crashed_in()) {
            termination_log::add(facts, log, entry, &text, locks).unwrap_or_else(|e| {
                log::warn!("cannot write the termination log, ignoring: {e:#}")
            });
        }
    }

    /// `files`: what belongs to the core, or why that is not known.
    fn keep(&mut self, of: Reading<'_>, files: Result<Vec<SeenFile>>) -> Result<()> {
        let config = self.case.config;
        let keep = |files| {
            let account = &self.case.entry.account();
            let free = kernel::free_bytes(&config.store).unwrap_or(0);
            let keeper = Keeper { of, account, most: &config.binaries, free };
            // A store that was removed meanwhile is not made again.
            let store = Store::open_existing(&config.store)?;
            let Some(store) = store else { return Ok(BTreeMap::new()) };
            let kept = keeper.keep(&store, files)?;
            if let Some((dir, mapped)) = self.case.account_dir.zip(self.mapped.as_ref()) {
                kept_with_last_core::note(dir, mapped, &store.binaries()?, &kept).unwrap_or_else(
                    |e| log::warn!("the next core will be read for its files, too: {e:#}"),
                );
            }
            Ok(kept)
        };
        let kept = files.and_then(keep);
        self.record.keeping = false;
        self.record.binaries = kept.as_ref().ok().cloned().unwrap_or_default();
        self.client.say(&self.record);
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
