//! What is known about one crash of a registered container, including crashes without a core.
//! Beyond a few a minute, crashes without a core are counted in one record.

mod paths;
mod schema;
mod signal;

pub(crate) use schema::Schema;
pub(crate) use signal::signal_name;

use crate::cause::{Cause, CauseCode};
use crate::config::KeptMemory;
use crate::sys::file::FileIdentity;
use paths::{bytes, text_and_hex};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Storage location of a core, which determines how long it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) enum Location {
    /// A volume that the container mounts: kept when the container is removed.
    Volume,
    /// The host's store, which is bind-mounted into the container: kept.
    Store,
    /// A volume that its engine removes with the container: an anonymous one of a container that
    /// is removed when it ends, or one whose upper layer is the container's.
    #[serde(rename = "own volume")]
    OwnVolume,
    /// Memory (tmpfs): removed with the container, and counted as the container's memory.
    Memory,
    /// Memory of the pod (an emptyDir of medium Memory): removed with the pod, and counted as the
    /// container's memory.
    #[serde(rename = "pod memory")]
    PodMemory,
    /// The container's own writable layer: removed with the container.
    #[default]
    Layer,
}

impl Location {
    /// What takes the core away with it when it is removed; `None` if the core stays until it is
    /// removed itself.
    pub(crate) fn goes_with(self) -> Option<Owner> {
        match self {
            Location::OwnVolume | Location::Memory | Location::Layer => Some(Owner::Container),
            Location::PodMemory => Some(Owner::Pod),
            Location::Volume | Location::Store => None,
        }
    }

    /// Whether the core is removed with the container.
    pub(crate) fn is_lost_with_container(self) -> bool {
        self.goes_with() == Some(Owner::Container)
    }

    /// The word for it in a record.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Location::Volume => "volume",
            Location::Store => "store",
            Location::OwnVolume => "own volume",
            Location::Memory => "memory",
            Location::PodMemory => "pod memory",
            Location::Layer => "layer",
        }
    }
}

/// What takes a core with it when it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The container.
    Container,
    /// Its pod.
    Pod,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Owner::Container => "container",
            Owner::Pod => "pod",
        })
    }
}

/// The result of a dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) enum Outcome {
    /// The core is being written. A record that stays in this state is of a helper that was killed.
    #[default]
    Started,
    /// The core is complete.
    Written,
    /// There is a file, but it is incomplete.
    Truncated,
    /// There is no file.
    None,
}

impl Outcome {
    /// The word for it in a record.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Outcome::Started => "started",
            Outcome::Written => "written",
            Outcome::Truncated => "truncated",
            Outcome::None => "none",
        }
    }
}

/// The container's names, as its engine gave them. Absent where the engine gave none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Names {
    /// Container ID, from the runtime's state.
    pub container_id: String,
    /// Container name within the pod or the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Pod name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// Pod namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// Image reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl Names {
    /// Longest name that is kept, in bytes. An image reference has no bound of its own.
    const LONGEST: usize = 1024;

    /// Whether a user means this container by `word`: its name, `pod/name`, `namespace/pod/name`,
    /// podman's name for one in a pod (`pod-name`), or the beginning of its ID.
    pub(crate) fn is_called(&self, word: &str) -> bool {
        let Some(name) = &self.container_name else { return self.container_id.starts_with(word) };
        let pod = self.pod_name.as_deref().unwrap_or_default();
        let in_pod = |between: &str| {
            let rest = word.strip_prefix(pod).and_then(|rest| rest.strip_prefix(between));
            !pod.is_empty() && rest == Some(name)
        };
        let in_namespace = || {
            let rest = word.strip_prefix(self.pod_namespace.as_deref()?)?.strip_prefix('/')?;
            rest.strip_prefix(pod)?.strip_prefix('/').map(|rest| rest == name)
        };
        name == word
            || in_pod("/")
            || in_pod("-")
            || in_namespace() == Some(true)
            || self.container_id.starts_with(word)
    }

    /// Cuts names longer than 1024 bytes: whoever wrote them could otherwise cause
    /// records too long to be read.
    pub(crate) fn bounded(mut self) -> Self {
        let all = [
            &mut self.container_name,
            &mut self.pod_name,
            &mut self.pod_namespace,
            &mut self.image,
        ];
        for name in all.into_iter().flatten() {
            let mut end = name.len().min(Self::LONGEST);
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            name.truncate(end);
        }
        self
    }
}

