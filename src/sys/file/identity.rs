//! What a file is: its status, and what distinguishes it from all others.

use anyhow::{Context, Result};
use rustix::fs::{self, AtFlags, FileType, StatxFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::AsFd;

/// What distinguishes a file on this kernel from all others that exist now: device and inode
/// number.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileId(pub u64, pub u64);

impl FileId {
    /// The inode number, which a device has once at a time.
    pub(crate) fn inode(self) -> u64 {
        self.1
    }
}

/// The fields of `fstat` that callers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub id: FileId,
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
pub(crate) fn stat(fd: impl AsFd) -> Result<Stat> {
    Ok(known(&fs::fstat(fd).context("fstat")?))
}

/// `fstatat(2)` of `name` below `dir`, which may not be a symbolic link's target.
pub(crate) fn stat_at(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<Stat> {
    Ok(known(&fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

#[allow(clippy::unnecessary_cast, reason = "the kernel's types differ between architectures")]
fn known(s: &fs::Stat) -> Stat {
    Stat {
        id: FileId(s.st_dev, s.st_ino),
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileIdentity {
    /// Device (`makedev` of statx's major and minor number) and inode number.
    pub id: FileId,
    /// When it was last written to: seconds and nanoseconds since 1970.
    pub modified: (i64, u64),
    /// When it was created, if the file system records that: seconds and nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born: Option<(i64, u64)>,
}

impl FileIdentity {
    /// Whether both are the same file. If the file system records the creation time, that and the
    /// inode number decide, so that a file which its owner has written to is still the same; else
    /// the time of the last write must be equal. The device number does not count, since it may
    /// differ after the next boot.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        let same_time = match (self.born, other.born) {
            (Some(a), Some(b)) => a == b,
            _ => self.modified == other.modified,
        };
        self.id.inode() == other.id.inode() && same_time
    }
}

/// The identity of an open file.
///
/// # References
/// statx(2), `STATX_BTIME`, Linux 4.11.
pub fn identity(fd: impl AsFd) -> rustix::io::Result<FileIdentity> {
    Ok(identified(&fs::statx(
        fd,
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )?))
}

/// The identity of the regular file `name` below `dir`; an error for a symbolic link.
pub(crate) fn identity_at(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<FileIdentity> {
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

fn identified(s: &fs::Statx) -> FileIdentity {
    let time = |t: fs::StatxTimestamp| (t.tv_sec, u64::from(t.tv_nsec));
    let born = StatxFlags::from_bits_retain(s.stx_mask).contains(StatxFlags::BTIME);
    FileIdentity {
        id: FileId(fs::makedev(s.stx_dev_major, s.stx_dev_minor), s.stx_ino),
        modified: time(s.stx_mtime),
        born: born.then(|| time(s.stx_btime)),
    }
}
