//! Finds the core of a record and its state now. Everything below a volume or a container's root is
//! under the container's control: it is opened by descriptor, below a root that it cannot leave.

use super::overwriter::{Overwriter, Overwriters};
use crate::record::{Outcome, Owner, Record};
use crate::registry::Registry;
use crate::sys::file::{self, FileIdentity};
use crate::sys::proc::{self, Proc};
use crate::sys::resolve::{self, Below};
use crate::sys::{Errno, OwnedFd, child, descriptor, ns};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

/// State of a core: coredumpctl's column COREFILE, with further values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) enum CoreStatus {
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

impl CoreStatus {
    /// The word in the column.
    pub(super) fn word(self) -> &'static str {
        match self {
            CoreStatus::Present => "present",
            CoreStatus::Truncated => "truncated",
            CoreStatus::Missing => "missing",
            CoreStatus::Overwritten => "overwritten",
            CoreStatus::Inaccessible => "inaccessible",
            CoreStatus::Unreachable => "unreachable",
            CoreStatus::Leased => "leased",
            CoreStatus::WithContainer => "removed with its container",
            CoreStatus::WithPod => "removed with its pod",
            CoreStatus::None => "none",
        }
    }
}

impl From<(CoreStatus, Option<&Overwriter>)> for CoreStatus {
    fn from((state, _): (CoreStatus, Option<&Overwriter>)) -> Self {
        state
    }
}

/// What is known of a core without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub state: CoreStatus,
    /// Its size now in bytes, if it can be opened.
    pub size: Option<u64>,
    /// The file that has its name, if that is another one, or the record does not say which it is.
    pub stranger: Option<FileIdentity>,
}

impl Seen {
    const UNREACHABLE: Self = Seen { state: CoreStatus::Unreachable, size: None, stranger: None };

    /// As the child writes it: a line of JSON, in one piece, which a pipe does not divide.
    fn line(self) -> anyhow::Result<Vec<u8>> {
        Ok([serde_json::to_vec(&self)?, b"\n".to_vec()].concat())
    }
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
                    true => Seen::UNREACHABLE,
                    false => look_at(record, registry),
                };
                if seen.line().and_then(|line| Ok(out.write_all(&line)?)).is_err() {
                    return 1;
                }
            }
            0
        })?;
        let mut pipe = BufReader::new(File::from(read));
        while all.len() < records.len() {
            let has_come = !pipe.buffer().is_empty()
                || descriptor::wait_readable(pipe.get_ref(), Some(PATIENCE))?;
            let mut line = String::new();
            if has_come {
                pipe.read_line(&mut line)?;
            }
            let Ok(seen) = serde_json::from_str(&line) else {
                silent.insert(volume(&records[all.len()]));
                all.push(Seen::UNREACHABLE);
                break;
            };
            all.push(seen);
        }
        drop(pipe);
        child.end_now()?;
    }
    Ok(all)
}

fn look_at(record: &Record, registry: Option<&Registry>) -> Seen {
    let core = core(record, registry);
    let state = state(record, &core);
    let found = match &core {
        Err(CoreStatus::Overwritten) => named(record, registry).ok(),
        Ok(core) if record.identity.is_none() => core.try_clone().ok(),
        _ => None,
    };
    let stranger = found.and_then(|file| file::identity(&file).ok());
    Seen { state, size: core.as_ref().ok().map(size), stranger }
}

/// The directory whose file system must answer for this record's core.
fn volume(record: &Record) -> &str {
    record.host_dir.as_deref().unwrap_or(&record.names.container_id)
}

/// A core, or why it cannot be opened.
pub(super) type LocatedCore<'o> = Result<File, (CoreStatus, Option<&'o Overwriter>)>;

/// Opens the core of a record, if its file system answers.
///
/// # Errors
/// The state of a core that cannot be opened, and whose core has its name, if one has.
pub(super) fn open<'o>(
    record: &Record,
    registry: Option<&Registry>,
    overwriters: &'o Overwriters<'_>,
) -> LocatedCore<'o> {
    match look(std::slice::from_ref(record), registry).as_deref() {
        Ok([Seen { state: CoreStatus::Unreachable, .. }]) | Err(_) => {
            Err((CoreStatus::Unreachable, None))
        }
        Ok([seen, ..]) => match judge(record, *seen, overwriters) {
            (Seen { state: CoreStatus::Overwritten, .. }, by) => Err((CoreStatus::Overwritten, by)),
            _ => core(record, registry).map_err(|state| (state, None)),
        },
        Ok([]) => Err((CoreStatus::Missing, None)),
    }
}

