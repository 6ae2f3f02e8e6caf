//! Becoming the crasher: its root, working directory, umask, IDs, groups, capabilities and user
//! namespace. What a child can touch after that is what the crashed process could have touched
//! itself.

use crate::dump::crash::container_root::ContainerRoot;
use crate::dump::crash::facts::Facts;
use crate::dump::policy::plan::{CorePlan, Rights};
use crate::sys::cred::{self, Credentials};
use crate::sys::proc::Proc;
use crate::sys::{
    AsFd, BorrowedFd, Errno, OwnedFd, descriptor, file, ns, process, resolve, rlimit,
};
use anyhow::{Context, Result};

/// Gives up everything that the crasher does not have, and all descriptors but the standard three
/// and `keep`. The order matters: what needs rights comes first, the rights themselves go last.
pub(crate) fn become_crasher<'a>(
    facts: &'a Facts,
    core_file: &CorePlan,
    mut keep: Vec<BorrowedFd<'a>>,
) -> Result<()> {
    process::not_dumpable()?;
    process::ignore_file_size_signal()?;
    if core_file.memory_backed {
        process::first_to_go()?;
    }
    file::set_umask(facts.status.umask);
    rlimit::set_own_file_size(facts.file_size_limit)?;
    let mut credentials = facts.status.credentials.clone();
    match core_file.rights {
        Rights::HostRoot => {
            credentials.uid[3] = 0;
            file::change_dir(file::open_dir("/".as_ref())?)?;
        }
        Rights::ContainerRoot => {
            let root = facts.container_root.as_ref().and_then(|root| root.as_ref().ok());
            let root = root.context("the container's root")?;
            return become_root(root, &credentials, &facts.task, keep);
        }
        Rights::Crasher => {
            if facts.profile.is_some() {
                // AppArmor cannot resolve the path of a file that is in another mount namespace.
                ns::enter(&facts.mounts, ns::NamespaceKind::Mount)?;
            }
            file::change_root(&facts.root).context("the crasher's root")?;
            file::change_dir(&facts.cwd).context("the crasher's working directory")?;
        }
    }
    keep.extend(facts.user_ns.as_ref().map(|n| n.as_fd()));
    descriptor::close_all_but(&keep)?;
    cred::assume(&credentials, facts.user_ns.as_ref())?;
    facts.user_ns.as_ref().map_or(Ok(()), descriptor::close).context("close")
}

/// Opens a directory as whoever this process has become, if those are its rights.
///
/// # Errors
/// `openat2(2)`; EPERM where somebody else than the container's root could redirect the path.
pub(crate) fn open_dir(rights: Rights, dir: &[u8]) -> Result<OwnedFd, Errno> {
    match rights {
        Rights::ContainerRoot => resolve::open_dir_of_root(dir),
        Rights::Crasher | Rights::HostRoot => resolve::open_dir_as_process(dir),
    }
}

/// Gives up everything that this root does not have, and all descriptors but the standard three
/// and `keep`.
///
/// # Errors
/// Also where this root may not read the process's memory: it has a program in it that belongs
/// to somebody outside of the container and that nobody in it may read.
fn become_root<'a>(
    root: &'a ContainerRoot,
    credentials: &Credentials,
    task: &'a Proc,
    mut keep: Vec<BorrowedFd<'a>>,
) -> Result<()> {
    // Root and working directory are the namespace's then.
    ns::enter(&root.mounts, ns::NamespaceKind::Mount)?;
    keep.push(task.as_fd());
    keep.extend(root.user_ns.as_ref().map(AsFd::as_fd));
    descriptor::close_all_but(&keep)?;
    let credentials =
        Credentials { effective: root.effective, permitted: root.effective, ..credentials.clone() };
    cred::assume_root(&credentials, root.user_ns.as_ref(), || match &root.user_ns {
        // The kernel asks CAP_SYS_PTRACE of the user namespace that the memory belongs to.
        Some(_) => task.open_file("auxv").map(drop).context(
            "the container's root may not read this process: its program is not the \
             container's",
        ),
        None => Ok(()),
    })?;
    descriptor::close(task)?;
    root.user_ns.as_ref().map_or(Ok(()), descriptor::close).context("close")
}
