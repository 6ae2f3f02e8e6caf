//! Namespaces: their identity, their parents, and entering them.

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

mod ioctl {
    nix::ioctl_none_bad!(
        /// `NS_GET_PARENT` of ioctl_ns(2).
        ns_get_parent,
        libc::NS_GET_PARENT
    );
    nix::ioctl_none_bad!(
        /// `NS_GET_USERNS` of ioctl_ns(2).
        ns_get_userns,
        libc::NS_GET_USERNS
    );
    nix::ioctl_read_bad!(
        /// `NS_GET_MNTNS_ID` of linux/nsfs.h, since Linux 6.11.
        ns_get_mntns_id,
        libc::NS_GET_MNTNS_ID,
        u64
    );
    nix::ioctl_read_bad!(
        /// `NS_GET_OWNER_UID` of ioctl_ns(2).
        ns_get_owner_uid,
        libc::NS_GET_OWNER_UID,
        libc::uid_t
    );
}

/// The inode number of a namespace. Unique among existing namespaces, but reused after one is gone.
pub(crate) fn inode(ns: impl AsFd) -> Result<u64> {
    Ok(super::file::stat(ns)?.id.inode())
}

/// The inode number of this process's own namespace: `mnt`, `pid`, `user`.
pub(crate) fn own(name: &str) -> Result<u64> {
    let path = format!("/proc/self/ns/{name}");
    Ok(rustix::fs::stat(&path).with_context(|| format!("stat({path:?})"))?.st_ino)
}

/// The number of a mount namespace that is never reused, if the kernel has it.
///
/// # References
/// `NS_GET_MNTNS_ID`, ioctl_nsfs(2), Linux 6.11. // KERNEL(6.11): make it mandatory then, and drop
/// the other proofs of identity.
pub(crate) fn mount_ns_id(ns: impl AsFd) -> Option<u64> {
    let mut id = 0u64;
    // SAFETY: the ioctl writes one u64 through the pointer, which is valid for the call;
    // other kernels answer ENOTTY.
    unsafe { ioctl::ns_get_mntns_id(ns.as_fd().as_raw_fd(), &mut id) }.ok().map(|_| id)
}