/// Whose core the file is that was seen. A record that does not know its file, since its helper was
/// killed or is an old one, does not have that of a record which knows it.
pub(super) fn judge<'o>(
    record: &Record,
    seen: Seen,
    overwriters: &'o Overwriters<'_>,
) -> (Seen, Option<&'o Overwriter>) {
    let by = seen.stranger.and_then(|file| overwriters.of(record, &file).unwrap_or_default());
    match by {
        Some(_) => (Seen { state: CoreStatus::Overwritten, size: None, ..seen }, by),
        None => (seen, None),
    }
}

/// Opens the core of a record, or returns why not. A file of that name is the core only if it is
/// the very file that was written. Old records have no identity to compare.
fn core(record: &Record, registry: Option<&Registry>) -> Result<File, CoreStatus> {
    let file = named(record, registry).map_err(|state| match state {
        CoreStatus::Missing => gone_with(record, registry),
        other => other,
    })?;
    match (&record.identity, file::identity(&file)) {
        (Some(own), Ok(found)) if !own.is_same_file(&found) => Err(CoreStatus::Overwritten),
        (Some(_), Err(_)) => Err(CoreStatus::Inaccessible),
        // A path that a user claims could be any file of the host.
        (None, _) if record.user.is_some() => Err(CoreStatus::Inaccessible),
        _ => Ok(file),
    }
}

/// What a core that is not found has gone with, if it did not outlive that.
fn gone_with(record: &Record, registry: Option<&Registry>) -> CoreStatus {
    // The kubelet removes a volume's directory with the pod.
    let is_there = || record.host_dir.as_ref().is_some_and(|dir| Path::new(dir).exists());
    match record.location.goes_with() {
        Some(Owner::Container) if container_root(record, registry).is_none() => {
            CoreStatus::WithContainer
        }
        Some(Owner::Pod) if !is_there() => CoreStatus::WithPod,
        _ => CoreStatus::Missing,
    }
}

fn named(record: &Record, registry: Option<&Registry>) -> Result<File, CoreStatus> {
    if record.outcome == Outcome::None {
        return Err(CoreStatus::None);
    }
    let file = match (record.host_bytes(), record.core_bytes()) {
        (Some(path), _) => {
            let volume = record.host_dir.as_deref().map(Path::new);
            resolve::open_file_on_host(Path::new(proc::os(&path)), volume)
        }
        (None, Some(path)) => {
            let root = container_root(record, registry).ok_or(CoreStatus::Missing)?;
            resolve::open_file_below(root, proc::os(&path), Below::InRoot)
        }
        (None, None) => return Err(CoreStatus::Missing),
    };
    file.map_err(|e| match e {
        Errno::ACCESS | Errno::PERM => CoreStatus::Inaccessible,
        Errno::WOULDBLOCK => CoreStatus::Leased,
        _ => CoreStatus::Missing,
    })
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
    let is_theirs =
        entry.user.is_none() || init.namespace("user").ok().and_then(ns::owner) == entry.user;
    (is_theirs && init.start_time().ok()? == entry.init.start_time).then_some(root)
}

/// Size in bytes, 0 if it cannot be read.
pub(super) fn size(core: &File) -> u64 {
    core.metadata().map_or(0, |m| m.len())
}

/// The state of a record's core, given the result of opening it.
pub(super) fn state<E: Into<CoreStatus> + Clone>(
    record: &Record,
    core: &Result<File, E>,
) -> CoreStatus {
    match core {
        Err(state) => state.clone().into(),
        Ok(core)
            if record.outcome != Outcome::Written
                || record.truncated
                || record.size.is_some_and(|s| size(core) < s) =>
        {
            CoreStatus::Truncated
        }
        Ok(_) => CoreStatus::Present,
    }
}
