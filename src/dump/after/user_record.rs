//! The copy of the record for the user whose container it was: the store of the records is root's.

use super::on_host::is_at;
use crate::dump::policy::plan;
use crate::dump::slots::Slot;
use crate::record::{Location, Record};
use crate::registry::Entry;
use crate::store::Store;
use crate::sys::child::{self, Ended};
use crate::sys::cred::{self, Credentials};
use crate::sys::file::FileId;
use crate::sys::proc::printable;
use crate::sys::text::one_line;
use crate::sys::user::reserved;
use crate::sys::{AsFd, descriptor};
use crate::users;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::Duration;

/// How long the user's directories may take to answer. The parent keeps this deadline: the user
/// could stop the child, and a directory may be a file system that the user serves.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most bytes of the reason why there is none.
const MOST: usize = 512;

/// Writes the copy, as the user, into the store that the registration names. Whether the core is
/// where it says on the host is found out as the user too: then the record says so. `core`: its
/// path inside, and the device and inode number of the file.
///
/// For a container of root's it does nothing.
///
/// `slot`: the container's, which a child that hangs keeps.
pub(crate) fn give_copy(
    record: &mut Record,
    entry: &Entry,
    core: Option<(Vec<u8>, FileId)>,
    slot: Option<&Slot>,
) {
    let Some(uid) = entry.user else { return };
    let host = core
        .as_ref()
        .and_then(|(inside, id)| Some((plan::host_path(inside, entry.place.mount.as_ref())?, *id)));
    // The user's container writes to the user's store, not to root's.
    if record.location == Location::Store {
        record.location = Location::Volume;
    }
    match as_user(uid, slot, || write(record, entry, host.clone())) {
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
fn as_user(uid: u32, slot: Option<&Slot>, work: impl FnOnce() -> Result<bool>) -> Result<bool> {
    const FOUND: i32 = 0;
    const NOT_FOUND: i32 = 2;
    const FAILED: i32 = 1;
    let (read, say) = descriptor::pipe()?;
    // The group root would be a privilege.
    let gid = users::group_of(uid).filter(|gid| *gid != 0).unwrap_or(reserved::NO_GROUP);
    let child = child::fork(|| {
        let attempt = || -> Result<bool> {
            descriptor::release_stdin();
            let slot = slot.iter().flat_map(|t| t.fds());
            descriptor::close_all_but(&slot.chain([say.as_fd()]).collect::<Vec<_>>())?;
            cred::assume(
                &Credentials { uid: [uid; 4], gid: [gid; 4], ..Credentials::default() },
                None,
            )?;
            work()
        };
        match attempt() {
            Ok(true) => FOUND,
            Ok(false) => NOT_FOUND,
            Err(e) => {
                let why = one_line(&format!("{e:#}"));
                let _ = descriptor::write(&say, &why.as_bytes()[..why.len().min(MOST)]);
                FAILED
            }
        }
    })?;
    match child.end_within(PATIENCE)? {
        Some(Ended::Exit(FOUND)) => Ok(true),
        Some(Ended::Exit(NOT_FOUND)) => Ok(false),
        Some(Ended::Exit(_)) => {
            let mut why = [0; MOST];
            let n = if descriptor::wait_readable(&read, Some(Duration::ZERO))? {
                descriptor::read(&read, &mut why)?
            } else {
                0
            };
            bail!("{}", one_line(&String::from_utf8_lossy(&why[..n])))
        }
        Some(Ended::Signal(n)) => bail!("its writer was killed by signal {n}"),
        None => bail!("its writer hangs in a file system of the user's, and was left behind"),
    }
}

fn write(record: &Record, entry: &Entry, host: Option<(Vec<u8>, FileId)>) -> Result<bool> {
    let volume = entry.place.mount.as_ref().map(|(_, source)| source.as_str());
    let host = host.filter(|(path, id)| is_at(Some(path), volume, Some(*id))).map(|(path, _)| path);
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
