//! Files and directories by descriptor: a directory is opened once, and
//! everything else relative to it.

use anyhow::{Context, Result, bail};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The fields of `fstat` that callers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Device and inode number: the identity of a file on this kernel.
    pub id: (u64, u64),
    /// Permission bits with set-user-ID, set-group-ID and sticky: `st_mode & 07777`.
    pub mode: u32,
    /// Owner, as the initial user namespace sees it.
    pub uid: u32,
    /// Group, as the initial user namespace sees it.
    pub gid: u32,
    /// Number of hard links; 0 after the last name is removed.
    pub links: u64,
    /// Size in bytes, with holes.
    pub size: u64,
    /// Bytes allocated on disk (`st_blocks` times 512).
    pub allocated: u64,
    /// Whether it is a regular file.
    pub regular: bool,
    /// When its bytes last changed, in seconds since 1970.
    pub modified: i64,
}

/// Returns what fstat(2) says of an open file.
pub fn stat(fd: impl AsFd) -> Result<Stat> {
    Ok(known(&fs::fstat(fd).context("fstat")?))
}

/// `fstatat(2)` of `name` below `dir`, which may not be a symbolic link's target.
pub fn stat_at(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<Stat> {
    Ok(known(&fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

#[allow(clippy::unnecessary_cast, reason = "the kernel's types differ between architectures")]
fn known(s: &fs::Stat) -> Stat {
    Stat {
        id: (s.st_dev, s.st_ino),
        mode: s.st_mode & 0o7777,
        uid: s.st_uid,
        gid: s.st_gid,
        links: s.st_nlink as u64,
        size: s.st_size as u64,
        allocated: s.st_blocks as u64 * 512,
        regular: FileType::from_raw_mode(s.st_mode) == FileType::RegularFile,
        modified: s.st_mtime,
    }
}

/// What distinguishes a file from all others, now and later: a file system reuses the inode
/// number of a file that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Device (`makedev` of statx's major and minor number) and inode number.
    pub id: (u64, u64),
    /// When it was last written to: seconds and nanoseconds since 1970.
    pub modified: (i64, u64),
    /// When it was created, if the file system records that: seconds and nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born: Option<(i64, u64)>,
}

impl Identity {
    /// Whether both are the same file. If the file system records the creation time, that and the
    /// inode number decide, so that a file which its owner has written to is still the same; else
    /// the time of the last write must be equal. The device number does not count, since it may
    /// differ after the next boot.
    pub fn is_same_file(&self, other: &Self) -> bool {
        let same_time = match (self.born, other.born) {
            (Some(a), Some(b)) => a == b,
            _ => self.modified == other.modified,
        };
        self.id.1 == other.id.1 && same_time
    }
}

/// The identity of an open file.
///
/// # References
/// statx(2), `STATX_BTIME`, Linux 4.11.
pub fn identity(fd: impl AsFd) -> rustix::io::Result<Identity> {
    Ok(identified(&fs::statx(
        fd,
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )?))
}

/// The identity of the regular file `name` below `dir`; an error for a symbolic link.
pub fn identity_at(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<Identity> {
    let s = fs::statx(
        dir,
        name,
        AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )?;
    match FileType::from_raw_mode(s.stx_mode.into()) {
        FileType::RegularFile => Ok(identified(&s)),
        _ => Err(Errno::NOENT),
    }
}

fn identified(s: &fs::Statx) -> Identity {
    let time = |t: fs::StatxTimestamp| (t.tv_sec, u64::from(t.tv_nsec));
    let born = StatxFlags::from_bits_retain(s.stx_mask).contains(StatxFlags::BTIME);
    Identity {
        id: (fs::makedev(s.stx_dev_major, s.stx_dev_minor), s.stx_ino),
        modified: time(s.stx_mtime),
        born: born.then(|| time(s.stx_btime)),
    }
}

/// Opens a directory of the host by its absolute path. Only for paths of this project and the
/// administrator, never for a container's.
pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open({path:?}, O_PATH|O_DIRECTORY)"))
}

/// Opens `name` below `dir` for reading; the last component may not be a symbolic link.
pub fn open_read(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<std::fs::File> {
    fs::openat(
        dir,
        name,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
        Mode::empty(),
    )
    .map(Into::into)
}

/// Opens `name` below `dir` for reading and writing; the last component may not be a symbolic link.
pub fn open_to_change(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<std::fs::File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    fs::openat(dir, name, flags, Mode::empty()).map(Into::into)
}

/// Opens `name` below `dir` for adding to its end, and makes it (0600) if it is missing.
pub fn open_append(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<std::fs::File> {
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).map(Into::into)
}

/// Reads at most `max` bytes; more is an error, never a silent truncation.
pub fn read_bounded(file: impl Read, max: usize, what: &str) -> Result<Vec<u8>> {
    let mut buf = Vec::with_capacity(4096.min(max + 1));
    file.take(max as u64 + 1).read_to_end(&mut buf).with_context(|| format!("read {what}"))?;
    if buf.len() > max {
        bail!("{what} is larger than {max} bytes");
    }
    Ok(buf)
}

/// Opens the directory `name` below `dir` for reading; not through a symbolic link.
pub fn open_subdir(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    fs::openat(
        dir,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens the directory `name` below `dir`, making it if it does not exist. `mode` is exact, since
/// `main` has cleared the umask.
pub fn make_dir(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<OwnedFd> {
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
pub fn make_path(path: &Path, mode: u32) -> Result<OwnedFd> {
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
pub fn chown(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    fs::fchown(fd, Some(uid), Some(gid)).context("fchown")
}

/// Changes the mode by descriptor.
pub fn chmod(fd: impl AsFd, mode: u32) -> Result<()> {
    fs::fchmod(fd, Mode::from_raw_mode(mode)).with_context(|| format!("fchmod({mode:#o})"))
}

/// Writes `content` as `name` below `dir`: a new file beside it, then a rename, so that a reader
/// sees the old or the new one complete.
pub fn replace(dir: impl AsFd, name: &OsStr, content: &[u8], mode: u32) -> Result<()> {
    let temp = temporary(name);
    match write_new(&dir, &temp, content, mode).and_then(|()| {
        fs::renameat(&dir, &temp, &dir, name).with_context(|| format!("renameat({name:?})"))
    }) {
        Ok(()) => Ok(()),
        Err(e) => {
            let _ = fs::unlinkat(&dir, &temp, AtFlags::empty());
            Err(e)
        }
    }
}

/// The same for what must survive a power failure: the bytes are on disk before the name is, and
/// the name when this returns. An empty directory in its place is removed.
pub fn replace_durably(dir: impl AsFd, name: &OsStr, content: &[u8], mode: u32) -> Result<()> {
    use std::io::Write;
    let temp = temporary(name);
    let attempt = || -> Result<()> {
        let mut file = create_new(&dir, &temp, mode)?;
        file.write_all(content).with_context(|| format!("write({name:?})"))?;
        fs::fsync(&file).with_context(|| format!("fsync({name:?})"))?;
        let rename = || fs::renameat(&dir, &temp, &dir, name);
        match rename() {
            Err(Errno::ISDIR) => {
                remove_empty_dir(&dir, name).map(drop).and_then(|()| Ok(rename()?))
            }
            other => other.map_err(Into::into),
        }
        .with_context(|| format!("renameat({name:?})"))?;
        // A descriptor of O_PATH cannot be synced.
        fs::fsync(reopen_dir(&dir)?).context("fsync of the directory")
    };
    attempt().inspect_err(|_| {
        let _ = fs::unlinkat(&dir, &temp, AtFlags::empty());
    })
}

fn temporary(name: &OsStr) -> OsString {
    let mut temp = name.to_os_string();
    temp.push(format!(".{}.new", std::process::id()));
    temp
}

/// Writes `content` as the new file `name` below `dir`; an existing one is an error.
pub fn write_new(dir: impl AsFd, name: &OsStr, content: &[u8], mode: u32) -> Result<()> {
    use std::io::Write;
    create_new(dir, name, mode)?.write_all(content).with_context(|| format!("write({name:?})"))
}

/// Makes the new file `name` below `dir` for writing; an existing one is an error.
pub fn create_new(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<std::fs::File> {
    create_exclusive(dir, name, mode)
        .map(Into::into)
        .with_context(|| format!("openat({name:?}, O_CREAT|O_EXCL)"))
}

/// Gives the file `from` the additional name `to` in another directory,
/// replacing a file of that name.
pub fn link(from_dir: impl AsFd, from: &OsStr, to_dir: impl AsFd, to: &OsStr) -> Result<()> {
    let _ = fs::unlinkat(&to_dir, to, AtFlags::empty());
    fs::linkat(from_dir, from, to_dir, to, AtFlags::empty())
        .with_context(|| format!("linkat({from:?}, {to:?})"))
}

/// Renames a file within a directory to a name that does not exist yet.
/// Returns whether that was so.
pub fn rename_new(dir: impl AsFd, from: &OsStr, to: &OsStr) -> Result<bool> {
    let made = match fs::linkat(&dir, from, &dir, to, AtFlags::empty()) {
        Err(Errno::EXIST) => false,
        other => {
            other.with_context(|| format!("linkat({from:?}, {to:?})"))?;
            true
        }
    };
    unlink(dir, from)?;
    Ok(made)
}

/// Sets a file's modification time to now.
///
/// # References
/// utimensat(2).
pub fn touch(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    let now = fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW };
    fs::utimensat(
        dir,
        name,
        &fs::Timestamps { last_access: now, last_modification: now },
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// Whether a recurring task is due, by the age of the empty file `stamp`. If so,
/// records that it runs now.
pub fn is_due(dir: impl AsFd, stamp: &OsStr, every: Duration) -> bool {
    let old =
        open_read(&dir, stamp).ok().and_then(|f| f.metadata().and_then(|m| m.modified()).ok());
    // A clock that was set back makes it due too.
    let due =
        old.is_none_or(|t| SystemTime::now().duration_since(t).map_or(true, |age| age > every));
    due && replace(dir, stamp, b"", 0o600).is_ok()
}

/// Opens a small file for reading and writing numbers, making it if it does not exist.
pub fn open_counter(dir: impl AsFd, name: &OsStr) -> Result<std::fs::File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))
        .with_context(|| format!("openat({name:?}, O_RDWR)"))?;
    Ok(fd.into())
}

/// Time since `time`, which is in seconds since 1970. A time in the future counts as now.
pub fn age(time: i64) -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.saturating_sub(Duration::from_secs(u64::try_from(time).unwrap_or(0)))
}

/// Checks that only root can replace a path: of the directories above it, others may write only to
/// sticky ones (/tmp), and no part of it is a symbolic link.
///
/// # Errors
/// The part that another user could change, and why.
pub fn check_own(path: &Path) -> Result<()> {
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
pub fn rename_to(from: impl AsFd, name: &OsStr, to: impl AsFd, new: &OsStr) -> Result<()> {
    fs::renameat(from, name, to, new).with_context(|| format!("renameat({name:?}, {new:?})"))
}

/// Removes a name. A missing one is no error.
pub fn unlink(dir: impl AsFd, name: &OsStr) -> Result<()> {
    ignore_missing(fs::unlinkat(dir, name, AtFlags::empty()))
        .with_context(|| format!("unlinkat({name:?})"))
}

/// Removes an empty directory, and returns whether it did. One that is missing
/// or not empty is no error.
pub fn remove_empty_dir(dir: impl AsFd, name: &OsStr) -> Result<bool> {
    match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
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
pub fn names(dir: impl AsFd) -> Result<Vec<std::ffi::OsString>> {
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
pub fn is_empty_dir(dir: impl AsFd) -> Result<bool> {
    for entry in fs::Dir::read_from(dir).context("getdents")? {
        let entry = entry.context("getdents")?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes the exclusive lock of an open file or directory, waiting for it. Closing
/// the descriptor releases it.
pub fn lock(fd: impl AsFd) -> Result<()> {
    fs::flock(fd, fs::FlockOperation::LockExclusive).context("flock(LOCK_EX)")
}

/// Opens an empty file `name` below `dir` for locking, making it if it does not exist.
/// Nothing can be written to it.
pub fn open_lock(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))
        .with_context(|| format!("openat({name:?}, O_CREAT)"))
}

/// Takes the exclusive lock if it is free. Returns whether it did.
pub fn try_lock(fd: impl AsFd) -> Result<bool> {
    match fs::flock(fd, fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e).context("flock(LOCK_EX|LOCK_NB)"),
    }
}

/// Waits for the exclusive lock for at most `time`; waiters get it in the order in which they came.
/// Returns whether it was taken.
pub fn lock_within(fd: impl AsFd, time: Duration) -> Result<bool> {
    if time.is_zero() {
        return try_lock(fd);
    }
    super::process::with_alarm(time, || match fs::flock(&fd, fs::FlockOperation::LockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::INTR) => Ok(false),
        Err(e) => Err(e).context("flock(LOCK_EX)"),
    })?
}

/// Makes the new file `to` share all blocks with `from`.
///
/// # Errors
/// The file system cannot do that.
///
/// # References
/// ioctl_ficlone(2), Linux 4.5.
pub fn clone_of(from: &std::fs::File, to: &std::fs::File) -> std::io::Result<()> {
    Ok(fs::ioctl_ficlone(to, from)?)
}

/// Copies `size` bytes of `from` with their holes to the new file `to`; blocks are shared if the
/// file system can do that. At most `most` bytes are written.
///
/// # Errors
/// There is more to write, or the file changed while it was copied.
///
/// # References
/// lseek(2): `SEEK_DATA`, `SEEK_HOLE`, Linux 3.1; copy_file_range(2).
pub fn copy_whole(
    from: &std::fs::File,
    to: &std::fs::File,
    size: u64,
    most: u64,
) -> std::io::Result<()> {
    use std::io::Seek;
    if clone_of(from, to).is_err() {
        let (mut at, mut written) = (0, 0u64);
        while at < size {
            let start = match fs::seek(from, fs::SeekFrom::Data(at)) {
                Ok(start) => start,
                // Only a hole up to the end.
                Err(Errno::NXIO) => break,
                Err(e) => return Err(e.into()),
            };
            let end = fs::seek(from, fs::SeekFrom::Hole(start))?.min(size);
            written = written.saturating_add(end.saturating_sub(start));
            if written > most {
                return Err(std::io::Error::other("there is more in the file than it had on disk"));
            }
            let (mut source, mut target) = (from, to);
            source.seek(std::io::SeekFrom::Start(start))?;
            target.seek(std::io::SeekFrom::Start(start))?;
            std::io::copy(&mut source.take(end.saturating_sub(start)), &mut target)?;
            at = end.max(start + 1);
        }
        to.set_len(size)?;
    }
    match (from.metadata()?.len(), to.metadata()?.len()) {
        (a, b) if a == size && b == size => Ok(()),
        _ => Err(std::io::Error::other("the file changed while it was copied")),
    }
}

/// Where a file holds data, up to `size`: offset and length of each piece. At most `most` pieces;
/// if there are more, the smallest holes between them count as data.
///
/// # References
/// lseek(2): `SEEK_DATA`, `SEEK_HOLE`, Linux 3.1; a file system without holes returns
/// `EINVAL`, or that all is data.
pub fn extents(
    file: &std::fs::File,
    size: u64,
    most: usize,
) -> rustix::io::Result<Vec<(u64, u64)>> {
    let (mut all, mut gap, mut at) = (Vec::<(u64, u64)>::new(), 0, 0);
    while at < size {
        let start = match fs::seek(file, fs::SeekFrom::Data(at)) {
            // The answer may come from a hostile file system.
            Ok(start) => start.max(at),
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            Err(e) => return Err(e),
        };
        if start >= size {
            break;
        }
        let end = fs::seek(file, fs::SeekFrom::Hole(start)).unwrap_or(size);
        let end = end.clamp(start + 1, size);
        all.push((start, end - start));
        while all.len() > most {
            gap = (gap * 2).max(4096);
            join(&mut all, gap);
        }
        at = end;
    }
    join(&mut all, 0);
    Ok(all)
}

/// Joins pieces with at most `gap` bytes between them.
fn join(pieces: &mut Vec<(u64, u64)>, gap: u64) {
    pieces.dedup_by(|next, before| {
        let near = next.0 - (before.0 + before.1) <= gap;
        if near {
            before.1 = next.0 + next.1 - before.0;
        }
        near
    });
}

/// Creates a new regular file for writing. An existing name, including a
/// dangling link, is an error.
pub fn create_exclusive(dir: impl AsFd, name: &OsStr, mode: u32) -> rustix::io::Result<OwnedFd> {
    create(dir, name, mode, OFlags::WRONLY)
}

/// The same, also for reading what was written.
pub fn create_readable(dir: impl AsFd, name: &OsStr, mode: u32) -> rustix::io::Result<OwnedFd> {
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
pub fn mkdirat(dir: impl AsFd, name: &OsStr, mode: u32) -> rustix::io::Result<()> {
    fs::mkdirat(dir, name, Mode::from_raw_mode(mode))
}

/// Opens an `O_PATH` directory descriptor again, for reading its entries or changing its mode.
pub fn reopen_dir(fd: impl AsFd) -> Result<OwnedFd> {
    fs::openat(fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("openat(\".\", O_DIRECTORY)")
}

/// Where a symbolic link below `dir` points to.
pub fn read_link(dir: impl AsFd, name: &OsStr) -> Result<Vec<u8>> {
    Ok(fs::readlinkat(dir, name, Vec::new())
        .with_context(|| format!("readlinkat({name:?})"))?
        .into_bytes())
}

/// A file (0600) that has no name until it is complete: if its creator dies, nothing is left.
///
/// # References
/// open(2), `O_TMPFILE`, Linux 3.11; linkat(2) with `AT_SYMLINK_FOLLOW` of /proc/self/fd.
#[derive(Debug)]
pub struct NewFile {
    dir: OwnedFd,
    file: std::fs::File,
    /// Its temporary name, on a file system without unnamed files.
    temporary: Option<OsString>,
}

impl NewFile {
    /// Creates it in an open directory.
    pub fn create(dir: impl AsFd) -> Result<Self> {
        let dir = reopen_dir(dir)?;
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let (file, temporary) = match fs::openat(&dir, ".", flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => (file.into(), None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                let name = temporary(OsStr::new(".oci-coredump"));
                (
                    create_readable(&dir, &name, 0o600).context("openat(O_CREAT|O_EXCL)")?.into(),
                    Some(name),
                )
            }
            Err(e) => return Err(e).context("openat(O_TMPFILE)"),
        };
        let new = NewFile { dir, file, temporary };
        chmod(&new.file, 0o600)?;
        Ok(new)
    }

    /// The file, still without its final name, for writing.
    pub fn file(&self) -> &std::fs::File {
        &self.file
    }

    /// Gives it its name, replacing a file of that name.
    pub fn name(mut self, name: &OsStr) -> Result<()> {
        use std::os::fd::AsRawFd;
        if self.temporary.is_none() {
            let between = temporary(OsStr::new(".oci-coredump"));
            let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            fs::linkat(fs::CWD, own.as_str(), &self.dir, &between, AtFlags::SYMLINK_FOLLOW)
                .context("linkat")?;
            self.temporary = Some(between);
        }
        let between = self.temporary.clone().unwrap_or_default();
        fs::renameat(&self.dir, &between, &self.dir, name).context("renameat")?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary {
            let _ = fs::unlinkat(&self.dir, name, AtFlags::empty());
        }
    }
}

/// Makes the symbolic link `name` below `dir`; an existing name is an error.
pub fn symlink(dir: impl AsFd, target: &OsStr, name: &OsStr) -> rustix::io::Result<()> {
    fs::symlinkat(target, dir, name)
}

/// Changes into a directory by descriptor.
pub fn change_dir(fd: impl AsFd) -> Result<()> {
    rustix::process::fchdir(fd).context("fchdir")
}

/// Makes a directory the root of this process, and its working directory.
pub fn change_root(fd: impl AsFd) -> Result<()> {
    change_dir(fd)?;
    rustix::process::chroot(".").context("chroot(\".\")")
}

/// Sets the file creation mask of this process.
pub fn set_umask(mask: u32) {
    rustix::process::umask(Mode::from_raw_mode(mask));
}

/// Whether the cause of an error is that there is no such file.
pub fn is_missing(e: &anyhow::Error) -> bool {
    e.root_cause().downcast_ref() == Some(&Errno::NOENT)
}

#[cfg(test)]
mod tests {
    #[test]
    fn pieces_are_bounded() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        for n in 0..100u64 {
            file.write_all_at(&[1], n << 16).unwrap();
        }
        file.set_len(100 << 16).unwrap();
        let all = super::extents(&file, 100 << 16, 1000).unwrap();
        // On a file system without holes all is one piece.
        if all.len() > 1 {
            assert_eq!((all.len(), all[1]), (100, (1 << 16, 4096)));
            let few = super::extents(&file, 100 << 16, 10).unwrap();
            assert!(few.len() <= 10 && few[0].0 == 0, "{few:?}");
            let last = few.last().unwrap();
            assert!(last.0 + last.1 > 99 << 16);
            assert_eq!(super::extents(&file, 2 << 16, 1000).unwrap().len(), 2);
        }
    }
}
