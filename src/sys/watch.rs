//! Waits until something changes in a directory.

use anyhow::{Context, Result};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A watch over one directory.
#[derive(Debug)]
pub(crate) struct Watch(OwnedFd);

impl Watch {
    /// Starts watching. Anything put into the directory, or written to a file in
    /// it, is reported from now on.
    ///
    /// # References
    /// inotify(7), Linux 2.6.13.
    pub(crate) fn directory(dir: impl AsFd) -> Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC).context("inotify_init1")?;
        // inotify has no call that takes a descriptor; the magic link leads to the directory that
        // was opened, whatever its path is now.
        let path = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
        inotify::add_watch(
            &fd,
            path.as_str(),
            WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::ONLYDIR,
        )
        .context("inotify_add_watch")?;
        Ok(Watch(fd))
    }

    /// Waits for the next change. The caller must look for itself what changed,
    /// since events can be lost.
    pub(crate) fn wait(&self) -> Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let first = reader.next().context("read(inotify)")?;
        let _overflow = first.events().contains(ReadFlags::QUEUE_OVERFLOW);
        while !reader.is_buffer_empty() {
            reader.next().context("read(inotify)")?;
        }
        Ok(())
    }
}
