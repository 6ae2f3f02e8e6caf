//! A process that outlives this one and cleans up after it.

use super::{child, descriptor};
use anyhow::Result;
use nix::sys::signal::SigSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Starts a process that outlives this one, however this one ends, and then runs `work`. Nothing
/// that ends this process ends that one. It keeps stdout and stderr, so that whoever reads them to
/// their end knows that the work is done, and the given descriptors.
pub(crate) fn executor(keep: &[BorrowedFd<'_>], work: impl FnOnce()) -> Result<Executor> {
    let (read, write) = descriptor::pipe()?;
    let child = child::fork(|| {
        let _ = SigSet::all().thread_block();
        let _ = rustix::process::setsid();
        let mut all = vec![read.as_fd()];
        all.extend_from_slice(keep);
        descriptor::release_stdin();
        if descriptor::close_all_but(&all).is_err() {
            return 1;
        }
        // End of file: no other process has the other end.
        let _ = descriptor::read(&read, &mut [0]);
        work();
        0
    })?;
    Ok(Executor { alive: Some(write), child: Some(child) })
}

/// See [`executor`]. Dropping it waits for the process.
#[derive(Debug)]
pub(crate) struct Executor {
    alive: Option<OwnedFd>,
    child: Option<child::Child>,
}

impl Drop for Executor {
    fn drop(&mut self) {
        drop(self.alive.take());
        // There may be much to remove; the process continues by itself if it takes longer.
        if let Some(child) = self.child.take() {
            let _ = child.end_within(std::time::Duration::from_secs(600));
        }
    }
}
