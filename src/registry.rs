//! What the hook tells the dispatcher: one file a container, found by its mount namespace, PID
//! namespace or cgroup without reading the others.
//!
//! ```text
//! /run/oci-coredump/              0700 root
//!   lock                          held while something here or a sysctl is changed
//!   containers/<id>.json          the entry
//!   index/mnt-<ino>, pid-<ino>, cgroup-<controllers>-<escaped path>     hard links to the entry
//!   limits/<account>/             what is kept of an account between two crashes, see `accounts`
//!   limits/.host/                 the same of all containers together
//!   limits/.forwarded/            the same of crashes that are no container's
//!   crash-counts.json             what `metrics` tells of crashes since the boot
//!   enabled/<id>                  what `enable` changed, for `disable`
//!   sysctl.json                   the sysctls as they were before
//!   coredump.socket               that of `serve`
//!   swept, said-*                 when the last sweep was, and the last message of each kind
//!   views/<id>                    what the container reads in its /proc/sys/kernel/core_pattern
//!   views/.pid-<id>               ... and in core_uses_pid there
//! ```
//!
//! Users who are not root have such a directory each ([`crate::users`]).

mod accounts;
mod entry;
pub(crate) mod shown_sysctls;

pub(crate) use entry::{
    DumpPlace, Entry, InitProcess, cgroup_keys, check_id, mount_key, pid_key, pod_uid,
};

use crate::config::RUN_DIR;
use crate::record::Names;
use crate::sys::user::{self, RunBy};
use crate::sys::{budget, file, resolve};
use crate::users;
use anyhow::{Context, Result, ensure};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Largest entry that is read, in bytes.
const MAX: usize = 64 << 10;

/// How long another process may hold the lock before the caller gives up.
const LOCKED: Duration = Duration::from_secs(3);

/// Stamp file: its modification time is that of the last sweep.
const SWEPT: &str = "swept";

/// A container whose entry was removed.
#[derive(Debug)]
pub(crate) struct RemovedContainer {
    pub id: String,
    /// The store of the container's user, if that is not root.
    pub store: Option<PathBuf>,
}

fn file_name(id: &str) -> OsString {
    format!("{id}.json").into()
}

/// The registry of root or of a user, by its open directories.
#[derive(Debug)]
pub(crate) struct Registry {
    run: OwnedFd,
    containers: OwnedFd,
    index: OwnedFd,
    /// The directory of the accounts, once it was needed.
    limits: OnceLock<OwnedFd>,
    /// The user that the registry belongs to, if root reads it and it is not root's.
    user: Option<u32>,
}

impl Registry {
    /// Opens the registry of the user who runs this, making its directories.
    pub(crate) fn create() -> Result<Self> {
        let path = match user::run_by() {
            RunBy::Root => PathBuf::from(RUN_DIR),
            RunBy::User(uid) => users::make_run_dir(uid)?,
        };
        let run = file::make_path(&path, 0o700)?;
        let containers = file::make_dir(&run, "containers".as_ref(), 0o700)?;
        let index = file::make_dir(&run, "index".as_ref(), 0o700)?;
        Ok(Registry { run, containers, index, limits: OnceLock::new(), user: None })
    }

    /// Opens root's registry if it exists.
    pub(crate) fn open() -> Option<Self> {
        Self::open_at(Path::new(RUN_DIR))
    }

    /// Opens the registry of the user who runs this, if it exists.
    pub(crate) fn own() -> Option<Self> {
        match user::run_by() {
            RunBy::Root => Self::open(),
            RunBy::User(uid) => Self::open_at(&users::run_dir(uid)?),
        }
    }

    /// For root: opens a user's registry, if it exists, to read the entries that pass the checks.
    pub(crate) fn of_user(uid: u32) -> Option<Self> {
        let run = users::open_run_dir(uid)?;
        let sub = |name: &str| users::open_dir_of(&run, name, uid);
        let (containers, index) = (sub("containers")?, sub("index")?);
        Some(Registry { run, containers, index, limits: OnceLock::new(), user: Some(uid) })
    }

