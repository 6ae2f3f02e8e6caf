//! Finds the pages of a process that exist, to distinguish a page of zeros that the program wrote
//! from one that was never touched.

use super::kernel::page_size;
use linux_raw_sys::general::{
    PAGE_IS_PFNZERO, PAGE_IS_PRESENT, PAGE_IS_SWAPPED, page_region, pm_scan_arg,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const NOTHING: page_region = page_region { start: 0, end: 0, categories: 0 };

/// Request number of `PAGEMAP_SCAN` (linux/fs.h), for the seccomp filter.
pub(crate) const SCAN: u64 = nix::request_code_readwrite!(b'f', 16, size_of::<pm_scan_arg>());

nix::ioctl_readwrite!(
    /// `PAGEMAP_SCAN` of linux/fs.h, since Linux 6.7.
    pagemap_scan,
    b'f',
    16,
    pm_scan_arg
);

/// An open /proc/PID/pagemap. It refers to the address space without keeping it, and
/// reading it needs no privilege.
#[derive(Debug)]
pub(crate) struct Pagemap(OwnedFd);

/// A run of pages: addresses from `start` up to but not including `end`.
pub(crate) type Run = (u64, u64);

impl Pagemap {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Pagemap(fd)
    }

    /// Whether the page at `address` (a multiple of the page size) exists, in memory or in swap,
    /// and is not the kernel's shared zero page. The kernel's file mode writes these pages, and
    /// leaves a hole for all others.
    pub(crate) fn emitted(&self, address: u64) -> bool {
        let mut runs = Vec::new();
        self.runs(address, address + page_size(), 1, &mut runs).is_ok() && !runs.is_empty()
    }

    /// Appends the runs of such pages between `start` and `end`, at most `pages` pages, and returns
    /// the address up to which it looked.
    ///
    /// # References
    /// `PAGEMAP_SCAN`, Documentation/admin-guide/mm/pagemap.rst, Linux 6.7. Older kernels cannot
    /// identify the zero page: a page that is present counts.
    pub(crate) fn runs(
        &self,
        start: u64,
        end: u64,
        pages: u64,
        out: &mut Vec<Run>,
    ) -> rustix::io::Result<u64> {
        let mut found = [NOTHING; 64];
        match self.scan(start, end, pages, &mut found) {
            Ok((runs, looked)) => {
                out.extend(runs);
                Ok(looked)
            }
            // KERNEL(6.7): drop when PAGEMAP_SCAN can be assumed.
            Err(_) => self.entries(start, end.min(start + pages * page_size()), out),
        }
    }

    /// All runs of such pages between `start` and `end`, however far apart. `None` if there are
    /// more than 256 runs or more than `pages` pages, or the kernel cannot tell.
    pub(crate) fn all(&self, start: u64, end: u64, pages: u64) -> Option<Vec<Run>> {
        let mut found = [NOTHING; 257];
        let (runs, looked) = self.scan(start, end, pages, &mut found).ok()?;
        let runs: Vec<Run> = runs.collect();
        (looked >= end && runs.len() < found.len()).then_some(runs)
    }

    /// Scans for at most `pages` pages.
    fn scan<'f>(
        &self,
        start: u64,
        end: u64,
        pages: u64,
        found: &'f mut [page_region],
    ) -> rustix::io::Result<(impl Iterator<Item = Run> + use<'f>, u64)> {
        let mut arg = pm_scan_arg {
            size: size_of::<pm_scan_arg>() as u64,
            flags: 0,
            start,
            end,
            walk_end: 0,
            vec: found.as_mut_ptr() as u64,
            vec_len: found.len() as u64,
            max_pages: pages,
            category_inverted: PAGE_IS_PFNZERO.into(),
            category_mask: PAGE_IS_PFNZERO.into(),
            category_anyof_mask: (PAGE_IS_PRESENT | PAGE_IS_SWAPPED).into(),
            return_mask: (PAGE_IS_PRESENT | PAGE_IS_SWAPPED).into(),
        };
        // SAFETY: `arg` and the regions that it points to live for the whole call, and
        // the sizes given are theirs.
        match unsafe { pagemap_scan(self.0.as_raw_fd(), &mut arg) } {
            Ok(n) => Ok((found.iter().take(n as usize).map(|r| (r.start, r.end)), arg.walk_end)),
            Err(e) => Err(rustix::io::Errno::from_raw_os_error(e as i32)),
        }
    }

    /// The same, from the entries themselves: bits 63 (present) and 62 (swapped).
    fn entries(&self, start: u64, end: u64, out: &mut Vec<Run>) -> rustix::io::Result<u64> {
        let mut buffer = [0u8; 512 * 8];
        let page = page_size();
        let mut at = start;
        while at < end {
            let wanted = buffer.len().min(((end - at) / page * 8) as usize);
            let got = rustix::io::pread(&self.0, &mut buffer[..wanted], at / page * 8)?;
            if got < 8 {
                return Ok(end);
            }
            for entry in buffer[..got].chunks_exact(8) {
                if u64::from_ne_bytes(entry.try_into().expect("eight bytes")) >> 62 != 0 {
                    match out.last_mut() {
                        Some(last) if last.1 == at => last.1 = at + page,
                        _ => out.push((at, at + page)),
                    }
                }
                at += page;
            }
        }
        Ok(end)
    }
}

impl AsFd for Pagemap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
