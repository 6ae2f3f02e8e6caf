//! Which pages of a process exist: what tells a page of zeros that the program wrote from one that was never there.

use linux_raw_sys::general::{PAGE_IS_PFNZERO, PAGE_IS_PRESENT, PAGE_IS_SWAPPED, page_region, pm_scan_arg};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

nix::ioctl_readwrite!(
    /// `PAGEMAP_SCAN`
    pagemap_scan,
    b'f',
    16,
    pm_scan_arg
);

/// An open /proc/PID/pagemap. It keeps the address space described, not alive, and needs no privilege after it was opened.
#[derive(Debug)]
pub struct Pagemap(OwnedFd);

impl Pagemap {
    /// Takes an open /proc/PID/pagemap.
    pub fn new(fd: OwnedFd) -> Self {
        Pagemap(fd)
    }

    /// Whether the page at `address` (a multiple of the page size) is there, in memory or in swap, and is not the kernel's shared page of zeros:
    /// what the kernel's file mode emits, where it leaves a hole for all others.
    ///
    /// # References
    /// `PAGEMAP_SCAN`, Documentation/admin-guide/mm/pagemap.rst, Linux 6.7. Older kernels cannot name the zero page: a page that is present counts.
    pub fn emitted(&self, address: u64) -> bool {
        let mut region = page_region { start: 0, end: 0, categories: 0 };
        let mut arg = pm_scan_arg {
            size: size_of::<pm_scan_arg>() as u64,
            flags: 0,
            start: address,
            end: address + 4096,
            walk_end: 0,
            vec: (&raw mut region) as u64,
            vec_len: 1,
            max_pages: 1,
            category_inverted: PAGE_IS_PFNZERO.into(),
            category_mask: PAGE_IS_PFNZERO.into(),
            category_anyof_mask: (PAGE_IS_PRESENT | PAGE_IS_SWAPPED).into(),
            return_mask: (PAGE_IS_PRESENT | PAGE_IS_SWAPPED).into(),
        };
        // SAFETY: `arg` and the one region that it points to live for the whole call, and the sizes given are theirs.
        match unsafe { pagemap_scan(self.0.as_raw_fd(), &mut arg) } {
            Ok(found) => found > 0,
            Err(_) => self.present(address),
        }
    }

    /// Bits 63 (present) and 62 (swapped) of the page's entry.
    fn present(&self, address: u64) -> bool {
        let mut entry = [0u8; 8];
        matches!(rustix::io::pread(&self.0, &mut entry, address / 4096 * 8), Ok(8)) && u64::from_ne_bytes(entry) >> 62 != 0
    }
}

impl AsFd for Pagemap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
