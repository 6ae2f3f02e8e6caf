//! Opens, creates and removes by descriptor and name.

use anyhow::{Context, Result, bail};
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Opens a directory of the host by its absolute path. Only for paths of this project and the
/// administrator, never for a container's.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open({path:?}, O_PATH|O_DIRECTORY)"))
}

/// Opens `name` below `dir` for reading; the last component may not be a symbolic link.
pub(crate) fn open_read(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<std::fs::File> {
    fs::openat(
        dir,
        name,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
        Mode::empty(),
    )
    .map(Into::into)
}

/// Opens `name` below `dir` for reading and writing; the last component may not be a symbolic link.
pub(crate) fn open_to_change(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<std::fs::File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    fs::openat(dir, name, flags, Mode::empty()).map(Into::into)
}

/// Opens `name` below `dir` for adding to its end, and makes it (0600) if it is missing.
pub(crate) fn open_append(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<std::fs::File> {
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).map(Into::into)
}

/// Reads at most `max` bytes; more is an error, never a silent truncation.
pub(crate) fn read_bounded(file: impl Read, max: usize, what: &str) -> Result<Vec<u8>> {
    let mut buf = Vec::with_capacity(4096.min(max + 1));
    file.take(max as u64 + 1).read_to_end(&mut buf).with_context(|| format!("read {what}"))?;
    if buf.len() > max {
        bail!("{what} is larger than {max} bytes");
    }
    Ok(buf)
}

/// Opens the directory `name` below `dir` for reading; not through a symbolic link.
pub(crate) fn open_subdir(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    fs::openat(
        dir,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens the directory `name` below `dir`, making it if it does not exist. `mode` is exact, since
/// `main` has cleared the umask.
pub(crate) fn make_dir(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<OwnedFd> {
    match open_subdir(&dir, name) {
        Err(Errno::NOENT) => {}
        other => return other.with_context(|| format!("openat({name:?}, O_DIRECTORY|O_NOFOLLOW)")),
    }
    match fs::mkdirat(&dir, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e).with_context(|| format!("mkdirat({name:?}, {mode:#o})")),
    }
    open_subdir(&dir, name).with_context(|| format!("openat({name:?}, O_DIRECTORY|O_NOFOLLOW)"))
}

/// Makes every missing directory of the host path `path` and opens the last one, which
/// gets `mode` when it is made.
pub(crate) fn make_path(path: &Path, mode: u32) -> Result<OwnedFd> {
    if let Ok(dir) = open_subdir(fs::CWD, path.as_os_str()) {
        return Ok(dir);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("{path:?} names no directory")
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(parent)
        .with_context(|| format!("mkdir({parent:?})"))?;
    make_dir(open_dir(parent)?, name, mode)
}

/// Changes owner and group by descriptor.
pub(crate) fn chown(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    fs::fchown(fd, Some(uid), Some(gid)).context("fchown")
}

/// Changes the mode by descriptor.
pub(crate) fn chmod(fd: impl AsFd, mode: u32) -> Result<()> {
    fs::fchmod(fd, Mode::from_raw_mode(mode)).with_context(|| format!("fchmod({mode:#o})"))
}

/// Writes `content` as the new file `name` below `dir`; an existing one is an error.
pub(crate) fn write_new(dir: impl AsFd, name: &OsStr, content: &[u8], mode: u32) -> Result<()> {
    use std::io::Write;
    create_new(dir, name, mode)?.write_all(content).with_context(|| format!("write({name:?})"))
}

/// Makes the new file `name` below `dir` for writing; an existing one is an error.
pub(crate) fn create_new(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<std::fs::File> {
    create_exclusive(dir, name, mode)
        .map(Into::into)
        .with_context(|| format!("openat({name:?}, O_CREAT|O_EXCL)"))
}

/// Gives the file `from` the additional name `to` in another directory,
/// replacing a file of that name.
pub(crate) fn link(from_dir: impl AsFd, from: &OsStr, to_dir: impl AsFd, to: &OsStr) -> Result<()> {
    let _ = fs::unlinkat(&to_dir, to, AtFlags::empty());
    fs::linkat(from_dir, from, to_dir, to, AtFlags::empty())
        .with_context(|| format!("linkat({from:?}, {to:?})"))
}

/// Opens a small file for reading and writing numbers, making it if it does not exist.
pub(crate) fn open_counter(dir: impl AsFd, name: &OsStr) -> Result<std::fs::File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))
        .with_context(|| format!("openat({name:?}, O_RDWR)"))?;
    Ok(fd.into())
}

/// Checks that only root can replace a path: of the directories above it, others may write only to
/// sticky ones (/tmp), and no part of it is a symbolic link.
///
/// # Errors
/// The part that another user could change, and why.
pub(crate) fn check_own(path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    for part in path.ancestors() {
        let meta =
            std::fs::symlink_metadata(part).with_context(|| format!("stat {}", part.display()))?;
        let owner = meta.uid();
        anyhow::ensure!(owner == 0, "{} belongs to user {owner}, not to root", part.display());
        let is_sticky = meta.is_dir() && meta.mode() & 0o1000 != 0 && part != path;
        anyhow::ensure!(
            meta.mode() & 0o022 == 0 || is_sticky,
            "{} is writable by others",
            part.display()
        );
    }
    Ok(())
}

/// Moves a name to another directory, replacing a file with the new name.
pub(crate) fn rename_to(from: impl AsFd, name: &OsStr, to: impl AsFd, new: &OsStr) -> Result<()> {
    fs::renameat(from, name, to, new).with_context(|| format!("renameat({name:?}, {new:?})"))
}

/// Removes a name. A missing one is no error.
pub(crate) fn unlink(dir: impl AsFd, name: &OsStr) -> Result<()> {
    ignore_missing(fs::unlinkat(dir, name, AtFlags::empty()))
        .with_context(|| format!("unlinkat({name:?})"))
}

/// Removes an empty directory, and returns whether it did. One that is missing, not empty or a
/// mount point is no error: whoever mounted it goes on having it.
pub(crate) fn remove_empty_dir(dir: impl AsFd, name: &OsStr) -> Result<bool> {
    match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(false),
        Err(e) => Err(e).with_context(|| format!("unlinkat({name:?}, AT_REMOVEDIR)")),
    }
}

fn ignore_missing(r: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match r {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// The names in a directory, without `.` and `..`.
pub(crate) fn names(dir: impl AsFd) -> Result<Vec<std::ffi::OsString>> {
    let mut out = Vec::new();
    for entry in fs::Dir::read_from(dir).context("getdents")? {
        let entry = entry.context("getdents")?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            out.push(name.to_owned());
        }
    }
    Ok(out)
}

/// Whether the directory has no entry. One entry read is enough to know.
pub(crate) fn is_empty_dir(dir: impl AsFd) -> Result<bool> {
    for entry in fs::Dir::read_from(dir).context("getdents")? {
        let entry = entry.context("getdents")?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates a new regular file for writing. An existing name, including a
/// dangling link, is an error.
pub(crate) fn create_exclusive(
    dir: impl AsFd,
    name: &OsStr,
    mode: u32,
) -> rustix::io::Result<OwnedFd> {
    create(dir, name, mode, OFlags::WRONLY)
}

/// The same, also for reading what was written.
pub(crate) fn create_readable(
    dir: impl AsFd,
    name: &OsStr,
    mode: u32,
) -> rustix::io::Result<OwnedFd> {
    create(dir, name, mode, OFlags::RDWR)
}

fn create(dir: impl AsFd, name: &OsStr, mode: u32, access: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = access
        | OFlags::CREATE
        | OFlags::EXCL
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC
        | OFlags::LARGEFILE;
    fs::openat(dir, name, flags, Mode::from_raw_mode(mode))
}

/// Makes one directory below `dir`; an existing name is an error.
pub(crate) fn mkdirat(dir: impl AsFd, name: &OsStr, mode: u32) -> rustix::io::Result<()> {
    fs::mkdirat(dir, name, Mode::from_raw_mode(mode))
}

/// Opens an `O_PATH` directory descriptor again, for reading its entries or changing its mode.
pub(crate) fn reopen_dir(fd: impl AsFd) -> Result<OwnedFd> {
    fs::openat(fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("openat(\".\", O_DIRECTORY)")
}

/// Where a symbolic link below `dir` points to.
pub(crate) fn read_link(dir: impl AsFd, name: &OsStr) -> Result<Vec<u8>> {
    Ok(fs::readlinkat(dir, name, Vec::new())
        .with_context(|| format!("readlinkat({name:?})"))?
        .into_bytes())
}

/// Makes the symbolic link `name` below `dir`; an existing name is an error.
pub(crate) fn symlink(dir: impl AsFd, target: &OsStr, name: &OsStr) -> rustix::io::Result<()> {
    fs::symlinkat(target, dir, name)
}

/// Changes into a directory by descriptor.
pub(crate) fn change_dir(fd: impl AsFd) -> Result<()> {
    rustix::process::fchdir(fd).context("fchdir")
}

/// Makes a directory the root of this process, and its working directory.
pub(crate) fn change_root(fd: impl AsFd) -> Result<()> {
    change_dir(fd)?;
    rustix::process::chroot(".").context("chroot(\".\")")
}

/// Sets the file creation mask of this process.
pub fn set_umask(mask: u32) {
    rustix::process::umask(Mode::from_raw_mode(mask));
}

/// Whether the cause of an error is that there is no such file.
pub(crate) fn is_missing(e: &anyhow::Error) -> bool {
    e.root_cause().downcast_ref() == Some(&Errno::NOENT)
}
