//! What the kernel and /proc say of a crash whose process has connected to the coredump socket. It
//! is all known before a byte of the core is made.

use super::arguments::Crash;
use super::transport::Transport;
use crate::pattern::{Specifiers, escaped};
use crate::sys::proc::{self, Proc};
use crate::sys::{
    AsFd, BorrowedFd, OwnedFd, coredump_socket, descriptor, file, kernel, ns, pidfd, socket,
};
use anyhow::{Context, Result, ensure};
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

/// How long the kernel's request may take, which is there when the connection is.
const REQUEST: Duration = Duration::from_secs(5);

/// Whoever has connected: certainly a process that has crashed.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The process, pinned.
    pidfd: OwnedFd,
    /// Its ID.
    pid: i32,
    /// How it may be dumped.
    dump_mode: u32,
    /// Who it is counted with: its container's cgroup, or its mount namespace where there is no
    /// cgroup v2.
    pub group: u64,
}

impl Peer {
    /// Asks the kernel who has connected.
    ///
    /// # Errors
    /// It has not crashed, or is not to be seen from here.
    pub(crate) fn of(connection: impl AsFd) -> Result<Self> {
        let pidfd = socket::peer_pidfd(connection)?;
        let info = pidfd::crash_info(&pidfd).context("ioctl(PIDFD_GET_INFO)")?;
        ensure!(info.pid > 0, "a process of another PID namespace has connected");
        let dump_mode = info
            .dump_mode
            .with_context(|| format!("process {} has connected and has not crashed", info.pid))?;
        // Where only cgroup v1 is mounted, all have the same number.
        let group = match info.cgroup {
            0 | 1 => proc::mount_ns_of(info.pid).unwrap_or(0),
            // It may have made groups below its container's, each with few crashes.
            own => container_group(info.pid).unwrap_or(own),
        };
        Ok(Peer { pidfd, pid: info.pid, dump_mode, group })
    }

    /// Gives the pidfd the number that it has in the kernel's pipe helper, where no other
    /// descriptor has it.
    ///
    /// # Errors
    /// A system call failed.
    pub(crate) fn into_helpers(self) -> Result<Self> {
        Ok(Peer { pidfd: descriptor::renumber(self.pidfd, PIDFD)?, ..self })
    }
}

/// A number for the cgroup of version 2 of a process's container.
fn container_group(pid: i32) -> Option<u64> {
    let groups = Proc::open(pid).and_then(|process| process.cgroups()).ok()?;
    let own = groups.into_iter().find(|group| group.controllers.is_empty())?;
    let mut hasher = DefaultHasher::new();
    hasher.write(proc::container_of(&own.path));
    Some(hasher.finish())
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Crash {
    /// What the kernel would have given to its pipe helper, of the process that has connected. The
    /// connection is on stdin. `None`: it is the crash of a program that handles crashes, for which
    /// the kernel starts no other (RLIMIT_CORE is 1).
    ///
    /// # Errors
    /// It is no crash, or the process has gone.
    pub(crate) fn from_connection(connection: impl AsFd, peer: Peer) -> Result<Option<Self>> {
        coredump_socket::request(connection, REQUEST)?;
        let Peer { pidfd, pid, dump_mode, .. } = peer;
        let process = Proc::open(pid)?;
        let stat = process.read("stat")?;
        let tid = match proc::is_dumping(&stat) {
            Some(true) => pid,
            _ => dumping_thread(&process, pid)?,
        };
        let task = process.task(tid)?;
        let (status, innermost) = (task.status()?, |ids: &[i32]| ids.last().copied());
        let core = task.core_limit()?;
        if core.soft == Some(1) {
            return Ok(None);
        }
        let comm = task.read("comm")?;
        let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
        let exe = exe(&task).unwrap_or_else(|| [comm, b" (path unknown)"].concat());
        let name = exe.rsplit(|b| *b == b'/').next().unwrap_or_default();
        let own = if tid == pid { &stat } else { &task.read("stat")? };
        let said = Specifiers {
            pid: innermost(&status.ns_tgid).unwrap_or(pid),
            host_pid: pid,
            tid: innermost(&status.ns_pid).unwrap_or(tid),
            host_tid: tid,
            uid: status.credentials.uid[0],
            gid: status.credentials.gid[0],
            dump_mode,
            signal: proc::exit_code(&stat).context("/proc/PID/stat does not say how it ends")?,
            time: kernel::seconds(),
            limit: core.soft.unwrap_or(u64::MAX),
            cpu: proc::processor(own),
            // The number that the kernel gives it for a pipe helper.
            pidfd: Some(PIDFD),
            hostname: escaped(&ns::hostname(&task.namespace("uts")?)?),
            comm: escaped(comm),
            exe_name: escaped(name),
            exe_path: escaped(&exe),
        };
        // The last look, after the last read.
        ensure!(pidfd::lives(&pidfd), "process {pid} has gone");
        Ok(Some(Crash { said, pidfd: Some(pidfd), transport: Transport::Socket }))
    }
}

/// The number of the pidfd that the kernel gives to a pipe helper: `COREDUMP_PIDFD_NUMBER`.
const PIDFD: i32 = 3;

/// The thread that crashed, where it is not the leader.
fn dumping_thread(process: &Proc, pid: i32) -> Result<i32> {
    let dumps = |tid: &i32| {
        let stat = process.task(*tid).and_then(|task| task.read("stat"));
        stat.is_ok_and(|stat| proc::is_dumping(&stat) == Some(true))
    };
    let all = process.threads()?;
    all.into_iter().find(dumps).with_context(|| format!("no thread of process {pid} dumps core"))
}

/// The path of the executable, seen from the process's own root directory.
fn exe(task: &Proc) -> Option<Vec<u8>> {
    if task.link("root").is_ok_and(|root| root == b"/") {
        return task.link("exe").ok();
    }
    let (own, theirs) = (file::open_dir("/".as_ref()).ok()?, task.directory("root").ok()?);
    file::change_root(theirs).ok()?;
    let seen = task.link("exe").ok();
    // This process must not go on below another root.
    file::change_root(own).ok()?;
    seen
}
