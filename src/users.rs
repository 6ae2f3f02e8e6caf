//! What belongs to users who run containers without being root. A user's hook may not write where
//! root's does, so it registers here, and his cores and records have a store of his own:
//!
//! ```text
//! /run/user/<uid>/oci-coredump              0700    as root's /run/oci-coredump
//! /tmp/podman-run-<uid>/oci-coredump        0700    the same, of a user without a session
//! ~/.local/share/oci-coredump               0700    as root's /var/lib/oci-coredump
//! ```
//!
//! The dispatcher, as root, looks there only for a process of that very user's namespaces
//! ([`crate::sys::ns::owner`]), over which he has all power anyway.

use crate::sys::file;
use crate::sys::process::{self, Who};
use crate::sys::resolve::{self, Below};
use crate::sys::{OwnedFd, Stat};
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The directory that is ours, in each of those that a user may have.
const NAME: &str = "oci-coredump";

/// Where a user may have a run directory, below `/`: logind's, and podman's for a user without a
/// session. Never what a variable of his says: the dispatcher, who has none, must find the same.
fn places(uid: u32) -> [String; 2] {
    [format!("run/user/{uid}"), format!("tmp/podman-run-{uid}")]
}

/// The directory in which this user registers; made if it is missing.
///
/// # Errors
/// It cannot be made, or somebody else made it before.
pub fn make_run_dir(uid: u32) -> Result<PathBuf> {
    let [session, other] = places(uid).map(|p| Path::new("/").join(p));
    let parent = if session.is_dir() { session } else { other };
    let dir = file::make_path(&parent, 0o700)?;
    let stat = file::stat(&dir)?;
    let own = process::effective_uid();
    ensure!(
        stat.uid == own && stat.mode & 0o022 == 0,
        "{} is not this user's alone",
        parent.display()
    );
    file::make_dir(&dir, NAME.as_ref(), 0o700)?;
    Ok(parent.join(NAME))
}

/// Removes podman's place for users without a session, where we have made it and nothing is in it.
pub fn remove_made(uid: u32) {
    let [_, other] = places(uid);
    // What is not empty is podman's.
    let _ = std::fs::remove_dir(Path::new("/").join(other));
}

/// The directory in which this user registers, if there is one.
pub fn run_dir(uid: u32) -> Option<PathBuf> {
    places(uid).into_iter().map(|p| Path::new("/").join(p).join(NAME)).find(|p| p.is_dir())
}

/// The same as root sees it, opened through nothing but the user's own
/// directories; no link is followed.
pub fn open_run_dir(uid: u32) -> Option<OwnedFd> {
    let root = file::open_dir(Path::new("/")).ok()?;
    places(uid).into_iter().find_map(|place| {
        let above = resolve::resolve(&root, OsStr::new(&place), Below::NoLinks, true).ok()?;
        is_of(&file::stat(&above).ok()?, uid).then_some(())?;
        open_dir_of(above, NAME, uid)
    })
}

/// A group of this user's: that of his run directory.
pub fn group_of(uid: u32) -> Option<u32> {
    Some(file::stat(open_run_dir(uid)?).ok()?.gid)
}

/// A directory of this user in a directory of his.
pub fn open_dir_of(dir: impl crate::sys::AsFd, name: &str, uid: u32) -> Option<OwnedFd> {
    let dir = resolve::resolve(dir, name.as_ref(), Below::NoLinks, true).ok()?;
    is_of(&file::stat(&dir).ok()?, uid).then_some(dir)
}

/// Whether a file or directory is this user's, and nobody else may write it.
pub fn is_of(stat: &Stat, uid: u32) -> bool {
    stat.uid == uid && stat.mode & 0o022 == 0
}

/// The store of whoever runs this program, where it is not root.
pub fn own_store(uid: u32) -> Result<PathBuf> {
    let variable =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let data = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
    match data {
        Some(data) => Ok(data.join(NAME)),
        // A runtime that hands its hooks no environment: until the user has logged out.
        None => {
            Ok(make_run_dir(uid).context("neither XDG_DATA_HOME nor HOME is set")?.join("store"))
        }
    }
}

/// The configuration as it holds for whoever runs this program: a user has a store of his own.
pub fn adapt(config: &mut crate::config::Config) -> Result<()> {
    if let Who::User(uid) = process::who() {
        config.store = own_store(uid)?;
    }
    Ok(())
}
