//! A crash of a registered container: what is known of it, its slot, and what is done where there
//! is to be no core.

use super::after::record_client::RecordClient;
use super::after::{termination_log, user_record};
use super::crash::arguments::Crash;
use super::crash::facts::Facts;
use super::policy::plan::CoreFile;
use super::policy::slot::Slot;
use super::policy::slots::{Pool, SlotAnswer, SlotRequest};
use crate::cause::Cause;
use crate::config::Config;
use crate::crash_counts::CrashCounts;
use crate::limits::Limits;
use crate::record::{Outcome, Record, signal_name};
use crate::registry::{Entry, Registry};
use crate::sys::proc::printable;
use crate::sys::{OwnedFd, descriptor};
use crate::vacuum;
use anyhow::{Result, anyhow};

/// A crash of a registered container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContainerCrash<'a> {
    /// What the kernel said.
    pub crash: &'a Crash,
    /// What /proc said.
    pub facts: &'a Facts,
    /// Its container.
    pub entry: &'a Entry,
    /// The run directory, if there is one.
    pub registry: Option<&'a Registry>,
    /// The directory of the limits of its account there.
    pub limits: Option<&'a OwnedFd>,
    /// The configuration.
    pub config: &'a Config,
}

impl ContainerCrash<'_> {
    /// Takes a slot for a dump, and waits for it as long as the limits say. `None`: none is needed.
    ///
    /// # Errors
    /// Why there is to be no core.
    pub(super) fn slot(&self, limits: &Limits) -> Result<Option<Box<Slot>>, Cause> {
        let Self { crash, facts, entry, registry, .. } = *self;
        let account = &entry.account();
        let nowhere = || anyhow::anyhow!("there is no run directory");
        let asked = registry.ok_or_else(nowhere).and_then(|registry| {
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

    /// Records that there will be no core. Nothing of the container was touched, and the process is
    /// let go at once.
    ///
    /// # Errors
    /// The rules of the configuration's `[vacuum]` could not be applied.
    pub(super) fn without_core(&self, cause: &Cause) -> Result<()> {
        let Self { facts, entry, registry, config, limits, .. } = *self;
        let mut record = self.record();
        record.outcome = Outcome::None;
        record.set_cause(Some(cause));
        let mut client = RecordClient::new(&config.store, limits);
        // Without the directory there would be records without end.
        let told = match (registry, limits) {
            (Some(_), None) => Err(anyhow!("the directory of its limits cannot be opened")),
            _ => client.refuse(&record, self.most_records()),
        };
        // What a child does for it is done only if a slot is free at this moment, and only for a
        // crash with a record of its own, of which there are few: nothing waits.
        let is_own = matches!(told, Ok(true));
        let slot = if is_own { self.free_slot() } else { None };
        if slot.is_some() && self.reports_termination(&record) {
            let file = CoreFile::default();
            let locks: Vec<_> = slot.iter().flat_map(Slot::fds).collect();
            termination_log::write(facts, &file, entry, &record, None, &locks).unwrap_or_else(
                |e| log::warn!("cannot write the termination log, ignoring: {e:#}"),
            );
        }
        descriptor::release_stdin();
        self.count(&record);
        match told {
            Ok(true) => {
                log::warn!("{record}");
                if entry.user.is_some() && slot.is_some() {
                    user_record::give_copy(&mut record, entry, None, slot.as_ref());
                }
            }
            Ok(false) => {}
            Err(e) => log::error!("cannot save the record of this crash: {e:#}: {record}"),
        }
        vacuum::now_and_then(config)
    }

    /// A slot that is free at this moment.
    fn free_slot(&self) -> Option<Slot> {
        let request = SlotRequest {
            registry: self.registry?,
            account: &self.entry.account(),
            pool: Pool::Containers,
            limits: &self.config.limits,
            first: self.crash.said.host_pid as u64,
            is_still: &|| false,
        };
        request.at_once().ok()?
    }

    /// Whether a line of this crash goes to Kubernetes. Not of a set-user-ID program, whose rights
    /// are not those of whoever started it.
    pub(super) fn reports_termination(&self, record: &Record) -> bool {
        let Self { facts, entry, config, .. } = *self;
        let is_itself = !facts.secure && !facts.status.credentials.mixed();
        is_itself && termination_log::concerns(record, entry, facts, config.termination_log)
    }

    /// How many records its account may have.
    pub(super) fn most_records(&self) -> u64 {
        Limits::nonzero(self.config.limits.records).unwrap_or(u64::MAX)
    }

    /// Counts the crash for `metrics`. The process has been let go by then.
    pub(super) fn count(&self, record: &Record) {
        if let Some(Err(e)) = self.registry.map(|registry| CrashCounts::count(registry, record)) {
            log::warn!("this crash cannot be counted for `metrics`, ignoring: {e:#}");
        }
    }

    /// What the record says before anything is done.
    pub(super) fn record(&self) -> Record {
        let Self { crash, facts, entry, .. } = *self;
        let said = &crash.said;
        Record {
            time: jiff::Timestamp::from_second(said.time)
                .map(|t| t.to_string())
                .unwrap_or_default(),
            names: entry.names.clone(),
            user: entry.user,
            account: Some(entry.account()),
            pod_uid: entry.init.pod_uid.clone(),
            pid: said.pid,
            host_pid: said.host_pid,
            tid: said.tid,
            host_tid: said.host_tid,
            signal: said.signal,
            signal_name: signal_name(said.signal),
            comm: comm(crash),
            exe: printable(&facts.exe),
            uid: said.uid,
            gid: said.gid,
            dump_mode: said.dump_mode,
            pattern: entry.pattern_text(),
            location: entry.place.location,
            upload: entry.no_upload.then_some(false),
            ..Record::default()
        }
    }
}

/// The name of the crashed thread, for messages.
pub(super) fn comm(crash: &Crash) -> String {
    printable(&crash.said.comm)
}
