//! pidfds: references to processes that stay valid when a process ID is reused.

use rustix::process::{Pid, PidfdFlags};
use std::os::fd::{AsFd, OwnedFd};

/// Opens a pidfd of a process by its ID.
///
/// # References
/// pidfd_open(2), Linux 5.3.
pub(crate) fn open(pid: i32) -> rustix::io::Result<OwnedFd> {
    rustix::process::pidfd_open(
        Pid::from_raw(pid).filter(|_| pid > 0).ok_or(rustix::io::Errno::SRCH)?,
        PidfdFlags::empty(),
    )
}

/// Whether the process of a pidfd has not ended yet.
///
/// # References
/// pidfd_open(2): a pidfd polls readable when its process ends.
pub(crate) fn lives(pidfd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}
