//! The host's store: cores of containers that mount no volume, and the records of all crashes.
//!
//! ```text
//! <store>/                  0700 root
//!   containers/<id>/        1777, bind-mounted into the container, read-only
//!   records/<time>-<pid>-<id>.jsonl
//!   binaries/<id>-<hash>    0600 root: executables and libraries of the cores
//!   binaries/by/<account>/  links to the binaries that count for an account
//!   debuginfod/             0700 root: files that debuginfod servers gave
//!   engines/<engine>.json   what `install ENGINE` changed
//!   sysctl.json             the sysctls as they were before, with a copy
//! ```

pub(crate) mod binaries;
pub(crate) mod binaries_budget;
pub(crate) mod fetched;
mod records;
pub(crate) mod tree;
pub(crate) mod uploads;

#[cfg(any(test, fuzzing))]
pub(crate) use records::last;
pub(crate) use records::{RecordFile, Records};

use crate::config::Config;
use crate::sys::{Errno, file, resolve, user};
use anyhow::{Context, Result, ensure};
use fetched::Fetched;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Name of the directory of what debuginfod servers gave.
const FETCHED: &str = "debuginfod";

/// Mode of the directories that are made for cores: everyone in the container may add files, and no
/// one may remove another's.
pub(crate) const DUMP_DIR_MODE: u32 = 0o1777;

/// The path that was found to be root's alone. A process looks once, since only root can change
/// that afterwards.
static CHECKED: OnceLock<PathBuf> = OnceLock::new();

/// A store that exists, by its path and its open directory.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    dir: OwnedFd,
}

