//! pidfds: a process that cannot be mistaken for another one.

use rustix::process::{Pid, PidfdFlags};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Opens a pidfd of a process by its ID.
///
/// # References
/// pidfd_open(2), Linux 5.3.
pub fn open(pid: i32) -> rustix::io::Result<OwnedFd> {
    rustix::process::pidfd_open(Pid::from_raw(pid).filter(|_| pid > 0).ok_or(rustix::io::Errno::SRCH)?, PidfdFlags::empty())
}

/// The process ID of a pidfd in this process's PID namespace; `None` once it was reaped, or when the descriptor is no pidfd.
///
/// # References
/// `Pid:` in /proc/self/fdinfo, pidfd_open(2).
pub fn pid(pidfd: impl AsFd) -> Option<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd())).ok()?;
    let pid: i32 = info.lines().find_map(|l| l.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

/// Whether the process of a pidfd has not ended yet.
///
/// # References
/// pidfd_open(2): a pidfd polls readable when its process ends.
pub fn lives(pidfd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}
