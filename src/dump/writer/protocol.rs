//! What the writer tells its parent.

use crate::dump::policy::quota::Refusal;
use crate::sys::file::Identity;
use crate::sys::{AsFd, BorrowedFd, OwnedFd, process};
use serde::{Deserialize, Serialize};
use std::io::Write;

/// What became of the file. The child tells it as a line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Whether the file was made.
    pub created: bool,
    /// Size in bytes, once it is known.
    pub size: Option<u64>,
    /// Bytes on disk, likewise.
    pub disk_size: Option<u64>,
    /// Device and inode number.
    pub id: Option<(u64, u64)>,
    /// Whether it is on a memory-backed file system.
    pub memory: bool,
    /// Why it is short, or was not made.
    pub reason: Option<String>,
    /// Whether the process has been let go.
    #[serde(default)]
    pub released: bool,
    /// Nothing was read yet: an early release is not for this target.
    #[serde(default)]
    pub again: bool,
    /// Whether this is the writer's last word.
    #[serde(default)]
    pub done: bool,
    /// Which limit acted, and its value.
    #[serde(default)]
    pub limit: Option<String>,
    /// Cores of the container that are not there any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Identity>,
    /// Cores in the host's store that have to go for this one: the parent's to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goes: Vec<Identity>,
    /// What tells the file from others, once it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// What went wrong and does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The target was given up: it must not be touched again.
    #[serde(skip)]
    pub given_up: bool,
    /// The writer could not even be killed: it hangs in the target, with the kernel's pipe.
    #[serde(skip)]
    pub stuck: bool,
}

/// What the parent may do while the writer works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The writer has started, and will make the file when this has been dealt with.
    Started,
    /// The file is made: these cores in the host's store have to go for it.
    Goes(Vec<Identity>),
    /// The process has been let go before its core is whole.
    Released,
}

impl Written {
    /// A limit acted.
    pub fn refused(refusal: Refusal) -> Self {
        Written {
            reason: Some(refusal.reason),
            limit: Some(refusal.limit),
            done: true,
            ..Written::default()
        }
    }
}

/// The writer's words to its parent.
pub struct Report(std::fs::File);

impl Report {
    /// Over the end of a pipe.
    pub fn over(pipe: OwnedFd) -> Self {
        Report(pipe.into())
    }

    /// Until the parent has closed its end, or is gone.
    pub fn wait_until_unheard(&self) {
        // There is never anything to read at this end: it ends with an error.
        let _ = process::wait_readable(&self.0, None);
    }

    /// A report that cannot be delivered has nobody left to read it.
    pub fn say(&mut self, written: &Written) {
        let mut line = serde_json::to_vec(written).unwrap_or_default();
        line.push(b'\n');
        let _ = self.0.write_all(&line);
    }
}

impl AsFd for Report {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
