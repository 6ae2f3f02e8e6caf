//! The host's store: cores of containers that mount no volume, and the records of all.
//!
//! ```text
//! <store>/                  0700 root
//!   containers/<id>/        1777, bind-mounted into the container, read-only
//!   records/<time>-<pid>-<id>.jsonl
//!   binaries/<id>-<hash>    0600 root: executables and libraries of the cores
//!   binaries/by/<account>/  links to those that count for an account
//!   engines/<engine>.json   what `install ENGINE` changed
//!   sysctl.json             what was there before us, with a copy
//! ```

pub mod binaries;
pub mod pot;
mod records;

#[cfg(any(test, fuzzing))]
pub use records::last;
pub use records::{RecordFile, Records};

use crate::config::Config;
use crate::sys::{Errno, file, process, resolve};
use anyhow::{Context, Result, ensure};
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
    ///
    /// # Errors
    /// It cannot be made; or, for root, somebody else could put another in its place: what is in it says
    /// which program root starts for the crashes of the host.
    pub fn open_at(path: &Path) -> Result<Self> {
        let shown = || format!("store {}", path.display());
        let dir = file::make_path(path, 0o700).with_context(shown)?;
        if process::is_host_root() {
            let real = path.canonicalize().with_context(shown)?;
            file::check_own(&real).with_context(shown)?;
        }
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
    /// It is there, but may not be opened; or it is another user's: its records say where its cores are,
    /// and whoever wrote them would have the reader open, or remove, any file that the reader may.
    pub fn look(path: &Path) -> Result<Option<Self>> {
        match file::open_dir(path).and_then(file::reopen_dir) {
            Ok(dir) => {
                let owner = file::stat(&dir)?.uid;
                ensure!(
                    owner == 0 || owner == process::effective_uid(),
                    "store {}: it is user {owner}'s, and is read as that user only (`sudo -u '#{owner}'`)",
                    path.display()
                );
                Ok(Some(Store { path: path.to_owned(), dir }))
            }
            Err(e) if file::is_missing(&e) => Ok(None),
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

    /// Removes what is ours of the store at `path`, and the directory if that was all. Whether anything
    /// else stays.
    ///
    /// # Errors
    /// What cannot be removed.
    pub fn purge(path: &Path) -> Result<bool> {
        let Ok(dir) = file::open_dir(path) else { return Ok(false) };
        for name in ["containers", "records", "binaries", "engines"] {
            match std::fs::remove_dir_all(path.join(name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(e).with_context(|| format!("remove {}/{name}", path.display()));
                }
                _ => {}
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

    /// The containers that have a dump directory.
    pub fn container_ids(&self) -> Result<Vec<String>> {
        let names = match file::open_subdir(&self.dir, "containers".as_ref()) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            dir => file::names(dir.context("open containers")?)?,
        };
        Ok(names.iter().filter_map(|name| Some(name.to_str()?.to_owned())).collect())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
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
