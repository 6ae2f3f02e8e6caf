//! File systems: their type, their free space, and the mount that a descriptor is on.

use anyhow::{Context, Result};
use rustix::fs::{self, AtFlags};
use std::os::fd::AsFd;

/// The file system types that matter to a core dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FsType {
    /// The process file system, proc(5).
    Proc,
    /// sysfs, cgroup, debugfs and the like, which hold no ordinary files.
    Kernel,
    /// A file system whose files are memory: tmpfs, ramfs.
    Memory,
    /// Served by a program or another machine: FUSE, NFS, SMB, 9p, Ceph.
    Served,
    /// A file system of any other type.
    Other,
}

/// Returns the type of the file system that an open file is on: `f_type` of fstatfs(2).
pub(crate) fn fs_type(fd: impl AsFd) -> Result<FsType> {
    space(fd).map(|s| s.kind)
}

/// Type and size of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// Type of the file system.
    pub kind: FsType,
    /// Its size in bytes; 0 if it reports none.
    pub total: u64,
    /// Bytes available to unprivileged users.
    pub available: u64,
    /// Number of inodes; 0 if it reports none.
    pub files: u64,
    /// Number of inodes that are free.
    pub files_available: u64,
}

impl Space {
    /// That of a file system of which nothing can be learned.
    pub(crate) const UNKNOWN: Self =
        Space { kind: FsType::Other, total: 0, available: 0, files: 0, files_available: 0 };
}

/// Returns the space of the file system that an open file is on, by fstatfs(2).
pub(crate) fn space(fd: impl AsFd) -> Result<Space> {
    let s = fs::fstatfs(fd).context("fstatfs")?;
    let unit = if s.f_frsize > 0 { s.f_frsize } else { s.f_bsize } as u64;
    Ok(Space {
        kind: kind(s.f_type as i64),
        total: s.f_blocks.saturating_mul(unit),
        available: s.f_bavail.saturating_mul(unit),
        files: s.f_files,
        files_available: s.f_ffree,
    })
}

/// Whether a directory is on a file system that a process serves (FUSE).
pub(crate) fn is_fuse(dir: impl AsFd) -> bool {
    fs::fstatfs(dir).is_ok_and(|s| s.f_type == FUSE)
}

/// `FUSE_SUPER_MAGIC` of linux/magic.h.
const FUSE: i64 = 0x6573_5546;

/// Why no program can be placed in a directory and started there, by the flags of its mount: `ro`
/// or `noexec`.
///
/// # References
/// fstatvfs(3).
pub(crate) fn refuses_programs(dir: impl AsFd) -> Result<Option<&'static str>> {
    let flags = fs::fstatvfs(dir).context("fstatvfs")?.f_flag;
    let set = |flag| flags.contains(flag);
    Ok(match () {
        () if set(fs::StatVfsMountFlags::RDONLY) => Some("ro"),
        () if set(fs::StatVfsMountFlags::NOEXEC) => Some("noexec"),
        () => None,
    })
}

fn kind(magic: i64) -> FsType {
    match magic {
        libc::PROC_SUPER_MAGIC => FsType::Proc,
        libc::SYSFS_MAGIC
        | libc::CGROUP_SUPER_MAGIC
        | libc::CGROUP2_SUPER_MAGIC
        | libc::DEBUGFS_MAGIC
        | libc::DEVPTS_SUPER_MAGIC => FsType::Kernel,
        libc::TMPFS_MAGIC | 0x8584_58f6 => FsType::Memory,
        FUSE
        | libc::NFS_SUPER_MAGIC
        | libc::SMB_SUPER_MAGIC
        | 0xff53_4d42
        | 0xfe53_4d42
        | 0x0102_1997
        | 0x00c3_6400 => FsType::Served,
        _ => FsType::Other,
    }
}

/// ID of the mount that a descriptor is on, and whether it is that mount's root.
///
/// # References
/// statx(2): `STATX_MNT_ID` (Linux 5.8), `STATX_ATTR_MOUNT_ROOT` (Linux 5.8).
pub(crate) fn mount_of(fd: impl AsFd) -> Result<(u64, bool)> {
    let s = fs::statx(fd, "", AtFlags::EMPTY_PATH, fs::StatxFlags::MNT_ID)
        .context("statx(STATX_MNT_ID)")?;
    Ok((s.stx_mnt_id, s.stx_attributes.contains(fs::StatxAttributes::MOUNT_ROOT)))
}