    fn open_at(path: &Path) -> Option<Self> {
        let run = file::open_dir(path).ok()?;
        let sub = |name: &str| file::open_subdir(&run, name.as_ref()).ok();
        let (containers, index) = (sub("containers")?, sub("index")?);
        Some(Registry { run, containers, index, limits: OnceLock::new(), user: None })
    }

    /// Takes the lock under which entries and sysctls are changed. Dropping the returned
    /// descriptor releases it. The holder touches nothing of a container, so that it is
    /// released within milliseconds.
    ///
    /// # Errors
    /// Another process has held it for three seconds.
    pub(crate) fn lock(&self) -> Result<OwnedFd> {
        let lock = file::make_dir(&self.run, "lock".as_ref(), 0o700)?;
        let patience = budget::left(LOCKED);
        ensure!(
            file::lock_within(&lock, patience)?,
            "another oci-coredump has had the registry locked for {:.1} seconds",
            patience.as_secs_f64()
        );
        Ok(lock)
    }

    /// The run directory of the project, /run/oci-coredump for root.
    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.run
    }

    /// Adds or replaces an entry.
    pub(crate) fn put(&self, entry: &Entry) -> Result<()> {
        check_id(&entry.names.container_id)?;
        self.remove(&entry.names.container_id)?;
        let name = file_name(&entry.names.container_id);
        let text = serde_json::to_vec(entry).context("entry to JSON")?;
        ensure!(
            text.len() <= MAX,
            "the entry of container {:?} has more than {MAX} bytes",
            entry.names.container_id
        );
        file::replace(&self.containers, &name, &text, 0o600)?;
        if entry.refused.is_none() {
            for key in entry.keys() {
                file::link(&self.containers, &name, &self.index, key.as_ref())?;
            }
        }
        Ok(())
    }

    /// The entry of a container ID. A damaged entry counts as absent and is logged.
    pub(crate) fn get(&self, id: &str) -> Option<Entry> {
        check_id(id).ok()?;
        let name = file_name(id);
        self.read(&self.containers, &name)?.map_err(|e| self.complain(&name, &e)).ok()
    }

    /// The entry of an index key. A damaged entry still shows that there is a container: the result
    /// is then a refused entry with its ID, if that can be found, and the reason.
    pub(crate) fn find(&self, key: &str) -> Option<Entry> {
        let (container_id, cause) = match self.read(&self.index, key.as_ref())? {
            Ok(entry) => return Some(entry),
            // Users may write anything into their own registry. A damaged entry there must not
            // decide about crashes of others.
            Err(e) if self.user.is_some() => {
                self.complain(key.as_ref(), &e);
                return None;
            }
            Err(e) => (self.owner(key).unwrap_or_default(), e),
        };
        let refused = Some(format!("the container's registration is damaged: {cause:#}"));
        Some(Entry {
            names: Names { container_id, ..Names::default() },
            refused,
            ..Entry::default()
        })
    }

    /// The ID of the container whose entry an index key is a hard link to.
    fn owner(&self, key: &str) -> Option<String> {
        let inode = |dir: &OwnedFd, name: &OsStr| {
            Some(file::stat(file::open_read(dir, name).ok()?).ok()?.id)
        };
        let wanted = inode(&self.index, key.as_ref())?;
        self.ids()
            .ok()?
            .into_iter()
            .find(|id| inode(&self.containers, &file_name(id)) == Some(wanted))
    }

    /// Removes an entry, what limits remember under its ID, and its index keys unless another
    /// container has taken them over. Its views stay, see [`Registry::remove_views`]. A missing
    /// entry is no error.
    pub(crate) fn remove(&self, id: &str) -> Result<Option<Entry>> {
        if let Err(e) = self.forget_limits(id) {
            log::warn!("what limits need of container {id} cannot be removed, ignoring: {e:#}");
        }
        let Some(old) = self.get(id) else {
            check_id(id)?;
            // A damaged entry does not say what its index keys are, so all
            // keys are compared with it.
            let all = if file::open_read(&self.containers, &file_name(id)).is_ok() {
                file::names(&self.index)?
            } else {
                Vec::new()
            };
            for key in all
                .iter()
                .filter_map(|name| name.to_str())
                .filter(|key| self.owner(key).as_deref() == Some(id))
            {
                file::unlink(&self.index, key.as_ref())?;
            }
            file::unlink(&self.containers, &file_name(id))?;
            return Ok(None);
        };
        for key in old.keys() {
            if self.find(&key).is_some_and(|e| e.names.container_id == id) {
                file::unlink(&self.index, key.as_ref())?;
            }
        }
        file::unlink(&self.containers, &file_name(id))?;
        Ok(Some(old))
    }

    /// All container IDs that have an entry.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let names = file::names(&self.containers)?;
        Ok(names
            .iter()
            .filter_map(|n| n.to_str()?.strip_suffix(".json"))
            .filter(|n| check_id(n).is_ok())
            .map(str::to_owned)
            .collect())
    }

    /// Removes the entries of containers whose init process has ended. Only runc runs a hook for a
    /// container that failed to start; the entries of other runtimes' containers are removed here.
    pub(crate) fn sweep(&self) -> Result<Vec<RemovedContainer>> {
        let mut gone = Vec::new();
        for id in self.ids()? {
            let entry = self.get(&id);
            if entry.as_ref().is_none_or(|e| !e.init_lives()) {
                // One damaged entry must not keep the others from being swept.
                if let Err(e) = self.remove(&id).and_then(|_| self.remove_views(&id)) {
                    log::warn!("the entry of container {id} cannot be removed, ignoring: {e:#}");
                    continue;
                }
                gone.push(RemovedContainer { id, store: entry.and_then(|e| e.store) });
            }
        }
        Ok(gone)
    }

    /// Whether a sweep is due. A sweep reads every entry, so it runs at most once a minute and
    /// never while a container waits to start. Answers yes to one caller only.
    pub(crate) fn sweep_is_due(&self) -> bool {
        const EVERY: Duration = Duration::from_secs(60);
        file::is_due(&self.run, SWEPT.as_ref(), EVERY)
    }

    /// `None` if there is no such entry, an error if it is damaged.
    fn read(&self, dir: &OwnedFd, name: &OsStr) -> Option<Result<Entry>> {
        match self.user {
            None => file::open_read(dir, name).ok().map(parse),
            Some(uid) => read_of(uid, dir, name),
        }
    }

    fn complain(&self, name: &OsStr, cause: &anyhow::Error) {
        log::warn!("registry entry {name:?}{} is not usable, ignoring: {cause:#}", self.whose());
    }

    fn whose(&self) -> String {
        self.user.map(|uid| format!(" of user {uid}")).unwrap_or_default()
    }
}

fn parse(file: std::fs::File) -> Result<Entry> {
    let entry: Entry = serde_json::from_slice(&file::read_bounded(file, MAX, "registry entry")?)?;
    ensure!(entry.pattern.is_some() || entry.refused.is_some(), "it has no pattern");
    Ok(entry)
}

/// Reads an entry of user `uid`. Anything other than a regular file under this name, such as a
/// link, a FIFO or a device, is not even opened.
fn read_of(uid: u32, dir: &OwnedFd, name: &OsStr) -> Option<Result<Entry>> {
    let file = match resolve::open_file_below(dir, name, resolve::Below::NoLinks) {
        Err(crate::sys::Errno::NOENT) => return None,
        other => other.context("open it"),
    };
    let checked = || {
        let file = file?;
        ensure!(users::is_of(&file::stat(&file)?, uid), "it is not that user's alone");
        parse(file)?.checked(uid)
    };
    Some(checked())
}
