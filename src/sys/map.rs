//! A file as bytes in memory.

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::os::fd::AsFd;

/// A file, mapped privately and for reading only.
///
/// For processes that can be lost ([`super::jail`]): whoever owns the file may cut it while it is mapped, and reading then ends in SIGBUS.
#[derive(Debug)]
pub struct Map {
    address: *mut std::ffi::c_void,
    size: usize,
}

impl Map {
    /// Maps the whole file.
    ///
    /// # References
    /// mmap(2).
    pub fn whole(file: impl AsFd) -> Result<Self> {
        let size = usize::try_from(super::file::stat(&file)?.size).context("the file is too large")?;
        ensure!(size > 0, "the file is empty");
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that is there.
        let address = unsafe { mmap(std::ptr::null_mut(), size, ProtFlags::READ, MapFlags::PRIVATE, file, 0) }.with_context(|| format!("mmap({size})"))?;
        Ok(Map { address, size })
    }
}

impl std::ops::Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: address and size are those of a mapping that lives as long as `self`. Its bytes change only if somebody writes to the file meanwhile;
        // the parsers copy what they decide on, and the process that runs them has nothing to lose.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.size) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no slice of it outlives `self`.
        let _ = unsafe { munmap(self.address, self.size) };
    }
}

/// A file that is written through memory: on a memory-backed file system several threads fill it at once, where `write(2)` lets one in at a time.
///
/// For processes that can be lost: whoever owns the file may cut it meanwhile, and writing then ends in SIGBUS.
#[derive(Debug)]
pub struct Shared {
    address: *mut std::ffi::c_void,
    size: usize,
}

// SAFETY: nothing but the address of a mapping, which any thread may use; the threads write to different bytes, and nobody reads.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps the first `size` bytes of a file that is at least as long.
    ///
    /// # References
    /// mmap(2).
    pub fn new(file: impl AsFd, size: u64) -> Result<Self> {
        let size = usize::try_from(size).context("the file is too large")?;
        let (rights, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that is there.
        let address = unsafe { mmap(std::ptr::null_mut(), size, rights, flags, file, 0) }.with_context(|| format!("mmap({size})"))?;
        Ok(Shared { address, size })
    }

    /// Writes `bytes` at `offset`, a multiple of the page size.
    ///
    /// # Errors
    /// `EFAULT`, `ENOMEM`: there is no room. `EINVAL`: the kernel is older than Linux 5.14.
    ///
    /// # References
    /// madvise(2): `MADV_POPULATE_WRITE`, which tells by an error what a plain access tells by SIGBUS.
    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Errno> {
        let start = usize::try_from(offset).ok().filter(|s| s.checked_add(bytes.len()).is_some_and(|end| end <= self.size)).ok_or(Errno::FBIG)?;
        // SAFETY: the range lies in the mapping, which lives as long as `self`; no reference to it exists, and what is copied comes from elsewhere.
        unsafe {
            let target = self.address.add(start);
            madvise(target, bytes.len(), Advice::LinuxPopulateWrite)?;
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.cast(), bytes.len());
        }
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody uses it beyond `self`.
        let _ = unsafe { munmap(self.address, self.size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_through_memory() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(12288).unwrap();
        let map = Shared::new(&file, 12288).unwrap();
        map.write(b"core", 4096).unwrap();
        assert_eq!(map.write(&[1; 8], 12284), Err(Errno::FBIG));
        drop(map);
        let mut bytes = vec![0; 12288];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert_eq!((&bytes[4096..4100], bytes.iter().filter(|b| **b != 0).count()), (&b"core"[..], 4));
        assert_eq!(std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()), 8);
    }
}
