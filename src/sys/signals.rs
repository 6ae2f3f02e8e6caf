//! Signals of this process as something to read, for a process that waits for several things.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// What the process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalEvent {
    /// A child has ended: SIGCHLD. One may stand for several.
    Child,
    /// To end: SIGTERM or SIGINT.
    End,
    /// To begin anew: SIGHUP.
    Again,
}

const TAKEN: [Signal; 4] = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

fn taken() -> SigSet {
    TAKEN.into_iter().collect()
}

/// The signals that were taken from their usual way.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Takes them. The process must be single-threaded.
    ///
    /// # References
    /// signalfd(2).
    pub(crate) fn take() -> Result<Self> {
        taken().thread_block().context("pthread_sigmask")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&taken(), flags).map(Signals).context("signalfd")
    }

    /// The next one that has come.
    pub(crate) fn next(&mut self) -> Option<SignalEvent> {
        let info = self.0.read_signal().ok()??;
        match Signal::try_from(info.ssi_signo as i32).ok()? {
            Signal::SIGCHLD => Some(SignalEvent::Child),
            Signal::SIGHUP => Some(SignalEvent::Again),
            _ => Some(SignalEvent::End),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives them their usual way again, in a child or before exec.
pub(crate) fn give_back() -> Result<()> {
    taken().thread_unblock().context("pthread_sigmask")
}