/// One crash as a flat JSON object. Strings from the container that are not plain
/// text are escaped (`\xff`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Record {
    /// The version of the record's schema: 1. Records of earlier versions have none.
    #[serde(default)]
    pub schema: Schema,
    /// When the dump started, RFC 3339 in UTC.
    pub time: String,
    /// The names of the container.
    #[serde(flatten)]
    pub names: Names,
    /// The host user who runs the container, if that is not root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// The account that limits, quotas and records of the crash count for: user, container of a
    /// pod, volume and pattern, or container ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The UID of its pod, if a kubelet placed it in that pod's cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// PID in the crasher's own PID namespace.
    pub pid: i32,
    /// PID on the host.
    pub host_pid: i32,
    /// Crashing thread's ID in its own PID namespace.
    pub tid: i32,
    /// Crashing thread's ID on the host.
    pub host_tid: i32,
    /// Signal number.
    pub signal: i32,
    /// Signal name, such as `SIGSEGV`.
    pub signal_name: String,
    /// comm of the crashing thread, as core(5)'s `%e` gives it (`/` as `!`).
    pub comm: String,
    /// Path of the executable inside the container.
    pub exe: String,
    /// Real user ID on the host.
    pub uid: u32,
    /// Real group ID on the host.
    pub gid: u32,
    /// Dump mode: 1 normal; 2: the core is for root only (`fs.suid_dumpable = 2`).
    pub dump_mode: u32,
    /// The pattern that the container requested.
    pub pattern: String,
    /// Path of the core inside the container.
    pub core_path: Option<String>,
    /// Path of the core on the host, if known.
    pub host_path: Option<String>,
    /// The leading directory of `host_path`, up to where the container's view begins: the
    /// administrator controls the path down to it, the container what is below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_dir: Option<String>,
    /// The bytes of `core_path` in hexadecimal, if they are not plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_path_hex: Option<String>,
    /// The bytes of `host_path` in hexadecimal, if they are not plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path_hex: Option<String>,
    /// Storage location of the core.
    pub location: Location,
    /// Size of the core in bytes.
    pub size: Option<u64>,
    /// Bytes that the core takes on disk.
    pub disk_size: Option<u64>,
    /// Identity of the core's file. A later file of the same name may be the core of another crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<FileIdentity>,
    /// How much of the memory the core keeps, if not all that was to be dumped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<KeptMemory>,
    /// Size in bytes of the core with all of the memory, if it keeps less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_size: Option<u64>,
    /// Whether the file is incomplete, or may still turn out so.
    pub truncated: bool,
    /// The result of the dump.
    pub outcome: Outcome,
    /// How long writing the core took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// When the process was released, if that was before its core was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<String>,
    /// When the core was complete, if the process was released before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// The limit of the configuration or the annotation that took effect,
    /// with its value: `stall = 30`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// The mapped executable and libraries that the process itself could read: path in the
    /// container, and the name under which the file is kept in the store. No other files of the
    /// store belong to this core.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binaries: BTreeMap<String, String>,
    /// They are still being found and copied. A helper that was killed leaves it so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeping: bool,
    /// Where it crashed, the innermost function first: `function (file:line)`, or
    /// `module+0xoffset`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<String>,
    /// A hash of the signal and the innermost functions: the same for the same crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_hash: Option<String>,
    /// The core was not read for the two fields above, since so many others of its account were:
    /// `info` says where it crashed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub summary_left_out: bool,
    /// How many crashes this record stands for, if more than one: refused crashes of one kind are
    /// counted. `time` and all other fields are those of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// When the last of them happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// `false`: its container does not want it uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<bool>,
    /// Where it was uploaded. Not in the record's file: `oci-coredump-ship` keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded: Option<Uploaded>,
    /// Why there is no core, or why it is incomplete, in one word. Records that older versions
    /// wrote have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<CauseCode>,
    /// The same in prose; also remarks on a complete core.
    pub reason: Option<String>,
}

/// An uploaded core, bundle or record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Uploaded {
    /// Where it is.
    pub url: String,
    /// When it was there, RFC 3339 in UTC.
    pub time: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

impl Record {
    /// How many crashes this record stands for.
    pub(crate) fn crashes(&self) -> u64 {
        self.count.unwrap_or(1)
    }

    /// Sets why there is no core, or why it is incomplete.
    pub(crate) fn set_cause(&mut self, cause: Option<&Cause>) {
        self.cause = cause.map(Cause::code);
        self.limit = cause.and_then(Cause::acted);
        self.reason = cause.map(Cause::to_string);
    }

    /// Sets the paths of the core inside the container and on the host.
    pub(crate) fn set_paths(&mut self, core: Option<&[u8]>, host: Option<&[u8]>) {
        (self.core_path, self.core_path_hex) = text_and_hex(core);
        (self.host_path, self.host_path_hex) = text_and_hex(host);
    }

    /// `SIGSEGV in shop::Basket::sum (crash.cpp:9) <- main`, if it is known where it crashed.
    pub(crate) fn crashed_in(&self) -> Option<String> {
        const SHOWN: usize = 3;
        let shown = &self.stack[..self.stack.len().min(SHOWN)];
        (!shown.is_empty()).then(|| format!("{} in {}", self.signal_name, shown.join(" <- ")))
    }

    /// The path of the core inside the container, as bytes.
    pub(crate) fn core_bytes(&self) -> Option<Vec<u8>> {
        bytes(self.core_path.as_ref(), self.core_path_hex.as_ref())
    }

    /// The path of the core on the host, as bytes.
    pub(crate) fn host_bytes(&self) -> Option<Vec<u8>> {
        bytes(self.host_path.as_ref(), self.host_path_hex.as_ref())
    }
}

/// The line for the log.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container {}", self.names.container_id)?;
        if let Some(uid) = self.user {
            write!(f, " of user {uid}")?;
        }
        write!(f, ": process {} ({}) died of {}", self.pid, self.comm, self.signal_name)?;
        match (self.outcome, &self.core_path) {
            (Outcome::Started, _) => write!(f, ", dumping core"),
            (Outcome::Written, Some(path)) => {
                write!(f, ", core {path} ({} bytes", self.size.unwrap_or(0))?;
                match (self.keep, self.full_size) {
                    (Some(keep), Some(full)) => write!(f, ", {} of {full})", keep.as_str()),
                    _ => write!(f, ")"),
                }
            }
            (Outcome::Truncated, Some(path)) => match self.size {
                Some(size) => write!(f, ", core {path} truncated at {size} bytes"),
                None => write!(f, ", core {path} truncated"),
            },
            _ => write!(f, ", no core"),
        }?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}
