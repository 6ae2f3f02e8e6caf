//! Directories of users who run containers without being root. A user's hook may not
//! write to root's directories, so it registers here, and the user's cores and records
//! have a store of their own:
//!
//! ```text
//! /run/user/<uid>/oci-coredump              0700    as root's /run/oci-coredump
//! /tmp/podman-run-<uid>/oci-coredump        0700    the same, of a user without a session
//! ~/.local/share/oci-coredump               0700    as root's /var/lib/oci-coredump
//! ~/.cache/oci-coredump/debuginfod          0700    what debuginfod servers gave
//! ```
//!
//! The dispatcher, as root, reads them only for a process in that user's own namespaces
//! ([`crate::sys::ns::owner`]), over which the user has full control anyway.

use crate::sys::file;

use crate::sys::resolve::{self, Below, Want};
use crate::sys::user::{self, RunBy};
use crate::sys::{OwnedFd, Stat};
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Name of this project's directory within a user's run and data directories.
const NAME: &str = "oci-coredump";

/// The places of a user's run directory, relative to `/`: logind's, and podman's for a user without
/// a session. Environment variables are not used: the dispatcher, which has none of the user's,
/// must find the same directory.
fn places(uid: u32) -> [String; 2] {
    [format!("run/user/{uid}"), format!("tmp/podman-run-{uid}")]
}

/// The directory in which this user's containers are registered, made if it does not exist.
///
/// # Errors
/// It cannot be made, or another user made it first.
pub(crate) fn make_run_dir(uid: u32) -> Result<PathBuf> {
    let [session, other] = places(uid).map(|p| Path::new("/").join(p));
    let parent = if session.is_dir() { session } else { other };
    let dir = file::make_path(&parent, 0o700)?;
    let stat = file::stat(&dir)?;
    let own = user::effective_uid();
    ensure!(
        stat.uid == own && stat.mode & 0o022 == 0,
        "{} is not this user's alone",
        parent.display()
    );
    file::make_dir(&dir, NAME.as_ref(), 0o700)?;
    Ok(parent.join(NAME))
}

/// Removes podman's run directory for users without a session, if this
/// project made it and it is empty.
pub(crate) fn remove_made(uid: u32) {
    let [_, other] = places(uid);
    // Not empty: podman uses it.
    let _ = std::fs::remove_dir(Path::new("/").join(other));
}

/// The directory in which this user's containers are registered, if it exists.
pub(crate) fn run_dir(uid: u32) -> Option<PathBuf> {
    places(uid).into_iter().map(|p| Path::new("/").join(p).join(NAME)).find(|p| p.is_dir())
}

/// The same directory, for root: opened through the user's own directories only, following no link.
pub(crate) fn open_run_dir(uid: u32) -> Option<OwnedFd> {
    let root = file::open_dir(Path::new("/")).ok()?;
    places(uid).into_iter().find_map(|place| {
        let above =
            resolve::resolve(&root, OsStr::new(&place), Below::NoLinks, Want::Directory).ok()?;
        is_of(&file::stat(&above).ok()?, uid).then_some(())?;
        open_dir_of(above, NAME, uid)
    })
}

/// A group of this user: the group of the run directory.
pub(crate) fn group_of(uid: u32) -> Option<u32> {
    Some(file::stat(open_run_dir(uid)?).ok()?.gid)
}

/// Opens a directory of this user within another one.
pub(crate) fn open_dir_of(dir: impl crate::sys::AsFd, name: &str, uid: u32) -> Option<OwnedFd> {
    let dir = resolve::resolve(dir, name.as_ref(), Below::NoLinks, Want::Directory).ok()?;
    is_of(&file::stat(&dir).ok()?, uid).then_some(dir)
}

/// Whether a file or directory belongs to this user and only the user may write to it.
pub(crate) fn is_of(stat: &Stat, uid: u32) -> bool {
    stat.uid == uid && stat.mode & 0o022 == 0
}

/// The store of the user `uid`, who runs this program and is not root.
pub(crate) fn own_store(uid: u32) -> Result<PathBuf> {
    let data = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
    match data {
        Some(data) => Ok(data.join(NAME)),
        // The runtime gives its hooks no environment: use the run directory, which is
        // removed when the user logs out.
        None => {
            Ok(make_run_dir(uid).context("neither XDG_DATA_HOME nor HOME is set")?.join("store"))
        }
    }
}

/// Where the user who runs this program, and is not root, keeps what debuginfod servers gave;
/// `None` without XDG_CACHE_HOME and HOME.
pub(crate) fn own_fetched() -> Option<PathBuf> {
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    Some(cache.join(NAME).join("debuginfod"))
}

/// An absolute path in the environment.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Adapts the configuration to the user who runs this program: one other than root has a store of
/// his own. For the three entry points that such a user has (the hook, the verbs that read a store,
/// `doctor`), each of which does without it in its own way; all others are root's alone.
pub(crate) fn adapt(config: &mut crate::config::Config) -> Result<()> {
    if let RunBy::User(uid) = user::run_by() {
        config.store = own_store(uid)?;
        // What root uploads is of root's store.
        config.upload = Default::default();
    }
    Ok(())
}
