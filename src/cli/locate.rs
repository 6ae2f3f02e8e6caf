//! Finds the core of a record and its state now. Everything below a volume or a container's root is
//! under the container's control: it is opened by descriptor, below a root that it cannot leave.

use crate::record::{Outcome, Owner, Record};
use crate::registry::Registry;
use crate::sys::file;
use crate::sys::proc::{self, Proc};
use crate::sys::resolve::{self, Below};
use crate::sys::{Errno, OwnedFd, child, descriptor, ns};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

/// State of a core: coredumpctl's column COREFILE, with further values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// The core is complete.
    Present,
    /// The core is there but incomplete.
    Truncated,
    /// There was a core, but it is gone.
    Missing,
    /// Another file has its name: the core of another crash, or a file that the container put
    /// there.
    Overwritten,
    /// It may be there, but this user may not look.
    Inaccessible,
    /// The file system that it is on does not answer.
    Unreachable,
    /// Another process holds a lease on it (fcntl(2), `F_SETLEASE`), which can delay an open for
    /// `fs.lease-break-time` seconds.
    Leased,
    /// It was in the container's own layer or memory, or in a volume that its engine has removed
    /// with it.
    #[serde(rename = "removed with its container")]
    WithContainer,
    /// It was in the memory of the pod, which has gone.
    #[serde(rename = "removed with its pod")]
    WithPod,
    /// No core was written.
    None,
}

impl State {
    /// The word in the column.
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Present => "present",
            State::Truncated => "truncated",
            State::Missing => "missing",
            State::Overwritten => "overwritten",
            State::Inaccessible => "inaccessible",
            State::Unreachable => "unreachable",
            State::Leased => "leased",
            State::WithContainer => "removed with its container",
            State::WithPod => "removed with its pod",
            State::None => "none",
        }
    }
}

/// What is known of a core without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its state.
    pub state: State,
    /// Its size now in bytes, if it can be opened.
    pub size: Option<u64>,
}

/// How long the file system of a core may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Finds the states of the records' cores, in a child process: the file system of a container's
/// volume may have lost its server, and a process that waits for it cannot even be killed. After a
/// volume has not answered, nothing else on it is tried.
///
/// # Errors
/// The child cannot be started.
pub(super) fn look(records: &[Record], registry: Option<&Registry>) -> anyhow::Result<Vec<Seen>> {
    let mut all = Vec::new();
    let mut silent = BTreeSet::new();
    while all.len() < records.len() {
        let rest = &records[all.len()..];
        let (read, write) = descriptor::pipe()?;
        let child = child::fork(|| {
            let mut out = File::from(write);
            for record in rest {
                let seen = match silent.contains(&volume(record)) {
                    true => Seen { state: State::Unreachable, size: None },
                    false => look_at(record, registry),
                };
                let line = [&[seen.state as u8], &seen.size.unwrap_or(u64::MAX).to_ne_bytes()[..]];
                if out.write_all(&line.concat()).is_err() {
                    return 1;
                }
            }
            0
        })?;
        let mut pipe = File::from(read);
        while all.len() < records.len() {
            let mut line = [0; 9];
            let has_come = descriptor::wait_readable(&pipe, Some(PATIENCE))?;
            if !has_come || pipe.read_exact(&mut line).is_err() {
                silent.insert(volume(&records[all.len()]));
                all.push(Seen { state: State::Unreachable, size: None });
                break;
            }
            let size = u64::from_ne_bytes(line[1..].try_into().unwrap_or_default());
            let state = ALL[usize::from(line[0]).min(ALL.len() - 1)];
            all.push(Seen { state, size: (size != u64::MAX).then_some(size) });
        }
        drop(pipe);
        child.end_now()?;
    }
    Ok(all)
}

/// The states by the numbers that the child reports.
const ALL: [State; 10] = [
    State::Present,
    State::Truncated,
    State::Missing,
    State::Overwritten,
    State::Inaccessible,
    State::Unreachable,
    State::Leased,
    State::WithContainer,
    State::WithPod,
    State::None,
];