/// The parent of a PID or user namespace; `None` if it is the initial one or outside of
/// what this process may see.
///
/// # References
/// `NS_GET_PARENT`, ioctl_nsfs(2), Linux 4.9.
pub(crate) fn parent(ns: impl AsFd) -> Option<OwnedFd> {
    // SAFETY: the ioctl takes no argument and returns a new descriptor that nobody else owns.
    unsafe { ioctl::ns_get_parent(ns.as_fd().as_raw_fd()).ok().map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// The user namespace that a namespace belongs to: whoever has capabilities there has them over it.
///
/// # Errors
/// It is outside of what this process may see.
///
/// # References
/// `NS_GET_USERNS`, ioctl_nsfs(2), Linux 4.9.
pub(crate) fn user_ns_of(ns: impl AsFd) -> Result<OwnedFd> {
    // SAFETY: the ioctl takes no argument and returns a new descriptor that nobody else owns.
    unsafe { ioctl::ns_get_userns(ns.as_fd().as_raw_fd()).map(|fd| OwnedFd::from_raw_fd(fd)) }
        .context("ioctl(NS_GET_USERNS)")
}

/// The owner of a user namespace: the user, in our own user namespace, who created the outermost of
/// its ancestors below our own. That user has every capability over everything in it. `None` for
/// our own namespace, and for one that is not below it.
///
/// # References
/// `NS_GET_OWNER_UID`, ioctl_nsfs(2), Linux 4.11; user_namespaces(7), "Interaction of user
/// namespaces and other types of namespaces".
pub(crate) fn owner(user_ns: impl AsFd) -> Option<u32> {
    let own = own("user").ok()?;
    let mut here = user_ns.as_fd().try_clone_to_owned().ok()?;
    loop {
        // The kernel allows at most 32 levels.
        let above = parent(&here)?;
        if inode(&above).ok()? == own {
            let mut uid: libc::uid_t = 0;
            // SAFETY: the ioctl writes one uid_t through the pointer, which is valid for the call.
            return unsafe { ioctl::ns_get_owner_uid(here.as_raw_fd(), &mut uid) }
                .ok()
                .map(|_| uid);
        }
        here = above;
    }
}

/// The host name in a UTS namespace, which a process that has one thread enters for that.
///
/// # References
/// setns(2), uname(2).
pub(crate) fn hostname(uts: &OwnedFd) -> Result<Vec<u8>> {
    let name = || rustix::system::uname().nodename().to_bytes().to_vec();
    if inode(uts)? == own("uts")? {
        return Ok(name());
    }
    let back = std::fs::File::open("/proc/self/ns/uts").context("open /proc/self/ns/uts")?;
    let uts_only = Some(LinkNameSpaceType::HostNameAndNISDomainName);
    move_into_link_name_space(uts.as_fd(), uts_only).context("setns(CLONE_NEWUTS)")?;
    let there = name();
    move_into_link_name_space(back.as_fd(), uts_only).context("setns(CLONE_NEWUTS), back")?;
    Ok(there)
}

/// The inode number of the initial PID namespace: `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
const INITIAL_PID: u64 = 0xEFFF_FFFC;

/// Checks that this process is in the initial PID namespace.
///
/// # Errors
/// It is not.
pub(crate) fn check_initial_pid() -> Result<()> {
    ensure!(
        own("pid")? == INITIAL_PID,
        "this is not the host but a container in it (another PID namespace): kernel.core_pattern \
         is the \
         host's, install oci-coredump there"
    );
    Ok(())
}

/// Checks that the kernel would find this very program at the path `helper`. It resolves the
/// program of a `core_pattern` from the root directory of its own threads, so the path must
/// lead to our own file there: in a container (kind, Docker in Docker) the same path may
/// lead to another file or to none. A service with a mount namespace of its own passes,
/// since it sees the host's files.
///
/// # Errors
/// The kernel would not find it.
///
/// # References
/// kernel/umh.c: helpers are children of kthreadd, process 2 of the initial PID namespace.
pub(crate) fn check_initial(helper: &std::path::Path) -> Result<()> {
    check_initial_pid()?;
    let below = helper.strip_prefix("/").unwrap_or(helper);
    let seen = std::path::Path::new("/proc/2/root").join(below);
    let id = |path: &std::path::Path| rustix::fs::stat(path).map(|s| (s.st_dev, s.st_ino));
    // Not the file that this process runs: it may have been replaced there since.
    let ours = id(helper).with_context(|| format!("stat({helper:?})"))?;
    ensure!(
        id(&seen) == Ok(ours),
        "{} is not this program in the host's own root directory, where the kernel would look for \
         it: \
         this is a container or a chroot, install oci-coredump on the host",
        helper.display()
    );
    Ok(())
}

/// The kind of a namespace to enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamespaceKind {
    /// Mount namespace. Root and working directory become those of the namespace.
    Mount,
    /// User namespace: gives all capabilities in it, and none outside.
    User,
}

/// Enters a namespace. The process must be single-threaded.
///
/// # References
/// setns(2).
pub(crate) fn enter(ns: impl AsFd, kind: NamespaceKind) -> Result<()> {
    let ty = match kind {
        NamespaceKind::Mount => LinkNameSpaceType::Mount,
        NamespaceKind::User => LinkNameSpaceType::User,
    };
    match move_into_link_name_space(ns.as_fd(), Some(ty)) {
        Ok(()) => Ok(()),
        Err(e) => Err(e).with_context(|| format!("setns({kind:?})")),
    }
}

/// Moves this process, which must be single-threaded, to a copy of its mount namespace, which then
/// belongs to our user namespace.
///
/// # References
/// unshare(2), `CLONE_NEWNS`; mount_namespaces(7).
pub(crate) fn copy_mounts() -> Result<()> {
    // SAFETY: only CLONE_FILES would be unsafe.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
        .context("unshare(CLONE_NEWNS)")
}

/// Runs `work` inside a mount namespace and returns, with the former root and working directory.
///
/// # Errors
/// Those of `work`, and of entering. If the return fails, the process aborts: no host path may be
/// resolved in a container later.
pub(crate) fn in_mount_ns<T>(ns: impl AsFd, work: impl FnOnce() -> Result<T>) -> Result<T> {
    use super::file;
    let home = file::open_dir("/".as_ref())?;
    let cwd = rustix::fs::open(
        ".",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .context("open(\".\", O_PATH)")?;
    let own = std::fs::File::open("/proc/self/ns/mnt").context("open(\"/proc/self/ns/mnt\")")?;
    enter(ns, NamespaceKind::Mount)?;
    let result = work();
    let back = enter(&own, NamespaceKind::Mount)
        .and_then(|()| file::change_root(&home))
        .and_then(|()| file::change_dir(&cwd));
    if let Err(e) = back {
        log::error!("cannot return from the container's mount namespace, aborting: {e:#}");
        std::process::abort();
    }
    result
}
