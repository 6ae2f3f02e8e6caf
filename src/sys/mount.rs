//! The new mount API: a mount is cloned from the host's tree, given its flags, and attached to an
//! open descriptor. Nothing is mounted on a string path.

use anyhow::{Context, Result};
use linux_raw_sys::general::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, mount_attr,
};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A detached copy of the file or directory `source`, ready to be attached in any mount namespace:
/// private, nosuid, nodev, noexec, and read-only if asked.
///
/// # References
/// open_tree(2) (Linux 5.2), mount_setattr(2) (Linux 5.12).
pub(crate) fn clone_tree(source: impl AsFd, read_only: bool) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(source, "", flags).context("open_tree(OPEN_TREE_CLONE)")?;
    let mut set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    if read_only {
        set |= MOUNT_ATTR_RDONLY;
    }
    let attr = mount_attr {
        attr_set: set.into(),
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: `attr` is valid for its size for the whole call, the path is a NUL-terminated
    // literal. No crate has this call yet (rustix 1.1, nix 0.31).
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<mount_attr>(),
        )
    };
    if r != 0 {
        return Err(std::io::Error::last_os_error())
            .context("mount_setattr(nosuid,nodev,noexec,private)");
    }
    Ok(tree)
}

/// Attaches a detached tree to what `target` refers to, in the current mount namespace.
///
/// # References
/// move_mount(2), Linux 5.2.
pub(crate) fn attach(tree: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", target, "", flags).context("move_mount")
}

/// Detaches the topmost mount on the file `name` in `directory`, in the current mount namespace.
/// Changes the working directory.
pub(crate) fn detach_file(directory: impl AsFd, name: &str) -> Result<()> {
    super::file::change_dir(directory)?;
    rustix::mount::unmount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .with_context(|| format!("umount2({name:?}, MNT_DETACH)"))
}

/// Detaches the mount whose root directory `mount` refers to, in the current mount namespace.
/// Changes the working directory.
pub(crate) fn detach_dir(mount: impl AsFd) -> Result<()> {
    super::file::change_dir(mount)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context("umount2(\".\", MNT_DETACH)")
}
