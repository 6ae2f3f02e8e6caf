//! What has happened since the boot: crashes by namespace, container, signal, outcome and cause,
//! and how long their dumps took. They only grow, whatever becomes of the records.
//!
//! A file in the run directory, which needs no disk. It is replaced as a whole, under a lock that
//! is held for about a millisecond; a crash that does not get it in a second is not counted. The
//! file starts anew at a boot, as counters of a process do.

use crate::cause::CauseCode;
use crate::record::{Outcome, Record};
use crate::registry::Registry;
use crate::sys::file::{self, JsonFile};
use crate::sys::text;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The file, and the one whose lock its writers take.
const FILE: JsonFile = JsonFile("crash-counts.json", 1 << 20);
const LOCK: &str = "crash-counts.lock";

/// How long others may have the lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most sets of labels, and most of one namespace. Crashes beyond them are counted under
/// [`OTHER`], first as the container, then as the namespace too.
const MOST: usize = 512;
const MOST_OF_NAMESPACE: usize = 128;

/// Longest label of a container's or namespace's name, in bytes.
const LONGEST: usize = 128;

/// What is counted together because it is too much, or not to be trusted.
const OTHER: &str = "other";

/// Upper bounds of the histogram, in seconds.
pub(crate) const SECONDS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// What a crash is counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Labels {
    /// Namespace of the pod, empty where the engine has none.
    pub namespace: String,
    /// Name of the container, empty where the engine gave none.
    pub container: String,
    /// Name of the signal: `SIGSEGV`.
    pub signal: String,
    /// [`Outcome::as_str`].
    pub outcome: String,
    /// [`CauseCode::as_str`]; `none` of a whole core.
    pub cause: String,
}

impl Labels {
    /// The labels of a crash. What users who are not root say of their containers does not count:
    /// one of them could use up all sets.
    fn of(record: &Record) -> Self {
        let name = |name: &Option<String>| match record.user {
            Some(_) => OTHER.to_owned(),
            None => text::head(name.as_deref().unwrap_or(""), LONGEST),
        };
        Labels {
            namespace: name(&record.names.pod_namespace),
            container: name(&record.names.container_name),
            signal: signal(&record.signal_name).to_owned(),
            outcome: record.outcome.as_str().to_owned(),
            cause: cause(record).to_owned(),
        }
    }
}

/// The record's cause in one word: `none` of a whole core, `unknown` where the record says none.
pub(crate) fn cause(record: &Record) -> &'static str {
    match (record.outcome, record.cause) {
        (Outcome::Written, _) => "none",
        (_, cause) => cause.map_or("unknown", CauseCode::as_str),
    }
}

/// The signal as a label. Labels have few values, and none that a container could choose.
pub(crate) fn signal(name: &str) -> &str {
    let is_name = name.len() < 12
        && name.starts_with("SIG")
        && name.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_name { name } else { OTHER }
}

/// Crashes with the same labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// What they are counted by.
    #[serde(flatten)]
    pub labels: Labels,
    /// How many.
    pub crashes: u64,
}

/// All that is counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CrashCounts {
    /// The crashes, each with an own set of labels.
    pub crashes: Vec<Counted>,
    /// Dumps by their duration: those up to each of [`SECONDS`] and above the bound before it, and
    /// last those above all bounds.
    pub durations: [u64; SECONDS.len() + 1],
    /// The sum of their durations, in seconds.
    pub seconds: f64,
}

impl CrashCounts {
    /// Counts one crash. Pure.
    pub(crate) fn add(&mut self, record: &Record) {
        let labels = self.bounded(Labels::of(record));
        match self.crashes.iter_mut().find(|counted| counted.labels == labels) {
            Some(counted) => counted.crashes += 1,
            None => self.crashes.push(Counted { labels, crashes: 1 }),
        }
        if let Some(seconds) = record.seconds.filter(|_| record.outcome != Outcome::None) {
            self.durations[SECONDS.partition_point(|bound| *bound < seconds)] += 1;
            self.seconds += seconds;
        }
    }

    /// These labels, if they are known or there is room for them; else others in their place.
    fn bounded(&self, labels: Labels) -> Labels {
        let is_known = |labels: &Labels| self.crashes.iter().any(|c| c.labels == *labels);
        let beside = self.crashes.iter().filter(|c| c.labels.namespace == labels.namespace).count();
        let has_room = self.crashes.len() < MOST;
        if is_known(&labels) || has_room && beside < MOST_OF_NAMESPACE {
            return labels;
        }
        let labels = Labels { container: OTHER.to_owned(), ..labels };
        if is_known(&labels) || has_room {
            return labels;
        }
        Labels { namespace: OTHER.to_owned(), ..labels }
    }

