//! The directory with the copies that a debugger works on. It is removed however this process ends.
//!
//! The directory belongs to the caller, so that the debugger cannot rename it; what is
//! in it belongs to the debugger. It is emptied through descriptors, since a path could
//! be made to lead elsewhere.
//!
//! A debugger that root starts gets a user and group ID that nothing else has: one of [`DEBUGGERS`]
//! that no process runs as and whose file in [`LOCKS`] is not locked.

use super::tree::Tree;
use crate::sys::file::FileId;
use crate::sys::user::{self, reserved::DEBUGGERS};
use crate::sys::{AsFd, OwnedFd, executor, file, isolated_terminal};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

/// Has an empty file for each ID that was ever used, which is locked while the ID is in use.
const LOCKS: &str = "/run/oci-coredump-debug";
/// Where the directories are made: on disk, since a core is large. Never
/// taken from the environment.
const PLACES: [&str; 2] = ["/var/tmp", "/tmp"];
const PREFIX: &str = "oci-coredump-debug-";
/// Prefix of an empty file in the directory; the debugger's user ID follows.
const OWNER: &str = "of-";

/// The directory of one debugger.
#[derive(Debug)]
pub(super) struct Private {
    /// Its path, of plain characters only.
    pub path: PathBuf,
    /// The user and group ID of the debugger, if they are not the caller's.
    pub owner: Option<u32>,
    /// Locked for as long as the directory is in use.
    dir: OwnedFd,
    _executor: executor::Executor,
}

impl Private {
    /// Makes a directory, after removing what killed processes left. `own_id`: give the
    /// debugger an ID of its own.
    pub(super) fn new(own_id: bool) -> Result<Self> {
        sweep();
        let id = own_id.then(take_id).transpose()?;
        let owner = id.as_ref().map(|(uid, _)| *uid);
        let (path, place, dir) = make()?;
        let mut keep = vec![dir.as_fd(), place.as_fd()];
        keep.extend(id.iter().map(|(_, lock)| lock.as_fd()));
        let executor = executor::executor(&keep, || {
            if let Some(uid) = owner {
                isolated_terminal::end_all_of(uid);
            }
            remove(&place, &dir, path.file_name().unwrap_or_default());
        });
        let Ok(_executor) = executor else {
            remove(&place, &dir, path.file_name().unwrap_or_default());
            bail!("start the process that removes {}", path.display())
        };
        // Another user ID must be able to pass through to its own files.
        file::chmod(&dir, if owner.is_some() { 0o711 } else { 0o700 })?;
        if let Some(uid) = owner {
            // Tells a later sweep whose debugger it is.
            file::create_new(&dir, format!("{OWNER}{uid}").as_ref(), 0o600)?;
        }
        Ok(Private { path, owner, dir, _executor })
    }

    /// Makes the directory `name` in it, and returns it with its path.
    pub(super) fn tree(&self, name: &str) -> Result<(Tree, PathBuf)> {
        let top = Tree { root: self.dir.try_clone().context("dup")?, owner: self.owner };
        Ok((Tree { root: top.dir(Path::new(name))?, ..top }, self.path.join(name)))
    }
}

/// Makes and locks a new directory. The sweep of another process may have locked it first.
fn make() -> Result<(PathBuf, OwnedFd, OwnedFd)> {
    use std::os::unix::fs::PermissionsExt;
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).permissions(std::fs::Permissions::from_mode(0o700));
        builder
    };
    for _ in 0..100 {
        let path = PLACES
            .iter()
            .find_map(|place| builder().tempdir_in(place).ok())
            .context("make a directory in /var/tmp or /tmp")?
            .keep();
        let parent = file::open_dir(path.parent().unwrap_or(Path::new("/")))?;
        let name = path.file_name().unwrap_or_default();
        let Ok(dir) = file::open_subdir(&parent, name) else { continue };
        let mine = file::try_lock(&dir)?
            && file::stat_at(&parent, name).is_ok_and(|s| Some(s.id) == id_of(&dir));
        if mine {
            return Ok((path, parent, dir));
        }
    }
    bail!("make a directory in /var/tmp: each is removed at once")
}

fn id_of(dir: &OwnedFd) -> Option<FileId> {
    file::stat(dir).ok().map(|s| s.id)
}

/// Removes the directory `name` of `place` with everything in it, if `name` still is `dir`.
fn remove(place: &OwnedFd, dir: &OwnedFd, name: &OsStr) {
    let is_it = file::stat_at(place, name).is_ok_and(|s| Some(s.id) == id_of(dir));
    let removed = empty(dir)
        .and_then(|()| if is_it { file::remove_empty_dir(place, name).map(drop) } else { Ok(()) });
    if let Err(e) = removed {
        log::warn!("{name:?} of a debugger cannot be removed, ignoring: {e:#}");
    }
}

