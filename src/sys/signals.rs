//! Signals of a process that stays, as something to wait for among other things.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// The wish to end (SIGTERM, SIGINT), and ends of children (SIGCHLD).
#[derive(Debug)]
pub struct Signals(SignalFd);

fn ours() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().collect()
}

impl Signals {
    /// From now on they come here, and do nothing else.
    ///
    /// # References
    /// signalfd(2).
    pub fn take() -> Result<Self> {
        ours().thread_block().context("sigprocmask(SIG_BLOCK)")?;
        SignalFd::with_flags(&ours(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Signals).context("signalfd")
    }

    /// For a child: they do again what they do in every process, and a terminal's do not reach it.
    pub fn give_back() -> Result<()> {
        rustix::process::setpgid(None, None).context("setpgid")?;
        ours().thread_unblock().context("sigprocmask(SIG_UNBLOCK)")
    }

    /// Whether one of those that came since the last call was the wish to end.
    pub fn end_is_wished(&self) -> bool {
        let mut wished = false;
        while let Ok(Some(signal)) = self.0.read_signal() {
            wished |= signal.ssi_signo != Signal::SIGCHLD as u32;
        }
        wished
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
