//! A crash of a registered container: what is known of it.

use super::arguments::Crash;
use super::facts::Facts;
use crate::config::Config;
use crate::crash_counts::CrashCounts;
use crate::limits::Limits;
use crate::record::{Record, signal_name};
use crate::registry::{Entry, Registry};
use crate::sys::OwnedFd;
use crate::sys::proc::printable;

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
    /// The directory of its account there.
    pub account_dir: Option<&'a OwnedFd>,
    /// The configuration.
    pub config: &'a Config,
}

impl ContainerCrash<'_> {
    /// What the record says before anything is done.
    pub(crate) fn record(&self) -> Record {
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

    /// How many records its account may have.
    pub(crate) fn most_records(&self) -> u64 {
        Limits::nonzero(self.config.limits.records).unwrap_or(u64::MAX)
    }

    /// Counts the crash for `metrics`. The process has been let go by then.
    pub(crate) fn count(&self, record: &Record) {
        if let Some(Err(e)) = self.registry.map(|registry| CrashCounts::count(registry, record)) {
            log::warn!("this crash cannot be counted for `metrics`, ignoring: {e:#}");
        }
    }
}

/// The name of the crashed thread, for messages.
pub(crate) fn comm(crash: &Crash) -> String {
    printable(&crash.said.comm)
}
