//! Locks of open files and directories.
//!
//! # References
//! flock(2).

use anyhow::{Context, Result};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Takes the exclusive lock of an open file or directory, waiting for it. Closing
/// the descriptor releases it.
pub(crate) fn lock(fd: impl AsFd) -> Result<()> {
    fs::flock(fd, fs::FlockOperation::LockExclusive).context("flock(LOCK_EX)")
}

/// Opens an empty file `name` below `dir` for locking, making it if it does not exist.
/// Nothing can be written to it.
pub(crate) fn open_lock(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))
        .with_context(|| format!("openat({name:?}, O_CREAT)"))
}

/// Takes the exclusive lock if it is free. Returns whether it did.
pub(crate) fn try_lock(fd: impl AsFd) -> Result<bool> {
    match fs::flock(fd, fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e).context("flock(LOCK_EX|LOCK_NB)"),
    }
}

/// Waits for the exclusive lock for at most `time`; waiters get it in the order in which they came.
/// Returns whether it was taken.
pub(crate) fn lock_within(fd: impl AsFd, time: Duration) -> Result<bool> {
    // Mostly it is free, and the alarm takes three system calls more.
    if try_lock(&fd)? {
        return Ok(true);
    }
    if time.is_zero() {
        return Ok(false);
    }
    crate::sys::process::with_alarm(time, || {
        match fs::flock(&fd, fs::FlockOperation::LockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => Ok(false),
            Err(e) => Err(e).context("flock(LOCK_EX)"),
        }
    })?
}
