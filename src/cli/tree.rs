//! Writes a bundle into a directory, by descriptor. Modes are 0700 and 0600 whatever the umask,
//! every file belongs to its reader from the start, and no symbolic link is followed.

use super::announced::Announced;
use super::sink::BundleSink;
use crate::sys::{OwnedFd, file, proc};
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::time::{Duration, UNIX_EPOCH};

/// A directory, which must be empty and writable by its owner only.
pub(super) struct Tree {
    /// The directory, opened.
    pub root: OwnedFd,
    /// The user and group ID of everything in it, if they are not the caller's.
    pub owner: Option<u32>,
}

impl Tree {
    /// Makes the directory `path` below it, and opens it.
    pub(super) fn dir(&self, path: &Path) -> Result<OwnedFd> {
        let mut dir = self.root.try_clone().context("dup")?;
        for component in path.components() {
            let Component::Normal(name) = component else {
                anyhow::bail!("{path:?} is no path of plain names")
            };
            dir = self.subdir(&dir, name).with_context(|| format!("mkdir {path:?}"))?;
        }
        Ok(dir)
    }

    fn subdir(&self, dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
        let made = file::mkdirat(dir, name, 0o700);
        let sub = file::open_subdir(dir, name)?;
        if made.is_ok() {
            file::chmod(&sub, 0o700)?;
            self.give(&sub)?;
        }
        Ok(sub)
    }

    fn give(&self, fd: &impl crate::sys::AsFd) -> Result<()> {
        self.owner.map_or(Ok(()), |uid| file::chown(fd, uid, uid))
    }

    /// Creates the file `name`, which must not exist.
    pub(super) fn create(&self, name: &Path) -> Result<std::fs::File> {
        let (dir, last) = self.place(name)?;
        let file = file::create_new(dir, last, 0o600)?;
        file::chmod(&file, 0o600)?;
        self.give(&file)?;
        Ok(file)
    }

    fn place<'a>(&self, name: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
        let dir = self.dir(name.parent().unwrap_or(Path::new("")))?;
        Ok((dir, name.file_name().unwrap_or_default()))
    }
}

/// Sets an old modification time: gdb warns about an executable that is newer than its core.
pub(super) fn make_old(file: &std::fs::File) -> Result<()> {
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).context("futimens")
}

impl BundleSink for Tree {
    fn file(&mut self, name: &Path, file: &mut Announced) -> Result<()> {
        let to = self.create(name)?;
        file.copy_to(&to).with_context(|| format!("write {}", name.display()))?;
        make_old(&to)
    }

    fn text(&mut self, name: &Path, text: &str, _: bool) -> Result<()> {
        Ok(self.create(name)?.write_all(text.as_bytes())?)
    }

    fn link(&mut self, name: &Path, target: &Path) -> Result<()> {
        let (dir, last) = self.place(name)?;
        file::symlink(dir, proc::os(target.as_os_str().as_bytes()), last)
            .with_context(|| format!("symlink {}", name.display()))
    }
}
