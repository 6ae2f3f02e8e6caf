//! What is known of one crash of a registered container, also when there is no core; crashes
//! without a core beyond a few in a minute are counted in one record.

use crate::sys::file::Identity;
use crate::sys::proc::printable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Where a core lands, which decides how long it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Location {
    /// A volume that the container mounts: it stays when the container goes.
    Volume,
    /// The host's store, bind-mounted into the container: it stays.
    Store,
    /// Memory-backed (tmpfs): it goes away with the container, and counts as its memory.
    Memory,
    /// The container's own layer: it goes away with the container.
    #[default]
    Layer,
}

impl Location {
    /// Whether the core goes away with the container.
    pub fn is_lost_with_container(self) -> bool {
        matches!(self, Location::Memory | Location::Layer)
    }
}

/// What became of the core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Being written; a record that keeps saying so belongs to a helper that was killed.
    #[default]
    Started,
    /// Whole.
    Written,
    /// A file is there, but it is short.
    Truncated,
    /// No file.
    None,
}

/// Who a container is, in the words of its engine. Empty where nobody said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Container ID, from the runtime.
    pub container_id: String,
    /// Container name.
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
    /// The longest name that is kept, in bytes: image references have no other bound.
    const LONGEST: usize = 1024;

    /// Cuts what is longer: whoever wrote it would have records made that nobody reads.
    pub fn bounded(mut self) -> Self {
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

/// One crash, one flat JSON object. Strings from the container that are not plain
/// text are escaped (`\xff`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When the dump started, RFC 3339 in UTC.
    pub time: String,
    /// The container.
    #[serde(flatten)]
    pub names: Names,
    /// The user of the host whose container it was, where that is not root's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// For whom the crash counts: what stays the same when the container is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// PID in the crasher's own PID namespace.
    pub pid: i32,
    /// PID on the host.
    pub host_pid: i32,
    /// Crashing thread, own PID namespace.
    pub tid: i32,
    /// Crashing thread on the host.
    pub host_tid: i32,
    /// Signal number.
    pub signal: i32,
    /// Signal name, `SIGSEGV`.
    pub signal_name: String,
    /// comm of the crashing thread, as core(5)'s `%e` gives it (`/` as `!`).
    pub comm: String,
    /// Path of the executable inside the container.
    pub exe: String,
    /// Real user ID on the host.
    pub uid: u32,
    /// Real group ID on the host.
    pub gid: u32,
    /// Dump mode: 1 normal, 2 set-user-ID.
    pub dump_mode: u32,
    /// The container's pattern.
    pub pattern: String,
    /// Path of the core inside the container.
    pub core_path: Option<String>,
    /// Path of the core on the host, where one is known.
    pub host_path: Option<String>,
    /// The host's directory at the head of `host_path` that the container saw: the administrator's
    /// down to here, the container's below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_dir: Option<String>,
    /// The bytes of `core_path` in hexadecimal, where it is not that text itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_path_hex: Option<String>,
    /// The same of `host_path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path_hex: Option<String>,
    /// On what the core is.
    pub location: Location,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Bytes on disk.
    pub disk_size: Option<u64>,
    /// Which file the core is: what has its name later may be the core of another crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Whether the file is short, or still may be.
    pub truncated: bool,
    /// What became of the core.
    pub outcome: Outcome,
    /// How long it took to write the core, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// When the process was let go, where that was before its core was whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<String>,
    /// When the core was whole, where the process was let go before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// Which limit of the configuration or the annotation acted, and its value: `stall = 30`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// The executable and the libraries that were mapped, as far as the process itself could read
    /// them: their paths in the container, and under which names they are kept in the store. No
    /// others of the store belong to this core.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binaries: BTreeMap<String, String>,
    /// How many crashes this record stands for, where it is more than one: refused crashes of one
    /// kind are counted. `time` is when the first one was, the rest of the record is of that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// When the last of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// Why there is no core, or why it is short; also what the reader should know of a whole one.
    pub reason: Option<String>,
}

impl Record {
    /// How many crashes this record stands for.
    pub fn crashes(&self) -> u64 {
        self.count.unwrap_or(1)
    }

    /// Says where the core is, inside the container and on the host.
    pub fn set_paths(&mut self, core: Option<&[u8]>, host: Option<&[u8]>) {
        (self.core_path, self.core_path_hex) = text_and_hex(core);
        (self.host_path, self.host_path_hex) = text_and_hex(host);
    }

    /// The path of the core inside the container, byte for byte.
    pub fn core_bytes(&self) -> Option<Vec<u8>> {
        bytes(self.core_path.as_ref(), self.core_path_hex.as_ref())
    }

    /// The path of the core on the host, byte for byte.
    pub fn host_bytes(&self) -> Option<Vec<u8>> {
        bytes(self.host_path.as_ref(), self.host_path_hex.as_ref())
    }
}

fn text_and_hex(path: Option<&[u8]>) -> (Option<String>, Option<String>) {
    let text = path.map(printable);
    let same = text.as_ref().map(String::as_bytes) == path;
    (text, path.filter(|_| !same).map(|p| p.iter().map(|b| format!("{b:02x}")).collect()))
}

fn bytes(text: Option<&String>, hex: Option<&String>) -> Option<Vec<u8>> {
    let Some(hex) = hex else { return text.map(|t| t.as_bytes().to_vec()) };
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok()).collect()
}

/// The one line of the log.
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
                write!(f, ", core {path} ({} bytes)", self.size.unwrap_or(0))
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

/// The name of a signal whose action is Core; others, which only a newer
/// kernel would send, by number.
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        11 => "SIGSEGV",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back() {
        for path in [
            &b"/d/core"[..],
            b"/d/c\xff\xfe",
            b"/d/a\nb",
            b"/d/literal\\xff",
            "/d/\u{e9}".as_bytes(),
            b"",
        ] {
            let mut record = Record::default();
            record.set_paths(Some(path), Some(path));
            let text = serde_json::to_string(&record).unwrap();
            let again: Record = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (again.core_bytes().as_deref(), again.host_bytes().as_deref()),
                (Some(path), Some(path)),
                "{text}"
            );
            assert_eq!(
                text.contains("_hex"),
                record.core_path.as_ref().unwrap().as_bytes() != path,
                "{text}"
            );
        }
        assert_eq!(Record::default().core_bytes(), None);
    }
}
