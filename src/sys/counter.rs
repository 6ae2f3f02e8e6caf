//! A number in memory that this process shares with its children.

use anyhow::{Context, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that starts at 0. It exists for as long as the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counter(&'static AtomicU64);

impl Counter {
    /// A counter that is shared with all children made from now on.
    ///
    /// # References
    /// mmap(2), `MAP_SHARED`.
    pub(crate) fn shared() -> Result<Self> {
        // SAFETY: a new mapping wherever the kernel likes; nothing of ours is there.
        let page = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                4096,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        }
        .context("mmap(MAP_SHARED)")?;
        // SAFETY: the page is zeros, aligned, never unmapped, and touched as this atomic only.
        Ok(Counter(unsafe { &*page.cast::<AtomicU64>() }))
    }

    /// Adds `n` to the number, for all processes that share it.
    pub(crate) fn add(self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number now, with what every process that shares it has added so far.
    pub(crate) fn value(self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_counts_for_its_parent() {
        let counter = Counter::shared().unwrap();
        let child = crate::sys::child::fork(|| {
            counter.add(3);
            0
        });
        child.unwrap().end_within(std::time::Duration::from_secs(60)).unwrap();
        assert_eq!(counter.value(), 3);
    }
}