impl Store {
    /// Opens the configured store, making it if it does not exist.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        Self::open_at(&config.store)
    }

    /// Opens the store at `path`, making it if it does not exist.
    ///
    /// # Errors
    /// It cannot be made. Or, for root: another user could replace it. The store names the program
    /// that root starts for the crashes of the host.
    pub(crate) fn open_at(path: &Path) -> Result<Self> {
        let shown = || format!("store {}", path.display());
        let dir = file::make_path(path, 0o700).with_context(shown)?;
        if user::is_host_root() && CHECKED.get().is_none_or(|checked| checked != path) {
            // A symbolic link in it fails the check, and then counts as what it leads to.
            let checked = file::check_own(path).or_else(|_| file::check_own(&path.canonicalize()?));
            checked.with_context(shown)?;
            let _ = CHECKED.set(path.to_owned());
        }
        Ok(Store { path: path.to_owned(), dir })
    }

    /// Opens the configured store if it exists.
    pub(crate) fn peek(config: &Config) -> Option<Self> {
        let dir = file::open_dir(&config.store).and_then(file::reopen_dir).ok()?;
        Some(Store { path: config.store.clone(), dir })
    }

    /// Opens the store at `path` for reading; `None` if it does not exist.
    ///
    /// # Errors
    /// It exists but cannot be opened, or it belongs to another user: its records name files, and
    /// whoever wrote them could make the reader open or remove any file that the reader may.
    pub(crate) fn open_existing(path: &Path) -> Result<Option<Self>> {
        match file::open_dir(path).and_then(file::reopen_dir) {
            Ok(dir) => {
                let owner = file::stat(&dir)?.uid;
                ensure!(
                    owner == 0 || owner == user::effective_uid(),
                    "store {}: it is user {owner}'s, and is read as that user only (`sudo -u \
                     '#{owner}'`)",
                    path.display()
                );
                Ok(Some(Store { path: path.to_owned(), dir }))
            }
            Err(e) if file::is_missing(&e) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("store {}", path.display())),
        }
    }

    /// The directory of the records, if it exists.
    pub(crate) fn existing_records(&self) -> Result<Option<Records>> {
        match resolve::resolve(
            &self.dir,
            "records".as_ref(),
            resolve::Below::NoLinks,
            resolve::Want::Directory,
        ) {
            Ok(dir) => Ok(Some(Records::new(file::reopen_dir(dir)?))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("open {}/records", self.path.display())),
        }
    }

    /// Removes the empty directories of the store, and the store itself if it is empty then.
    /// Returns a description of what stays.
    pub(crate) fn tidy(&self) -> Result<Option<String>> {
        let containers = self.containers()?;
        let mut cores = 0;
        for name in file::names(&containers)? {
            cores += usize::from(!tree::remove_if_empty(&containers, &name)?);
        }
        let records = self.records()?.count()?;
        if let (Some(binaries), 0) = (self.existing_binaries(), records) {
            binaries.clear()?;
        }
        for fetched in self.existing_fetched().iter() {
            fetched.all()?.iter().try_for_each(|file| fetched.remove(&file.name))?;
        }
        for name in ["containers", "records", "binaries", FETCHED] {
            file::remove_empty_dir(&self.dir, name.as_ref())?;
        }
        if let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) {
            file::remove_empty_dir(file::open_dir(parent)?, name)?;
        }
        Ok((cores + records > 0)
            .then(|| format!("cores of {cores} container(s) and {records} record(s)")))
    }

    /// Removes all parts of the store at `path` that this project made, and the directory if it is
    /// empty then. Returns whether anything else is left.
    ///
    /// # Errors
    /// Names what cannot be removed.
    pub(crate) fn purge(path: &Path) -> Result<bool> {
        let Ok(dir) = file::open_dir(path) else { return Ok(false) };
        for name in ["containers", "records", "binaries", FETCHED, "engines"] {
            match std::fs::remove_dir_all(path.join(name)) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                // A mount point stays, empty.
                Err(e) if e.kind() == ErrorKind::ResourceBusy => {}
                Err(e) => {
                    return Err(e).with_context(|| format!("remove {}/{name}", path.display()));
                }
            }
        }
        for name in ["sysctl.json", "sysctl.json.copy"] {
            file::unlink(&dir, name.as_ref())?;
        }
        let parent = path.parent().zip(path.file_name());
        let Some((parent, name)) = parent else { return Ok(true) };
        Ok(!file::remove_empty_dir(file::open_dir(parent)?, name)?)
    }

    fn containers(&self) -> Result<OwnedFd> {
        file::make_dir(&self.dir, "containers".as_ref(), 0o700)
    }

    /// IDs of the containers that have a dump directory.
    pub(crate) fn container_ids(&self) -> Result<Vec<String>> {
        let names = match file::open_subdir(&self.dir, "containers".as_ref()) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            dir => file::names(dir.context("open containers")?)?,
        };
        Ok(names.iter().filter_map(|name| Some(name.to_str()?.to_owned())).collect())
    }

    /// The path that the store was opened at.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Path on the host of a container's dump directory.
    pub(crate) fn container_path(&self, id: &str) -> PathBuf {
        self.path.join("containers").join(id)
    }

    /// The dump directory of a container, made if it does not exist. `owner` is the user and group
    /// ID of the container's root.
    pub(crate) fn container_dir(&self, id: &str, owner: (u32, u32)) -> Result<OwnedFd> {
        let dir = file::make_dir(self.containers()?, OsStr::new(id), DUMP_DIR_MODE)?;
        file::chown(&dir, owner.0, owner.1)?;
        file::chmod(&dir, DUMP_DIR_MODE)?;
        Ok(dir)
    }

    /// Removes a container's dump directory if no file is in it. Returns whether it did.
    pub(crate) fn forget_empty(&self, id: &str) -> Result<bool> {
        tree::remove_if_empty(&self.containers()?, OsStr::new(id))
    }

    /// Opens the directory of the records, making it if it does not exist.
    pub(crate) fn records(&self) -> Result<Records> {
        Ok(Records::new(file::make_dir(&self.dir, "records".as_ref(), 0o700)?))
    }

    /// Opens the directory of the kept binaries, making it if it does not exist.
    pub(crate) fn binaries(&self) -> Result<binaries::KeptBinaries> {
        Ok(binaries::KeptBinaries::new(file::make_dir(&self.dir, "binaries".as_ref(), 0o700)?))
    }

    /// Opens the directory of the kept binaries if it exists.
    pub(crate) fn existing_binaries(&self) -> Option<binaries::KeptBinaries> {
        file::open_subdir(&self.dir, "binaries".as_ref()).ok().map(binaries::KeptBinaries::new)
    }

    /// Opens the directory of what debuginfod servers gave, making it if it does not exist.
    pub(crate) fn fetched(&self) -> Result<Fetched> {
        Fetched::open(&self.path.join(FETCHED))
    }

    /// Opens the directory of what debuginfod servers gave if it exists.
    pub(crate) fn existing_fetched(&self) -> Option<Fetched> {
        Fetched::look(&self.path.join(FETCHED))
    }

    /// The directory of the store, which holds the saved sysctls.
    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.dir
    }
}