fn look_at(record: &Record, registry: Option<&Registry>) -> Seen {
    let core = core(record, registry);
    Seen { state: state(record, &core), size: core.as_ref().ok().map(size) }
}

/// The directory whose file system must answer for this record's core.
fn volume(record: &Record) -> &str {
    record.host_dir.as_deref().unwrap_or(&record.names.container_id)
}

/// Opens the core of a record, if its file system answers.
///
/// # Errors
/// The state of a core that cannot be opened.
pub(super) fn open(record: &Record, registry: Option<&Registry>) -> Result<File, State> {
    match look(std::slice::from_ref(record), registry).as_deref() {
        Ok([Seen { state: State::Unreachable, .. }]) | Err(_) => Err(State::Unreachable),
        _ => core(record, registry),
    }
}

/// Opens the core of a record, or returns why not. A file of that name is the core only if it is
/// the very file that was written. Old records have no identity to compare.
fn core(record: &Record, registry: Option<&Registry>) -> Result<File, State> {
    let file = named(record, registry).map_err(|state| match state {
        State::Missing => gone_with(record, registry),
        other => other,
    })?;
    match (&record.identity, file::identity(&file)) {
        (Some(own), Ok(found)) if !own.is_same_file(&found) => Err(State::Overwritten),
        (Some(_), Err(_)) => Err(State::Inaccessible),
        // A path that a user claims could be any file of the host.
        (None, _) if record.user.is_some() => Err(State::Inaccessible),
        _ => Ok(file),
    }
}

/// Describes the file that has the name of a record's core now: the core of a later
/// crash, or something else.
pub(super) fn overwriter(record: &Record, registry: Option<&Registry>, all: &[Record]) -> String {
    let found = named(record, registry).ok().and_then(|file| file::identity(&file).ok());
    // The newest record that matches: a name can be taken over more than once.
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

/// What a core that is not found has gone with, if it did not outlive that.
fn gone_with(record: &Record, registry: Option<&Registry>) -> State {
    // The kubelet removes a volume's directory with the pod.
    let is_there = || record.host_dir.as_ref().is_some_and(|dir| Path::new(dir).exists());
    match record.location.goes_with() {
        Some(Owner::Container) if container_root(record, registry).is_none() => {
            State::WithContainer
        }
        Some(Owner::Pod) if !is_there() => State::WithPod,
        _ => State::Missing,
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
    file.map_err(|e| match e {
        Errno::ACCESS | Errno::PERM => State::Inaccessible,
        Errno::WOULDBLOCK => State::Leased,
        _ => State::Missing,
    })
}

/// Opens a core on the host. Names and links below the volume `dir` are under the container's
/// control and cannot lead out of it. Without a known volume no link is followed at all.
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

/// The root directory of a record's container, if that still runs: its init process must be the
/// registered one, seen through one opened /proc/PID.
pub(super) fn container_root(record: &Record, registry: Option<&Registry>) -> Option<OwnedFd> {
    let id = &record.names.container_id;
    let entry = match record.user {
        Some(uid) => Registry::of_user(uid)?.get(id)?,
        None => registry?.get(id)?,
    };
    let init = Proc::open(entry.init.pid).ok()?;
    let root = init.directory("root").ok()?;
    // A user can name any process; only one in a namespace of that user is accepted.
    let his = entry.user.is_none() || init.namespace("user").ok().and_then(ns::owner) == entry.user;
    (his && init.start_time().ok()? == entry.init.start_time).then_some(root)
}

/// Size in bytes, 0 if it cannot be read.
pub(super) fn size(core: &File) -> u64 {
    core.metadata().map_or(0, |m| m.len())
}

/// The state of a record's core, given the result of opening it.
pub(super) fn state(record: &Record, core: &Result<File, State>) -> State {
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
