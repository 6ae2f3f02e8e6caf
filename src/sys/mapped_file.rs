//! Maps a file into memory.

use anyhow::{Context, Result, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::AsFd;

/// A file, mapped privately and read-only.
///
/// For processes that may be lost ([`super::sandbox`]): the file's owner can truncate it while it
/// is mapped, and reading then ends in SIGBUS.
#[derive(Debug)]
pub(crate) struct Map {
    address: *mut std::ffi::c_void,
    size: usize,
}

impl Map {
    /// Maps the whole file.
    ///
    /// # References
    /// mmap(2).
    pub(crate) fn whole(file: impl AsFd) -> Result<Self> {
        let size =
            usize::try_from(super::file::stat(&file)?.size).context("the file is too large")?;
        ensure!(size > 0, "the file is empty");
        // SAFETY: a new mapping at an address that the kernel chooses
        // touches nothing that is there.
        let address = unsafe {
            mmap(std::ptr::null_mut(), size, ProtFlags::READ, MapFlags::PRIVATE, file, 0)
        }
        .with_context(|| format!("mmap({size})"))?;
        Ok(Map { address, size })
    }
}

impl std::ops::Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: address and size are those of a mapping that lives as long as `self`. Its bytes
        // change only if somebody writes to the file meanwhile; the parsers copy what they decide
        // on, and the process that runs them has nothing to lose.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.size) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no slice of it outlives `self`.
        let _ = unsafe { munmap(self.address, self.size) };
    }
}
