//! Where the core of a record is now. What lies below a volume or a container's root is the container's: it is opened by descriptor, below a root that it
//! cannot leave.

use crate::record::{Outcome, Record};
use crate::registry::Registry;
use crate::sys::file;
use crate::sys::proc::{self, Proc};
use crate::sys::resolve::{self, Below};
use crate::sys::{Errno, OwnedFd, ns};
use serde::Serialize;
use std::fs::File;
use std::path::Path;

/// coredumpctl's column COREFILE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A whole core.
    Present,
    /// A short one.
    Truncated,
    /// There was one.
    Missing,
    /// Another file has its name now: the core of another crash, or what the container put there.
    Overwritten,
    /// It may be there, but we may not look.
    Inaccessible,
    /// There never was one.
    None,
}

impl State {
    /// The column's word.
    pub fn word(self) -> &'static str {
        match self {
            State::Present => "present",
            State::Truncated => "truncated",
            State::Missing => "missing",
            State::Overwritten => "overwritten",
            State::Inaccessible => "inaccessible",
            State::None => "none",
        }
    }
}

/// Opens the core of a record, or says why not. What has its name is its core only if it is the very
/// file that was written; records of before that was kept have no identity to look at.
pub fn core(record: &Record, registry: Option<&Registry>) -> Result<File, State> {
    let file = named(record, registry)?;
    match (&record.identity, file::identity(&file)) {
        (Some(own), Ok(found)) if !own.is_same_file(&found) => Err(State::Overwritten),
        (Some(_), Err(_)) => Err(State::Inaccessible),
        _ => Ok(file),
    }
}

/// What has the name of a record's core now, in words: the core of a later crash, or something else.
pub fn overwriter(record: &Record, registry: Option<&Registry>, all: &[Record]) -> String {
    let found = named(record, registry).ok().and_then(|file| file::identity(&file).ok());
    // The newest that says so: a name can have changed hands more than once.
    let later = found.and_then(|found| {
        all.iter()
            .rev()
            .filter(|r| r.time >= record.time && *r != record)
            .find(|r| r.identity.is_some_and(|id| id.is_same_file(&found)))
    });
    match later {
        Some(r) => format!("overwritten by the core of process {} of {}", r.pid, r.time),
        None => "overwritten by another file, which no record knows".into(),
    }
}

fn named(record: &Record, registry: Option<&Registry>) -> Result<File, State> {
    if record.outcome == Outcome::None {
        return Err(State::None);
    }
    let file = match (record.host_bytes(), record.core_bytes()) {
        (Some(path), _) => open_on_host(&path, record.host_dir.as_deref()),
        (None, Some(path)) => {
            let root = container_root(record, registry).ok_or(State::Missing)?;
            resolve::open_file_below(root, proc::os(&path), Below::InRoot)
        }
        (None, None) => return Err(State::Missing),
    };
    file.map_err(|e| {
        if matches!(e, Errno::ACCESS | Errno::PERM) { State::Inaccessible } else { State::Missing }
    })
}

/// Below the volume, names and links are the container's: they stay inside. Without a known volume no link is followed at all.
fn open_on_host(path: &[u8], dir: Option<&str>) -> Result<File, Errno> {
    let errno = |e: anyhow::Error| e.root_cause().downcast_ref().copied().unwrap_or(Errno::NOENT);
    let relative = |path: &[u8]| path[path.iter().take_while(|b| **b == b'/').count()..].to_vec();
    let below = dir.and_then(|d| Some((d, relative(path.strip_prefix(d.as_bytes())?))));
    match below {
        Some((dir, rest)) => resolve::open_file_below(
            file::open_dir(Path::new(dir)).map_err(errno)?,
            proc::os(&rest),
            Below::InRoot,
        ),
        None => resolve::open_file_below(
            file::open_dir(Path::new("/")).map_err(errno)?,
            proc::os(&relative(path)),
            Below::NoLinks,
        ),
    }
}

/// The root directory of a record's container that still runs: its init process is the registered one, seen through the same open /proc/PID.
pub fn container_root(record: &Record, registry: Option<&Registry>) -> Option<OwnedFd> {
    let id = &record.names.container_id;
    let entry = match record.user {
        Some(uid) => Registry::of_user(uid)?.get(id)?,
        None => registry?.get(id)?,
    };
    let init = Proc::open(entry.init.pid).ok()?;
    let root = init.directory("root").ok()?;
    // A user can name any process: only those in a namespace of his are his.
    let his = entry.user.is_none() || init.namespace("user").ok().and_then(ns::owner) == entry.user;
    (his && init.start_time().ok()? == entry.init.start_time).then_some(root)
}

/// Size in bytes.
pub fn size(core: &File) -> u64 {
    core.metadata().map_or(0, |m| m.len())
}

/// The word for the column.
pub fn state(record: &Record, core: &Result<File, State>) -> State {
    match core {
        Err(state) => *state,
        Ok(core)
            if record.outcome != Outcome::Written
                || record.truncated
                || record.size.is_some_and(|s| size(core) < s) =>
        {
            State::Truncated
        }
        Ok(_) => State::Present,
    }
}
