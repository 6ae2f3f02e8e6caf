//! The copy of a record that a user gets, whose container it was: the store of the records is root's alone.

use super::{is_at, plan};
use crate::record::{Location, Record};
use crate::registry::Entry;
use crate::store::Store;
use crate::sys::child::{self, Ended};
use crate::sys::cred::{self, Credentials};
use crate::sys::proc::printable;
use crate::sys::process;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// A group that owns nothing: the user's own are not known.
const NO_GROUP: u32 = 65534;

/// How long the user's directories may take to answer, in seconds.
const PATIENCE: u32 = 10;

/// Writes the copy, as the user, into the store that his registration names. Whether the core is where it says on the host is found out by him too: then the
/// record says so. `core`: its path inside, and the device and inode number of the file.
///
/// Nothing for a container of root's.
pub fn copy(record: &mut Record, entry: &Entry, core: Option<(Vec<u8>, (u64, u64))>) {
    let Some(uid) = entry.user else { return };
    let host = core
        .as_ref()
        .and_then(|(inside, id)| Some((plan::host_path(inside, entry.place.mount.as_ref())?, *id)));
    // Root's store is not meant.
    if record.location == Location::Store {
        record.location = Location::Volume;
    }
    match as_user(uid, || write(record, entry, host.clone())) {
        Ok(at_host) => {
            let inside = core.as_ref().map(|(inside, _)| inside.as_slice());
            record.set_paths(
                inside,
                host.as_ref().filter(|_| at_host).map(|(path, _)| path.as_slice()),
            );
        }
        Err(e) => log::warn!("user {uid} gets no copy of the record: {e:#}"),
    }
}

/// Runs `work` as the user, with none of our rights, in the host's namespaces.
fn as_user(uid: u32, work: impl FnOnce() -> Result<bool>) -> Result<bool> {
    const FOUND: i32 = 0;
    const NOT_FOUND: i32 = 2;
    let child = child::fork(|| {
        // A directory of his may be a file system that he serves himself, and never answers.
        process::end_after(PATIENCE);
        let attempt = || -> Result<bool> {
            process::release_stdin();
            process::close_all_but(&[])?;
            cred::assume(
                &Credentials { uid: [uid; 4], gid: [NO_GROUP; 4], ..Credentials::default() },
                None,
            )?;
            work()
        };
        match attempt() {
            Ok(true) => FOUND,
            Ok(false) => NOT_FOUND,
            Err(e) => {
                log::warn!("the copy of a record for user {uid}: {e:#}");
                1
            }
        }
    })?;
    match child.wait()? {
        Ended::Exit(FOUND) => Ok(true),
        Ended::Exit(NOT_FOUND) => Ok(false),
        Ended::Exit(_) => bail!("its writer failed"),
        Ended::Signal(n) => bail!("its writer was killed by signal {n}"),
    }
}

fn write(record: &Record, entry: &Entry, host: Option<(Vec<u8>, (u64, u64))>) -> Result<bool> {
    let host = host.filter(|(path, id)| is_at(Some(path), Some(*id))).map(|(path, _)| path);
    let Some(store) = &entry.store else { return Ok(host.is_some()) };
    let mut copy = Record { user: None, ..record.clone() };
    if let (Some(path), Some((_, source))) = (&host, &entry.place.mount) {
        let inside = record.core_bytes();
        copy.set_paths(inside.as_deref(), Some(path));
        copy.host_dir = Some(printable(source.as_ref()));
        copy.location = entry.place.location;
    }
    Store::open_at(Path::new(store))
        .and_then(|s| s.records())?
        .begin(&copy)
        .with_context(|| format!("{}", store.display()))?;
    Ok(host.is_some())
}