    /// Reads what was counted. What is missing or damaged counts as nothing.
    pub(crate) fn read(registry: &Registry) -> Self {
        FILE.read(registry.dir())
    }

    /// Counts one crash in the registry's directory.
    ///
    /// # Errors
    /// It could not be counted.
    pub(crate) fn count(registry: &Registry, record: &Record) -> Result<()> {
        let lock = file::open_lock(registry.dir(), LOCK.as_ref())?;
        ensure!(file::lock_within(&lock, PATIENCE)?, "{LOCK} is locked by another process");
        let mut counts = Self::read(registry);
        counts.add(record);
        FILE.replace(registry.dir(), &counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::Cause;
    use crate::record::Names;

    fn record(namespace: &str, container: &str) -> Record {
        let names = Names {
            pod_namespace: Some(namespace.into()),
            container_name: Some(container.into()),
            ..Names::default()
        };
        let signal_name = "SIGSEGV".into();
        Record { names, signal_name, outcome: Outcome::Written, ..Record::default() }
    }

    #[test]
    fn crashes_and_durations_add_up() {
        let mut counts = CrashCounts::default();
        let mut refused = record("shop", "web");
        // It took that long to find out, but there is no file.
        (refused.outcome, refused.seconds) = (Outcome::None, Some(0.001));
        refused.set_cause(Some(&Cause::SetUserId));
        for seconds in [0.005, 0.0051, 1000.0] {
            counts.add(&Record { seconds: Some(seconds), ..record("shop", "web") });
        }
        counts.add(&refused);
        assert_eq!((counts.crashes[0].crashes, counts.crashes[1].crashes), (3, 1));
        assert_eq!(counts.crashes[0].labels.cause, "none");
        assert_eq!(counts.crashes[1].labels.cause, "set-user-id");
        assert_eq!((counts.durations[0], counts.durations[1], counts.durations[15]), (1, 1, 1));
        assert_eq!(counts.durations.iter().sum::<u64>(), 3);
        assert!((counts.seconds - 1000.0101).abs() < 1e-9);
        let text = serde_json::to_vec(&counts).unwrap();
        assert_eq!(serde_json::from_slice::<CrashCounts>(&text).unwrap(), counts);
    }

    #[test]
    fn sets_of_labels_are_bounded_and_no_crash_is_lost() {
        let mut counts = CrashCounts::default();
        for namespace in 0..50 {
            for container in 0..200 {
                counts.add(&record(&format!("n{namespace}"), &format!("c{container}")));
            }
        }
        let all: u64 = counts.crashes.iter().map(|c| c.crashes).sum();
        assert_eq!(all, 50 * 200);
        assert_eq!(counts.crashes.len(), MOST + 1);
        let of = |namespace: &str, container: &str| {
            let is =
                |c: &&Counted| c.labels.namespace == namespace && c.labels.container == container;
            counts.crashes.iter().find(is).map(|c| c.crashes)
        };
        assert_eq!((of("n0", "c0"), of("n0", "c127"), of("n0", "c128")), (Some(1), Some(1), None));
        assert_eq!(of("n0", OTHER), Some(72));
        assert!(of(OTHER, OTHER).is_some_and(|crashes| crashes > 9000), "{:?}", of(OTHER, OTHER));
        assert!(serde_json::to_vec(&counts).unwrap().len() < FILE.1);
    }

    #[test]
    fn the_largest_file_can_be_read() {
        let mut counts = CrashCounts::default();
        let long = "\u{1}".repeat(4 * LONGEST);
        for n in 0..2 * MOST {
            counts.add(&record(&format!("{n}{long}"), &format!("{n}{long}")));
        }
        assert!(serde_json::to_vec(&counts).unwrap().len() < FILE.1);
    }

    #[test]
    fn what_a_user_or_a_container_chooses_is_no_label() {
        let labels = Labels::of(&Record { user: Some(1000), ..record("shop", "web") });
        assert_eq!((labels.namespace.as_str(), labels.container.as_str()), (OTHER, OTHER));
        assert_eq!(
            (signal("SIGSEGV"), signal("signal 60"), signal("SIG\"}")),
            ("SIGSEGV", OTHER, OTHER)
        );
    }
}
