//! Whether a pipe still has readers, without being one of its writers: they see its end meanwhile.

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A pipe, held by neither end.
#[derive(Debug)]
pub(crate) struct PipeReaders(OwnedFd);

impl PipeReaders {
    /// Of the pipe with this end.
    pub(crate) fn of(end: impl AsFd) -> Result<Self> {
        let path = format!("/proc/self/fd/{}", end.as_fd().as_raw_fd());
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map(PipeReaders)
            .context("open a pipe by its place in /proc")
    }

    /// Whether there are any. For that moment the pipe has a writer.
    ///
    /// # References
    /// pipe(7), poll(2): a writing end polls `POLLERR` when there is no reader.
    pub(crate) fn any(&self) -> Result<bool> {
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let end = rustix::fs::open(path, flags, Mode::empty()).context("open a pipe to write")?;
        let mut fds = [PollFd::new(&end, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).context("poll")?;
        Ok(!fds[0].revents().contains(PollFlags::ERR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::descriptor;

    #[test]
    fn readers_are_seen_and_see_the_end() {
        let (read, write) = descriptor::pipe().unwrap();
        let readers = PipeReaders::of(&write).unwrap();
        drop(write);
        assert!(readers.any().unwrap());
        assert_eq!(descriptor::read(&read, &mut [0; 4]), Ok(0), "the end");
        let another = read.try_clone().unwrap();
        drop(read);
        assert!(readers.any().unwrap());
        drop(another);
        assert!(!readers.any().unwrap());
    }
}
