//! The host's store: cores of containers that mount no volume, and the records of all.
//!
//! ```text
//! <store>/                  0700 root
//!   containers/<id>/        1777, bind-mounted into the container
//!   records/<time>-<pid>-<id>.jsonl
//!   binaries/<id>-<hash>    0600 root: executables and libraries of the cores
//!   engines/<engine>.json   what `install ENGINE` changed
//! ```

pub mod binaries;
pub mod pot;
mod records;

#[cfg(any(test, fuzzing))]
pub use records::last;
pub use records::{RecordFile, Records};

use crate::config::Config;
use crate::sys::{Errno, file, resolve};
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The mode of a directory that we make for cores: everybody in the container may add, nobody may remove another's.
pub const DUMP_DIR_MODE: u32 = 0o1777;

/// An open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    dir: OwnedFd,
}

impl Store {
    /// Opens the store, making it if it is not there.
    pub fn open(config: &Config) -> Result<Self> {
        Self::open_at(&config.store)
    }

    /// Opens the store at `path`, making it if it is not there.
    pub fn open_at(path: &Path) -> Result<Self> {
        let dir =
            file::make_path(path, 0o700).with_context(|| format!("store {}", path.display()))?;
        Ok(Store { path: path.to_owned(), dir })
    }

    /// Opens the store if there is one.
    pub fn peek(config: &Config) -> Option<Self> {
        let dir = file::open_dir(&config.store).and_then(file::reopen_dir).ok()?;
        Some(Store { path: config.store.clone(), dir })
    }

    /// Opens the store at `path` to read it; `None` if there is none.
    ///
    /// # Errors
    /// It is there, but may not be opened.
    pub fn look(path: &Path) -> Result<Option<Self>> {
        match file::open_dir(path).and_then(file::reopen_dir) {
            Ok(dir) => Ok(Some(Store { path: path.to_owned(), dir })),
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("open store {}", path.display())),
        }
    }

    /// The directory of the records, if there is one.
    pub fn look_at_records(&self) -> Result<Option<Records>> {
        match resolve::resolve(&self.dir, "records".as_ref(), resolve::Below::NoLinks, true) {
            Ok(dir) => Ok(Some(Records::new(file::reopen_dir(dir)?))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("open {}/records", self.path.display())),
        }
    }

    /// Removes the directories of the store that are empty, and the store with them. What stays, in words.
    pub fn tidy(&self) -> Result<Option<String>> {
        let containers = self.containers()?;
        let mut cores = 0;
        for name in file::names(&containers)? {
            cores += usize::from(!file::remove_empty_dir(&containers, &name)?);
        }
        let records = self.records()?.count()?;
        if let (Some(binaries), 0) = (self.look_at_binaries(), records) {
            binaries.clear()?;
        }
        for name in ["containers", "records", "binaries"] {
            file::remove_empty_dir(&self.dir, name.as_ref())?;
        }
        if let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) {
            file::remove_empty_dir(file::open_dir(parent)?, name)?;
        }
        Ok((cores + records > 0)
            .then(|| format!("cores of {cores} container(s) and {records} record(s)")))
    }

    fn containers(&self) -> Result<OwnedFd> {
        file::make_dir(&self.dir, "containers".as_ref(), 0o700)
    }

    /// The host path of a container's dump directory.
    pub fn container_path(&self, id: &str) -> PathBuf {
        self.path.join("containers").join(id)
    }

    /// The dump directory of a container, made if it is missing, owned by the container's root user.
    pub fn container_dir(&self, id: &str, owner: (u32, u32)) -> Result<OwnedFd> {
        let dir = file::make_dir(self.containers()?, OsStr::new(id), DUMP_DIR_MODE)?;
        file::chown(&dir, owner.0, owner.1)?;
        file::chmod(&dir, DUMP_DIR_MODE)?;
        Ok(dir)
    }

    /// Removes a container's dump directory if no core came.
    pub fn forget_empty(&self, id: &str) -> Result<bool> {
        file::remove_empty_dir(self.containers()?, OsStr::new(id))
    }

    /// Opens the directory of the records.
    pub fn records(&self) -> Result<Records> {
        Ok(Records::new(file::make_dir(&self.dir, "records".as_ref(), 0o700)?))
    }

    /// Opens the directory of the kept binaries, made if it is missing.
    pub fn binaries(&self) -> Result<binaries::Binaries> {
        Ok(binaries::Binaries::new(file::make_dir(&self.dir, "binaries".as_ref(), 0o700)?))
    }

    /// The same, if there is one.
    pub fn look_at_binaries(&self) -> Option<binaries::Binaries> {
        file::open_subdir(&self.dir, "binaries".as_ref()).ok().map(binaries::Binaries::new)
    }

    /// Where the saved sysctls lie.
    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }
}

fn is_missing(e: &anyhow::Error) -> bool {
    e.root_cause().downcast_ref() == Some(&Errno::NOENT)
}
