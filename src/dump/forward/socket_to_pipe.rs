//! A pipe for the earlier handler of a crash that comes through the coredump socket. A process of
//! its own asks the kernel for the core and hands it on; the crashed process stays until the
//! handler, and whoever has the pipe from it, has closed it, as with the kernel's own pipe.

use crate::dump::crash::transport::Transport;
use crate::sys::pipe_readers::PipeReaders;
use crate::sys::{AsFd, OwnedFd, child, descriptor, pidfd, process};
use anyhow::{Context, Result};
use std::time::Duration;

/// How often it is looked whether the handler still has the pipe: at first, and at last.
const FIRST: Duration = Duration::from_millis(2);
const LAST: Duration = Duration::from_millis(100);

/// How long the process in between, which only forks, may take.
const FORK: Duration = Duration::from_secs(10);

/// The pipe's core is on its way when this process has become the handler.
#[derive(Debug)]
pub(super) struct Feed {
    /// Closed by a successful exec.
    word: OwnedFd,
}

impl Feed {
    /// Puts a pipe on stdin, and what feeds it beside this process: a child's child, since the
    /// handler knows of no children.
    pub(super) fn start() -> Result<Self> {
        let (read, write) = descriptor::pipe()?;
        let (started, word) = descriptor::pipe()?;
        let handler = pidfd::open(std::process::id() as i32).context("pidfd_open")?;
        let between = child::fork(|| {
            let feeding = child::fork(|| {
                process::set_name(c"oci-feed");
                let keep = [write.as_fd(), started.as_fd(), handler.as_fd()];
                let fed = descriptor::close_all_but(&keep)
                    .and_then(|()| feed(&write, &started, &handler));
                i32::from(fed.is_err())
            });
            i32::from(feeding.is_err())
        })?;
        between.end_within(FORK)?;
        descriptor::replace_stdin(&read);
        Ok(Feed { word })
    }

    /// This process could not become the handler: there is no core.
    pub(super) fn cancel(self) {
        // If the other one has ended, it needs no word.
        let _ = descriptor::write(&self.word, &[0]);
    }
}

fn feed(write: &OwnedFd, started: &OwnedFd, handler: &OwnedFd) -> Result<()> {
    if descriptor::read(started, &mut [0]) != Ok(0) {
        return Ok(());
    }
    let asked = Transport::Socket.ask().and_then(|()| Transport::Socket.answered());
    asked.context("ask the kernel for the core")?;
    let readers = PipeReaders::of(write)?;
    // The end of the core, or of its readers.
    while descriptor::splice(descriptor::stdin(), write).is_ok_and(|moved| moved > 0) {}
    descriptor::close(write).context("close")?;
    let mut pause = FIRST;
    while !descriptor::is_hung_up(descriptor::stdin()) && readers.any()? {
        // The end of the handler itself is seen at once.
        match pidfd::lives(handler) {
            true => drop(descriptor::wait_readable(handler, Some(pause))?),
            false => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(LAST);
    }
    Ok(())
}
