//! Keeps an address space after its process has ended. A thread of ours sleeps in the middle of a
//! read of /proc/PID/mem, and until that ends the kernel does not tear the memory down. The read
//! waits for a page of ours that never arrives (userfaultfd).

use super::kernel::page_size;
use anyhow::{Context, Result, ensure};
use linux_raw_sys::general::{
    UFFD_API, UFFDIO_REGISTER_MODE_MISSING, uffdio_api, uffdio_range, uffdio_register,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

mod ioctl {
    use linux_raw_sys::general::{uffdio_api, uffdio_register};
    nix::ioctl_readwrite!(
        /// `UFFDIO_API` of ioctl_userfaultfd(2).
        api,
        0xaa,
        0x3f,
        uffdio_api
    );
    nix::ioctl_readwrite!(
        /// `UFFDIO_REGISTER` of ioctl_userfaultfd(2).
        register,
        0xaa,
        0x00,
        uffdio_register
    );
}

/// A page that never arrives. Created with privileges, used without.
#[derive(Debug)]
pub(crate) struct Hold {
    uffd: OwnedFd,
    page: usize,
}

impl Hold {
    /// Creates it. Needs CAP_SYS_PTRACE if `vm.unprivileged_userfaultfd` is 0. It works in this
    /// process only, not in a child.
    ///
    /// # References
    /// userfaultfd(2), ioctl_userfaultfd(2), Linux 4.3.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: the descriptor is used on a mapping of our own only, below.
        let uffd = unsafe {
            rustix::mm::userfaultfd(UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK)
        }
        .context("userfaultfd")?;
        let mut api = uffdio_api { api: UFFD_API.into(), features: 0, ioctls: 0 };
        // SAFETY: the structure is of the size that the request encodes and lives for the call.
        unsafe { ioctl::api(uffd.as_raw_fd(), &mut api) }.context("ioctl(UFFDIO_API)")?;
        let size = page_size();
        // SAFETY: a new anonymous mapping wherever the kernel likes; nothing of ours is there.
        let page = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                size as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .context("mmap")? as usize;
        let range = uffdio_range { start: page as u64, len: size };
        let mut register =
            uffdio_register { range, mode: UFFDIO_REGISTER_MODE_MISSING.into(), ioctls: 0 };
        // SAFETY: as above; the range is the mapping just made.
        unsafe { ioctl::register(uffd.as_raw_fd(), &mut register) }
            .context("ioctl(UFFDIO_REGISTER)")?;
        Ok(Hold { uffd, page })
    }

    /// Pins the address space of `mem`, an open /proc/PID/mem, by reading one byte at
    /// `address`, which must be readable. When this returns, the memory stays for as
    /// long as this process lives.
    pub(crate) fn hold(self, mem: OwnedFd, address: u64) -> Result<HeldMemory> {
        let page = self.page;
        let thread = move || {
            // SAFETY: the page is mapped for ever, and nobody else touches it: the read writes at
            // most one byte there, and never does.
            let byte = unsafe { std::slice::from_raw_parts_mut(page as *mut u8, 1) };
            let _ = rustix::io::pread(&mem, byte, address);
        };
        std::thread::Builder::new().stack_size(64 << 10).spawn(thread).context("thread")?;
        let mut fds = [PollFd::new(&self.uffd, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }))
            .context("poll(userfaultfd)")?;
        // The fault is reported from within the read, which holds a
        // reference to the memory by then.
        ensure!(ready == 1, "the read of /proc/PID/mem at {address:#x} failed");
        Ok(HeldMemory(self.uffd))
    }
}

/// An address space that is pinned until this process ends.
#[derive(Debug)]
pub(crate) struct HeldMemory(
    #[expect(dead_code, reason = "closing it would let the reader go")] OwnedFd,
);

impl AsFd for Hold {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }
}
