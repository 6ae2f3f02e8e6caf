//! pidfds: references to processes that stay valid when a process ID is reused.

use rustix::process::{Pid, PidfdFlags};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

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

/// What the kernel says of a process that crashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CrashInfo {
    /// The process, in this process's PID namespace; 0 if it is not in it.
    pub pid: i32,
    /// The number of its cgroup of version 2.
    pub cgroup: u64,
    /// Its dump mode, 1 or 2. `None`: it has not crashed.
    pub dump_mode: Option<u32>,
}

/// Asks what became of the process of a pidfd.
///
/// # References
/// `PIDFD_GET_INFO` with `PIDFD_INFO_COREDUMP`, include/uapi/linux/pidfd.h, Linux 6.16. That the
/// kernel knows the question is not the answer: 6.18 sets the bit for processes that have not
/// crashed too.
pub(crate) fn crash_info(pidfd: impl AsFd) -> rustix::io::Result<CrashInfo> {
    const INFO_COREDUMP: u64 = 1 << 4;
    const COREDUMPED: u32 = 1;
    const AS_USER: u32 = 4;
    const AS_ROOT: u32 = 8;
    /// The second published size: up to the coredump's mask.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        pid: u32,
        tgid: u32,
        parent: u32,
        ids: [u32; 8],
        exit_code: i32,
        coredump_mask: u32,
        coredump_signal: u32,
    }
    nix::ioctl_readwrite!(get_info, 0xFF, 11, Info);
    let mut info = Info { mask: INFO_COREDUMP, ..Info::default() };
    // SAFETY: the kernel writes as many bytes as the number of the call says, which live for it.
    unsafe { get_info(pidfd.as_fd().as_raw_fd(), &raw mut info) }
        .map_err(|e| rustix::io::Errno::from_raw_os_error(e as i32))?;
    let crashed = info.mask & INFO_COREDUMP != 0 && info.coredump_mask & COREDUMPED != 0;
    let dump_mode = match info.coredump_mask {
        mask if mask & AS_USER != 0 => 1,
        mask if mask & AS_ROOT != 0 => 2,
        _ => 0,
    };
    Ok(CrashInfo {
        pid: info.tgid as i32,
        cgroup: info.cgroup,
        dump_mode: crashed.then_some(dump_mode),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_crashed() {
        let own = open(std::process::id() as i32).unwrap();
        // KERNEL(6.13): older ones do not know the question.
        let Ok(info) = crash_info(&own) else { return };
        assert_eq!((info.pid, info.dump_mode), (std::process::id() as i32, None));
    }
}
