//! The host's store: cores of containers that mount no volume, and the records of all.
//!
//! ```text
//! <store>/                  0700 root
//!   containers/<id>/        1777, bind-mounted into the container
//!   records/<time>-<pid>-<id>.json
//!   binaries/<build-id>     0600 root: executables and libraries of the cores
//!   engines/<engine>.json   what `install ENGINE` changed
//! ```

pub mod binaries;

use crate::config::Config;
use crate::record::Record;
use crate::sys::file::Draft;
use crate::sys::watch::Watch;
use crate::sys::{Errno, file};
use anyhow::{Context, Result};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
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
        let dir = file::make_path(path, 0o700).with_context(|| format!("store {}", path.display()))?;
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
        match file::resolve(&self.dir, "records".as_ref(), file::Below::NoLinks, true) {
            Ok(dir) => Ok(Some(Records(file::reopen_dir(dir)?))),
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
        let records = file::names(&self.records()?.0)?.len();
        if let (Some(binaries), 0) = (self.look_at_binaries(), records) {
            binaries.clear()?;
        }
        for name in ["containers", "records", "binaries"] {
            file::remove_empty_dir(&self.dir, name.as_ref())?;
        }
        if let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) {
            file::remove_empty_dir(file::open_dir(parent)?, name)?;
        }
        Ok((cores + records > 0).then(|| format!("cores of {cores} container(s) and {records} record(s)")))
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
        Ok(Records(file::make_dir(&self.dir, "records".as_ref(), 0o700)?))
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

fn text(record: &Record) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(record).context("record to JSON")?;
    text.push(b'\n');
    Ok(text)
}

/// Largest record that is read, in bytes.
const MAX_RECORD: usize = 256 << 10;

fn is_missing(e: &anyhow::Error) -> bool {
    e.root_cause().downcast_ref() == Some(&Errno::NOENT)
}

/// The directory of the records, open.
#[derive(Debug)]
pub struct Records(OwnedFd);

impl Records {
    /// Writes a record, or writes it again: a reader sees the old or the new one whole.
    pub fn write(&self, record: &Record) -> Result<()> {
        file::replace(&self.0, &Self::name(record), &text(record)?, 0o600)
    }

    /// Prepares the last word of a record whose first one is there, while there is time for it.
    pub fn draft(&self, record: &Record) -> Result<Draft> {
        Draft::of(&self.0, &Self::name(record), 0o600)
    }

    /// Writes the last word. Returns the name of what is left to remove when nobody waits any more.
    pub fn conclude(&self, record: &Record, draft: Option<Draft>) -> Result<Option<OsString>> {
        let text = text(record)?;
        match draft.map(|draft| draft.exchange(&self.0, &Self::name(record), &text)) {
            Some(Ok(old)) => Ok(Some(old)),
            // The first word was never said, the dump took so long that its draft was swept away, or the file system knows no exchange.
            _ => self.write(record).map(|()| None),
        }
    }

    /// The names of all records, the oldest first.
    pub fn names(&self) -> Result<Vec<OsString>> {
        let mut names = file::names(&self.0)?;
        names.retain(|n| n.as_bytes().ends_with(b".json"));
        names.sort_unstable();
        Ok(names)
    }

    /// Reads one record. `None` if it has gone, or is damaged, which is said.
    pub fn read(&self, name: &OsStr) -> Option<Record> {
        let read = || -> Result<Record> {
            let file = file::open_read(&self.0, name)?;
            Ok(serde_json::from_slice(&file::read_bounded(file, MAX_RECORD, "record")?)?)
        };
        read().map_err(|e| (!is_missing(&e)).then(|| log::warn!("record {name:?} is not readable, ignoring: {e:#}"))).ok()
    }

    /// Writes a record again, unless it was removed meanwhile.
    pub fn amend(&self, record: &Record) -> Result<()> {
        match file::stat_at(&self.0, &Self::name(record)) {
            Err(Errno::NOENT) => Ok(()),
            _ => self.write(record),
        }
    }

    /// Removes a record; a missing one is no error.
    pub fn remove(&self, name: &OsStr) -> Result<()> {
        file::unlink(&self.0, name)
    }

    /// Removes what was left behind by a helper that was killed: the beginning of a record, or one in whose place a newer one stands.
    pub fn sweep(&self) -> Result<()> {
        for name in file::names(&self.0)? {
            let left = name.to_str().is_some_and(|n| n.contains(".json.") && n.ends_with(".new"));
            if left && file::stat_at(&self.0, &name).is_ok_and(|s| binaries::is_settled(s.modified)) {
                file::unlink(&self.0, &name)?;
            }
        }
        Ok(())
    }

    /// Starts watching for records that are written from now on.
    pub fn watch(&self) -> Result<Watch> {
        Watch::directory(&self.0)
    }

    /// Sorts by time; unique since a PID dies once in a second.
    fn name(record: &Record) -> OsString {
        let time: String = record.time.chars().filter(char::is_ascii_alphanumeric).collect();
        let id: String = record.names.container_id.chars().take(12).collect();
        format!("{time}-{}-{id}.json", record.host_pid).into()
    }
}
