//! What /proc says of the crasher, gathered below one directory descriptor and verified after the
//! last read.

use super::arguments::Crash;
use super::container_root::ContainerRoot;
use crate::sys::apparmor::Profile;
use crate::sys::proc::{self, Cgroup, Proc, Status};
use crate::sys::rlimit::SoftAndHard;
use crate::sys::selinux::SelinuxSubject;
use crate::sys::{OwnedFd, ns, pidfd};
use anyhow::{Context, Result, ensure};

/// Everything that decides whose crash it is and with which rights its core is written. What is
/// read of /proc after this decides neither: the walk to the crasher's parents, and by `task`,
/// which can be no other process's, what is mapped and mounted, the memory in use, and whether it
/// is still there. The one exception is [`Facts::container_root`], which is found when the
/// container is known, and bounded by what the container's first process may.
#[derive(Debug)]
pub(crate) struct Facts {
    /// IDs, capabilities, umask of the crashing thread.
    pub status: Status,
    /// The number of its mount namespace.
    pub mount_ns: u64,
    /// The number of it that is never reused.
    pub mount_ns_id: Option<u64>,
    /// The mount namespace itself, which holds what is mounted in it: with the last process of a
    /// container it would go, and with it where the core is, before anything is kept.
    pub mounts: OwnedFd,
    /// Its user namespace, where that is not ours.
    pub user_ns: Option<OwnedFd>,
    pub pid_ns: OwnedFd,
    pub cgroups: Vec<Cgroup>,
    pub root: OwnedFd,
    pub cwd: OwnedFd,
    /// The paths of both, in its mount namespace.
    pub root_path: Vec<u8>,
    /// See `root_path`.
    pub cwd_path: Vec<u8>,
    /// Path of its executable, in its mount namespace.
    pub exe: Vec<u8>,
    /// `AT_SECURE`: it was started set-user-ID, set-group-ID or with file capabilities.
    pub secure: bool,
    /// `AT_SYSINFO_EHDR`: where the vDSO is mapped.
    pub vdso: Option<u64>,
    /// Its RLIMIT_FSIZE, soft.
    pub file_size_limit: Option<u64>,
    pub core_limit: SoftAndHard,
    /// What SELinux knows it as; `None` where SELinux is off.
    pub subject: Option<Result<SelinuxSubject>>,
    /// The AppArmor profile that it is held to.
    pub profile: Option<Profile>,
    /// Its directory in /proc, for the copy.
    pub task: Proc,
    /// In dump mode 2, the root of its container, or why it is not to be had.
    pub container_root: Option<Result<ContainerRoot>>,
}

impl Facts {
    /// Whether it has rights that its user has not: it was started set-user-ID, set-group-ID or
    /// with file capabilities, or its IDs differ.
    pub(crate) fn has_more_rights(&self) -> bool {
        self.secure || self.status.credentials.mixed()
    }

    /// Reads them from the crashing thread's own directory: the leader's is empty when the leader
    /// has already gone.
    ///
    /// # Errors
    /// Something could not be read, or the process is not the one that crashed.
    pub(crate) fn gather(crash: &Crash) -> Result<Self> {
        let process = Proc::open(crash.said.host_pid)?;
        let task = process.task(crash.said.host_tid)?;
        let status = task.status()?;
        let (mount_ns, user_ns, pid_ns) =
            (task.namespace("mnt")?, task.namespace("user")?, task.namespace("pid")?);
        let limits = task.read("limits")?;
        let limit = |name: &str| {
            proc::limit(&limits, name).with_context(|| format!("/proc/PID/limits has no {name:?}"))
        };
        let auxv = task.read("auxv")?;
        let foreign = ns::inode(&user_ns)? != ns::own("user")?;
        let facts = Facts {
            mount_ns: ns::inode(&mount_ns)?,
            mount_ns_id: ns::mount_ns_id(&mount_ns),
            mounts: mount_ns,
            user_ns: foreign.then_some(user_ns),
            pid_ns,
            cgroups: task.cgroups()?,
            root: task.directory("root")?,
            cwd: task.directory("cwd")?,
            root_path: task.link("root")?,
            cwd_path: task.link("cwd")?,
            exe: task.link("exe").unwrap_or_default(),
            // A program without the entry was not started by execve: nothing is known of it, so it
            // is treated as the worst.
            secure: proc::auxiliary(&auxv, proc::AT_SECURE).is_none_or(|v| v != 0),
            vdso: proc::auxiliary(&auxv, proc::AT_SYSINFO_EHDR),
            file_size_limit: limit("Max file size")?.soft,
            core_limit: limit(proc::CORE_LIMIT)?,
            subject: SelinuxSubject::of(&task),
            profile: Profile::of(&task),
            status,
            task,
            container_root: None,
        };
        facts.verify(crash, &process)?;
        Ok(facts)
    }

    /// Whether the process that crashed is still dumping.
    pub(crate) fn is_still(&self, crash: &Crash) -> bool {
        match &crash.pidfd {
            Some(fd) => pidfd::lives(fd),
            None => self.task.status().is_ok_and(|s| s.core_dumping == Some(true)),
        }
    }

    /// The last look, after the last read: is this still the process that crashed? With a pidfd
    /// that is certain: a process that has not ended has kept its ID. Without one its ID could have
    /// been taken over in between, so the process must be dumping core at this moment, before and
    /// after.
    fn verify(&self, crash: &Crash, process: &Proc) -> Result<()> {
        if let Some(fd) = &crash.pidfd {
            ensure!(pidfd::lives(fd), "process {} has gone", crash.said.host_pid);
            return Ok(());
        }
        let again = self.task.status()?;
        ensure!(
            again == self.status,
            "process {} changed while it was looked at",
            crash.said.host_pid
        );
        ensure!(
            self.status.core_dumping == Some(true) && process.status()?.core_dumping == Some(true),
            "process {} is not dumping core",
            crash.said.host_pid
        );
        Ok(())
    }
}
