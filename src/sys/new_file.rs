//! A file that appears when it is complete.

use super::executor::{Executor, executor};
use super::file;
use anyhow::{Context, Result};
use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A file (0600) that has no name until it is complete: however its creator ends, nothing is left.
/// On a file system without unnamed files it has a temporary name, and a process that outlives its
/// creator removes that.
///
/// # References
/// open(2), `O_TMPFILE`, Linux 3.11; linkat(2) with `AT_SYMLINK_FOLLOW` of /proc/self/fd.
#[derive(Debug)]
pub(crate) struct NewFile {
    dir: OwnedFd,
    file: std::fs::File,
    temporary: Option<Temporary>,
}

/// A temporary name, and who removes it.
#[derive(Debug)]
struct Temporary {
    name: OsString,
    _remover: Executor,
}

impl Temporary {
    fn new(dir: &OwnedFd) -> Result<Self> {
        let name = OsString::from(format!(".oci-coredump.{}.new", std::process::id()));
        let remove = || {
            let _ = fs::unlinkat(dir, &name, AtFlags::empty());
        };
        let _remover = executor(&[dir.as_fd()], remove)?;
        Ok(Temporary { name, _remover })
    }
}

impl NewFile {
    /// Creates it in an open directory.
    pub(crate) fn create(dir: impl AsFd) -> Result<Self> {
        let dir = file::reopen_dir(dir)?;
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let (file, temporary) = match fs::openat(&dir, ".", flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => (file.into(), None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                let temporary = Temporary::new(&dir)?;
                let file = file::create_readable(&dir, &temporary.name, 0o600);
                (file.context("openat(O_CREAT|O_EXCL)")?.into(), Some(temporary))
            }
            Err(e) => return Err(e).context("openat(O_TMPFILE)"),
        };
        let new = NewFile { dir, file, temporary };
        file::chmod(&new.file, 0o600)?;
        Ok(new)
    }

    /// The file, still without its final name, for writing.
    pub(crate) fn file(&self) -> &std::fs::File {
        &self.file
    }

    /// Gives it its name, unless there is a file of that name: `EEXIST`.
    ///
    /// # References
    /// linkat(2), which never replaces; renameat2(2), `RENAME_NOREPLACE`, Linux 3.15.
    pub(crate) fn name_new(self, name: &OsStr) -> Result<()> {
        match &self.temporary {
            Some(Temporary { name: between, .. }) => {
                let flags = RenameFlags::NOREPLACE;
                fs::renameat_with(&self.dir, between, &self.dir, name, flags).context("renameat2")
            }
            None => self.link(name).context("linkat"),
        }
    }

    fn link(&self, name: &OsStr) -> rustix::io::Result<()> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        fs::linkat(fs::CWD, own.as_str(), &self.dir, name, AtFlags::SYMLINK_FOLLOW)
    }

    /// Gives it its name, replacing a file of that name.
    pub(crate) fn name(mut self, name: &OsStr) -> Result<()> {
        let between = match self.temporary.take() {
            Some(temporary) => temporary,
            None => {
                match self.link(name) {
                    Err(Errno::EXIST) => {}
                    other => return other.context("linkat"),
                }
                let between = Temporary::new(&self.dir)?;
                self.link(&between.name).context("linkat")?;
                between
            }
        };
        // What is left of the temporary name is removed when it is dropped.
        fs::renameat(&self.dir, &between.name, &self.dir, name).context("renameat")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_new_name_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let make = |text: &str| {
            let new = NewFile::create(file::open_dir(dir.path()).unwrap()).unwrap();
            new.file().write_all(text.as_bytes()).unwrap();
            new
        };
        make("first").name_new("x".as_ref()).unwrap();
        let e = make("second").name_new("x".as_ref()).unwrap_err();
        assert_eq!(e.downcast_ref(), Some(&Errno::EXIST));
        assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"first");
        make("third").name("x".as_ref()).unwrap();
        assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"third");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
