//! Dump mode 2: the container's root, with whose rights the core is written.
//!
//! As the kernel's file mode writes it with the host's root's: the file-system user ID is root's,
//! groups and capabilities are the crasher's, and the path is resolved from a root directory that
//! the crasher cannot choose, here that of the container's own mount namespace.

use crate::registry::Entry;
use crate::sys::cred::Credentials;
use crate::sys::proc::Proc;
use crate::sys::{OwnedFd, ns};
use anyhow::{Context, Result, bail, ensure};

/// The container's root, as the writer becomes it.
#[derive(Debug)]
pub(crate) struct ContainerRoot {
    /// The container's mount namespace, in which it was registered.
    pub mounts: OwnedFd,
    /// Its user namespace, if that is not ours.
    pub user_ns: Option<OwnedFd>,
    /// The crasher's effective capabilities there, of those that the container's first process has.
    pub effective: u64,
}

impl ContainerRoot {
    /// Finds it. `mounts`, `user_ns`: the crasher's, the latter if it is not ours; `credentials`:
    /// its own.
    ///
    /// # Errors
    /// The container's mounts are not at hand, or it is not certain who their root is.
    pub(crate) fn of(
        mounts: &OwnedFd,
        user_ns: Option<&OwnedFd>,
        credentials: &Credentials,
        entry: &Entry,
    ) -> Result<Self> {
        let first = Proc::open(entry.init.pid)
            .ok()
            .filter(|first| first.is_alive_since(entry.init.start_time).unwrap_or(false));
        let is_registered_mount_ns = |mounts: &OwnedFd| {
            let known = (entry.init.mount_ns_id, ns::mount_ns_id(mounts));
            ns::inode(mounts).is_ok_and(|inode| inode == entry.init.mount_ns)
                && match known {
                    (Some(then), Some(now)) => then == now,
                    _ => first.is_some(),
                }
        };
        let init_mount_ns = first.as_ref().and_then(|first| first.namespace("mnt").ok());
        let Some(mounts) = [mounts.try_clone().ok(), init_mount_ns]
            .into_iter()
            .flatten()
            .find(is_registered_mount_ns)
        else {
            bail!("the process has other mounts than its container, whose first process has gone");
        };
        let owner = ns::user_ns_of(&mounts).context("the container's user namespace")?;
        let (owner_id, own) = (ns::inode(&owner)?, ns::own("user")?);
        let crasher_user_ns = user_ns.map_or(Ok(own), ns::inode)?;
        let init_user_ns = match &first {
            Some(first) => ns::inode(first.namespace("user")?)?,
            None => crasher_user_ns,
        };
        ensure!(
            owner_id == init_user_ns,
            "the mount namespace is owned by another user namespace than the container's"
        );
        let most = first.map_or(Ok(u64::MAX), |f| f.status().map(|s| s.credentials.permitted))?;
        let has = if crasher_user_ns == owner_id { credentials.effective } else { 0 };
        Ok(ContainerRoot {
            mounts,
            user_ns: (owner_id != own).then_some(owner),
            effective: has & most,
        })
    }
}
