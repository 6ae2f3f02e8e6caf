//! The copies that a debugger works on: a directory of its own, removed whatever this process dies of.
//!
//! A debugger that root starts has a user and group ID that nobody else has: one of [`IDS`], which no
//! process runs as, and whose file in [`LOCKS`] nobody has locked.

use super::tree::Tree;
use crate::sys::{AsFd, OwnedFd, apart, file, process};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Above all that distributions, systemd (uid-ranges: to 2147418111) and subordinate IDs use, below
/// what does not fit in 31 bits.
pub const IDS: Range<u32> = 2_147_450_880..2_147_451_904;
/// One empty file for each ID that was ever used, locked while it is.
const LOCKS: &str = "/run/oci-coredump-debug";
/// Where the directories are: on disk, a core is large. Never where the environment says.
const PLACES: [&str; 2] = ["/var/tmp", "/tmp"];
const PREFIX: &str = "oci-coredump-debug-";

/// A directory of one debugger.
#[derive(Debug)]
pub struct Private {
    /// Its path: of plain characters only.
    pub path: PathBuf,
    /// The user and group ID of the debugger, where it is not the caller's.
    pub owner: Option<u32>,
    /// The lock says that somebody still works here.
    dir: OwnedFd,
    _executor: apart::Executor,
}

impl Private {
    /// Makes one, after what others left behind is gone. `own_id`: the debugger is not to be us.
    pub fn new(own_id: bool) -> Result<Self> {
        sweep();
        let id = own_id.then(take_id).transpose()?;
        let owner = id.as_ref().map(|(uid, _)| *uid);
        let (path, dir) = make()?;
        let mut keep = vec![dir.as_fd()];
        keep.extend(id.iter().map(|(_, lock)| lock.as_fd()));
        let executor = apart::executor(&keep, || {
            if let Some(uid) = owner {
                apart::end_all_of(uid);
            }
            remove(&dir, &path);
        });
        let Ok(_executor) = executor else {
            let _ = std::fs::remove_dir_all(&path);
            bail!("start the process that removes {}", path.display())
        };
        file::chmod(&dir, 0o700)?;
        if let Some(uid) = owner {
            file::chown(&dir, uid, uid)?;
        }
        Ok(Private { path, owner, dir, _executor })
    }

    /// The directory `name` in it, which is made, and its path.
    pub fn tree(&self, name: &str) -> Result<(Tree, PathBuf)> {
        let top = Tree { root: self.dir.try_clone().context("dup")?, owner: self.owner };
        Ok((Tree { root: top.dir(Path::new(name))?, ..top }, self.path.join(name)))
    }
}

/// A new directory, and its lock, which a sweep of somebody else's may have had before us.
fn make() -> Result<(PathBuf, OwnedFd)> {
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
            return Ok((path, dir));
        }
    }
    bail!("make a directory in /var/tmp: each is removed at once")
}

fn id_of(dir: &OwnedFd) -> Option<(u64, u64)> {
    file::stat(dir).ok().map(|s| s.id)
}

/// Its owner may have given it another name.
fn remove(dir: &OwnedFd, path: &Path) {
    let now = std::fs::read_link(format!("/proc/self/fd/{}", process::number(dir)));
    let _ = std::fs::remove_dir_all(now.as_deref().unwrap_or(path));
}

/// An ID of [`IDS`] and its lock.
fn take_id() -> Result<(u32, OwnedFd)> {
    let locks = file::make_path(Path::new(LOCKS), 0o700)?;
    let used = used_ids()?;
    let first = std::process::id() % (IDS.end - IDS.start);
    for uid in (IDS.start + first..IDS.end).chain(IDS.start..IDS.start + first) {
        let lock = file::open_lock(&locks, uid.to_string().as_ref())?;
        if !used.contains(&uid) && file::try_lock(&lock)? {
            return Ok((uid, lock));
        }
    }
    bail!("each user ID from {} to {} is in use by a debugger", IDS.start, IDS.end - 1)
}

/// The IDs of all processes.
fn used_ids() -> Result<BTreeSet<u32>> {
    let mut used = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").context("read /proc")?.flatten() {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        // One that has ended meanwhile has none.
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

/// Removes what debuggers left behind that were killed: directories of ours that nobody has locked.
pub fn sweep() {
    for place in PLACES {
        let Ok(parent) = file::open_dir(Path::new(place)).and_then(file::reopen_dir) else {
            continue;
        };
        for name in file::names(&parent).unwrap_or_default() {
            if is_ours(&parent, &name) {
                sweep_one(&parent, &name, &Path::new(place).join(&name));
            }
        }
    }
}

/// By name, and by an owner that nobody else can be.
fn is_ours(parent: &OwnedFd, name: &OsStr) -> bool {
    let me = process::effective_uid();
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
        && file::stat_at(parent, name).is_ok_and(|s| s.uid == me || me == 0 && IDS.contains(&s.uid))
}

fn sweep_one(parent: &OwnedFd, name: &OsString, path: &Path) {
    let Ok(dir) = file::open_subdir(parent, name) else { return };
    let Ok(owner) = file::stat(&dir).map(|s| s.uid) else { return };
    let me = process::effective_uid();
    if owner != me && !(me == 0 && IDS.contains(&owner)) {
        return;
    }
    // What is left of its debugger could hold the lock for ever. A live one has the ID's lock, too.
    let id = IDS.contains(&owner).then(|| {
        let locks = file::make_path(Path::new(LOCKS), 0o700)?;
        let lock = file::open_lock(&locks, owner.to_string().as_ref())?;
        anyhow::Ok((file::try_lock(&lock)?, lock))
    });
    match &id {
        Some(Ok((true, _))) => apart::end_all_of(owner),
        Some(_) => return,
        None => {}
    }
    if file::try_lock(&dir).unwrap_or(false) {
        remove(&dir, path);
    }
}

/// What `uninstall` takes away besides: the locks that nobody has.
pub fn remove_locks() {
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
        assert!(used_ids().unwrap().contains(&process::effective_uid()));
    }
}
