//! Resolves paths below a root that is under somebody else's control.

use super::file::open_dir;
use anyhow::Result;
use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How a path is resolved below such a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// As a process with that root would: symbolic links are followed and stay inside.
    InRoot,
    /// Plain names only: a symbolic link is an error.
    NoLinks,
}

/// Opens `path` below `root` with `O_PATH`. Magic links (`/proc/self/exe`) are never followed.
///
/// # References
/// openat2(2), Linux 5.6. `EAGAIN` (a rename raced with us) is tried again.
pub fn resolve(
    root: impl AsFd,
    path: &OsStr,
    below: Below,
    directory: bool,
) -> rustix::io::Result<OwnedFd> {
    let how = match below {
        Below::InRoot => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        Below::NoLinks => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    };
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if directory {
        flags |= OFlags::DIRECTORY;
    }
    let mut tries = 0;
    loop {
        match fs::openat2(&root, path, flags, Mode::empty(), how) {
            Err(Errno::AGAIN) if tries < 32 => tries += 1,
            other => return other,
        }
    }
}

/// Opens the regular file `path` below `root` for reading. Anything else of that name (a FIFO, a
/// device) is detected before it is opened: `EINVAL`.
///
/// # References
/// openat2(2), Linux 5.6; proc(5), `/proc/self/fd`: how an `O_PATH` descriptor is opened again.
pub fn open_file_below(
    root: impl AsFd,
    path: &OsStr,
    below: Below,
) -> rustix::io::Result<std::fs::File> {
    open_file_by(own_files().map_err(|_| Errno::NOENT)?, root, path, below, OFlags::RDONLY)
}

/// The directory through which this process can reopen its descriptors, for a process that will
/// change its root, where /proc may be missing or forged.
///
/// # References
/// proc(5), `/proc/self/fd`.
pub fn own_files() -> Result<OwnedFd> {
    open_dir(Path::new("/proc/self/fd"))
}

/// The same for a process that has changed its root since; `own` is its [`own_files`].
pub fn open_file_in(
    own: impl AsFd,
    root: impl AsFd,
    path: &OsStr,
    below: Below,
) -> rustix::io::Result<std::fs::File> {
    open_file_by(own, root, path, below, OFlags::RDONLY)
}

/// Opens the regular file `name` in a directory for writing, in a process that has changed its root
/// since. Links and anything else of that name are refused.
pub fn open_to_write_in(
    own: impl AsFd,
    dir: impl AsFd,
    name: &OsStr,
) -> rustix::io::Result<std::fs::File> {
    open_file_by(own, dir, name, Below::NoLinks, OFlags::WRONLY)
}

fn open_file_by(
    own: impl AsFd,
    root: impl AsFd,
    path: &OsStr,
    below: Below,
    access: OFlags,
) -> rustix::io::Result<std::fs::File> {
    use std::os::fd::AsRawFd;
    let found = resolve(root, path, below, false)?;
    if FileType::from_raw_mode(fs::fstat(&found)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let again = found.as_raw_fd().to_string();
    fs::openat(
        own,
        again.as_str(),
        access | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .map(Into::into)
}

/// Opens a directory as any program of this process would, below its root and from its working
/// directory, but through no magic link.
pub fn open_dir_as_process(path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat2(fs::CWD, OsStr::from_bytes(path), flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}
