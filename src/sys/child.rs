//! Child processes that run our own code.

use super::descriptor::wait_readable;
use super::proc::Proc;
use anyhow::{Context, Result};
use linux_raw_sys::general::{CLONE_INTO_CGROUP, clone_args};
use rustix::process::WaitOptions;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// How long a killed child may take to end.
const LAST: Duration = Duration::from_secs(1);

/// A child process that runs our own code.
#[derive(Debug)]
pub(crate) struct Child(rustix::process::Pid);

/// Runs `work` in a forked child, which exits with its result. The caller must be single-threaded,
/// but for threads that hang in a system call: see `answer::within`.
pub(crate) fn fork(work: impl FnOnce() -> i32) -> Result<Child> {
    // SAFETY: the process has one thread that runs, so no lock is held that the child does not know
    // of, and it may go on to run any code; it leaves by _exit and never returns into the caller.
    match unsafe { nix::unistd::fork() }.context("fork")? {
        nix::unistd::ForkResult::Parent { child } => Child::new(child.as_raw()),
        nix::unistd::ForkResult::Child => leave(work()),
    }
}

/// The same, with the child started in a group of cgroup v2, given as an open directory. `work` is
/// told whether it is there; if the kernel refuses, the child is started in this process's group.
///
/// # References
/// clone(2): `CLONE_INTO_CGROUP`, Linux 5.7.
pub(crate) fn fork_into(
    group: Option<BorrowedFd<'_>>,
    work: impl FnOnce(bool) -> i32,
) -> Result<Child> {
    let Some(group) = group else { return fork(|| work(false)) };
    let args = clone_args {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: group.as_raw_fd() as u64,
        // SAFETY: a struct of integers.
        ..unsafe { std::mem::zeroed() }
    };
    // SAFETY: as in `fork`; without a stack of its own the child goes on with a copy of this one.
    // The C library learns nothing of the child: it still has the parent's thread ID for its only
    // thread, which serves nothing but raise(3) to that thread.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<clone_args>()) } {
        0 => leave(work(true)),
        -1 => fork(|| work(false)),
        child => Child::new(child as i32),
    }
}

/// Waits for a child that has ended, if there is one: its process ID.
pub(crate) fn reap() -> Option<i32> {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Ok(Some((pid, _))) => Some(pid.as_raw_nonzero().get()),
        _ => None,
    }
}

fn leave(code: i32) -> ! {
    // SAFETY: _exit has no preconditions; the parent's buffers and destructors are not ours to run.
    unsafe { libc::_exit(code) }
}

impl Child {
    fn new(id: i32) -> Result<Self> {
        rustix::process::Pid::from_raw(id).map(Child).context("fork returned no process ID")
    }

    /// Its process ID, which is not reused until the child was waited for.
    pub(crate) fn id(&self) -> rustix::process::Pid {
        self.0
    }

    /// Kills the child, which must still be waited for.
    pub(crate) fn kill(&self) -> Result<()> {
        rustix::process::kill_process(self.0, rustix::process::Signal::KILL).context("kill")
    }

    /// Waits for the child to end, and kills it after `time`. `None`: it could not even be killed,
    /// since it sleeps in a file system, and is left behind.
    ///
    /// A child that runs with a user's rights can be stopped by that user (SIGSTOP) and would then
    /// never end: only this function, which kills it, may wait for one.
    pub(crate) fn end_within(self, time: Duration) -> Result<Option<Ended>> {
        let pidfd = self.pidfd()?;
        if !wait_readable(&pidfd, Some(time))? {
            self.kill()?;
            if !wait_readable(&pidfd, Some(LAST))? {
                return Ok(None);
            }
        }
        self.wait().map(Some)
    }

    /// Kills the child and waits for it. `None`: as in [`Child::end_within`].
    pub(crate) fn end_now(self) -> Result<Option<Ended>> {
        self.kill()?;
        self.end_within(LAST)
    }

    /// How the child has ended, if it has.
    pub(crate) fn has_ended(&self) -> Result<Option<Ended>> {
        match rustix::process::waitpid(Some(self.0), WaitOptions::NOHANG) {
            Ok(found) => Ok(found.map(|(_, status)| Ended::of(status))),
            Err(e) => Err(e).context("waitpid"),
        }
    }

    /// Sends SIGTERM.
    pub(crate) fn tell_to_end(&self) -> Result<()> {
        rustix::process::kill_process(self.0, rustix::process::Signal::TERM).context("kill")
    }

    /// Sends SIGHUP.
    pub(crate) fn tell_again(&self) -> Result<()> {
        rustix::process::kill_process(self.0, rustix::process::Signal::HUP).context("kill")
    }

    /// Whether the child is stopped, by SIGSTOP or a tracer.
    pub(crate) fn is_stopped(&self) -> bool {
        self.proc().and_then(|process| process.is_stopped()).unwrap_or(false)
    }

    fn proc(&self) -> Result<Proc> {
        Proc::open(self.0.as_raw_nonzero().get())
    }

    fn pidfd(&self) -> Result<std::os::fd::OwnedFd> {
        rustix::process::pidfd_open(self.0, rustix::process::PidfdFlags::empty())
            .context("pidfd_open")
    }

    /// Waits for a child that has ended already: its exit status, or the signal that killed it.
    fn wait(self) -> Result<Ended> {
        loop {
            match rustix::process::waitpid(Some(self.0), WaitOptions::empty()) {
                Ok(Some((_, status))) => return Ok(Ended::of(status)),
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context("waitpid"),
            }
        }
    }
}

/// The signal that kills a process for a system call that its filter forbids.
pub(crate) const FORBIDDEN: i32 = libc::SIGSYS;

/// The wait status of a child that has ended, see wait(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It exited with this status.
    Exit(i32),
    /// It was killed by this signal.
    Signal(i32),
}

impl Ended {
    fn of(status: rustix::process::WaitStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ended::Exit(code),
            (_, signal) => Ended::Signal(signal.unwrap_or(0)),
        }
    }
}