/// Removes everything in a directory, following no link. Subdirectories are moved up before they
/// are emptied, since a debugger can nest them to any depth.
fn empty(dir: &OwnedFd) -> Result<()> {
    let again = |dir: &OwnedFd| file::open_subdir(dir, ".".as_ref()).context("open it again");
    // A name that cannot have been made before.
    let (mut moved, unique) = (0u64, RandomState::new().hash_one(0));
    loop {
        let names = file::names(again(dir)?)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if file::unlink(dir, &name).is_ok() {
                continue;
            }
            let sub = file::open_subdir(dir, &name).with_context(|| format!("open {name:?}"))?;
            for inner in file::names(again(&sub)?)? {
                if file::unlink(&sub, &inner).is_err() {
                    moved += 1;
                    file::rename_to(&sub, &inner, dir, format!("{unique:016x}-{moved}").as_ref())?;
                }
            }
            file::remove_empty_dir(dir, &name)?;
        }
    }
}

/// Takes an unused ID of [`DEBUGGERS`] with its lock.
fn take_id() -> Result<(u32, OwnedFd)> {
    let locks = file::make_path(Path::new(LOCKS), 0o700)?;
    let used = used_ids()?;
    let first = std::process::id() % (DEBUGGERS.end - DEBUGGERS.start);
    for uid in
        (DEBUGGERS.start + first..DEBUGGERS.end).chain(DEBUGGERS.start..DEBUGGERS.start + first)
    {
        let lock = file::open_lock(&locks, uid.to_string().as_ref())?;
        if !used.contains(&uid) && file::try_lock(&lock)? {
            return Ok((uid, lock));
        }
    }
    bail!("each user ID from {} to {} is in use by a debugger", DEBUGGERS.start, DEBUGGERS.end - 1)
}

/// The user IDs of all processes.
fn used_ids() -> Result<BTreeSet<u32>> {
    let mut used = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").context("read /proc")?.flatten() {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        // A process that has ended in the meantime has none.
        let status = std::fs::read(entry.path().join("status")).ok().filter(|_| is_process);
        let status = status.unwrap_or_default();
        for line in status.split(|b| *b == b'\n') {
            if line.starts_with(b"Uid:") || line.starts_with(b"Gid:") {
                let text = String::from_utf8_lossy(line);
                used.extend(text.split_whitespace().skip(1).filter_map(|n| n.parse::<u32>().ok()));
            }
        }
    }
    Ok(used)
}

/// Removes the directories that killed processes left: ours that are not locked.
pub(super) fn sweep() {
    for place in PLACES {
        let Ok(parent) = file::open_dir(Path::new(place)).and_then(file::reopen_dir) else {
            continue;
        };
        for name in file::names(&parent).unwrap_or_default() {
            if is_ours(&parent, &name) {
                sweep_one(&parent, &name);
            }
        }
    }
}

/// Whether it is a directory of this module, by its name and owner.
fn is_ours(parent: &OwnedFd, name: &OsStr) -> bool {
    let me = user::effective_uid();
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
        && file::stat_at(parent, name).is_ok_and(|s| s.uid == me)
}

fn sweep_one(parent: &OwnedFd, name: &OsString) {
    let Ok(dir) = file::open_subdir(parent, name) else { return };
    if !file::stat(&dir).is_ok_and(|s| s.uid == user::effective_uid()) {
        return;
    }
    // A process that the debugger left behind could hold the lock for ever. A live one
    // holds the lock of its ID too.
    let owner = file::open_subdir(&dir, ".".as_ref()).ok().and_then(|again| {
        let names = file::names(again).ok()?;
        names.iter().find_map(|n| n.to_str()?.strip_prefix(OWNER)?.parse::<u32>().ok())
    });
    let owner = owner.filter(|uid| DEBUGGERS.contains(uid));
    let id = owner.map(|uid| {
        let locks = file::make_path(Path::new(LOCKS), 0o700)?;
        let lock = file::open_lock(&locks, uid.to_string().as_ref())?;
        anyhow::Ok((file::try_lock(&lock)?, lock))
    });
    match (&id, owner) {
        (Some(Ok((true, _))), Some(uid)) => isolated_terminal::end_all_of(uid),
        (Some(_), _) => return,
        (None, _) => {}
    }
    if file::try_lock(&dir).unwrap_or(false) {
        remove(parent, &dir, name);
    }
}

/// Removes the lock files that are not locked, for `uninstall`.
pub(super) fn remove_locks() {
    let Ok(locks) = file::open_dir(Path::new(LOCKS)).and_then(file::reopen_dir) else { return };
    for name in file::names(&locks).unwrap_or_default() {
        if file::open_lock(&locks, &name).and_then(file::try_lock).unwrap_or(false) {
            let _ = file::unlink(&locks, &name);
        }
    }
    let _ = std::fs::remove_dir(LOCKS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_processes_are_seen() {
        assert!(used_ids().unwrap().contains(&user::effective_uid()));
    }
}
