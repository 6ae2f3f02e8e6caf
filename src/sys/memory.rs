//! The memory of another process.

use super::kernel::page_size;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::io::Errno;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A part of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Address of its first byte in the process.
    pub address: u64,
    /// Length of the region in bytes.
    pub size: usize,
}

/// The memory of one thread's process. `mem` stays bound to that address space; the thread ID may
/// be reused, so a reader must check the pidfd afterwards.
#[derive(Debug)]
pub(crate) struct ProcessMemory {
    thread: i32,
    mem: OwnedFd,
    /// Whether process_vm_readv may still be tried. Yama or a missing
    /// capability forbids it for good.
    direct: AtomicBool,
}

impl ProcessMemory {
    /// `mem` is /proc/PID/mem, opened by a process that may; `thread` is a thread of that process.
    pub(crate) fn new(thread: i32, mem: OwnedFd) -> Self {
        ProcessMemory { thread, mem, direct: AtomicBool::new(true) }
    }

    /// From now on reads only through /proc/PID/mem: the process may end, and its ID may be reused.
    pub(crate) fn detach(&self) {
        self.direct.store(false, Ordering::SeqCst);
    }

    /// A second descriptor of /proc/PID/mem.
    pub(crate) fn mem(&self) -> std::io::Result<OwnedFd> {
        self.mem.try_clone()
    }

    /// Whether the address space still is one: its pages are given back when the last process that
    /// uses it ends, and from then on a page map shows none of them.
    ///
    /// # References
    /// proc_pid_mem(5): a read is at the end of the file then, else it fails where nothing is
    /// mapped, as in the last page that an offset can name.
    pub(crate) fn exists(&self) -> bool {
        const NOWHERE: u64 = i64::MAX as u64 & !0xffff;
        loop {
            match rustix::io::pread(&self.mem, &mut [0u8; 1], NOWHERE) {
                Err(Errno::INTR) => {}
                other => return other != Ok(0),
            }
        }
    }

    /// Whether a page that exists is given to us, also where the process itself could not read it.
    pub(crate) fn is_given(&self, page: u64) -> bool {
        loop {
            match rustix::io::pread(&self.mem, &mut [0u8; 1], page) {
                Err(Errno::INTR) => {}
                read => return !matches!(read, Err(Errno::IO | Errno::FAULT)),
            }
        }
    }

    /// Reads `spans`, one after the other, into `buffer`, which has their total size. A page that
    /// cannot be read becomes zeros, as in the kernel's core.
    ///
    /// # Errors
    /// `ESRCH`: the process is gone.
    ///
    /// # References
    /// process_vm_readv(2), Linux 3.2, at most 1,024 spans (`UIO_MAXIOV`); proc_pid_mem(5), which
    /// reads what the process itself may not (`PROT_NONE`).
    pub(crate) fn read(&self, spans: &[Span], buffer: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        if self.direct.load(Ordering::Relaxed) {
            let remote: Vec<_> = spans
                .iter()
                .map(|s| RemoteIoVec { base: s.address as usize, len: s.size })
                .collect();
            match process_vm_readv(
                Pid::from_raw(self.thread),
                &mut [IoSliceMut::new(buffer)],
                &remote,
            ) {
                Ok(n) => done = n,
                Err(nix::errno::Errno::ESRCH) => return Err(Errno::SRCH),
                Err(nix::errno::Errno::EFAULT) => {}
                Err(_) => self.direct.store(false, Ordering::Relaxed),
            }
        }
        let mut start = 0;
        for span in spans {
            let end = start + span.size;
            if done < end {
                let skip = done.saturating_sub(start);
                self.read_by_mem(span.address + skip as u64, &mut buffer[start + skip..end])?;
            }
            start = end;
        }
        Ok(())
    }

    /// Reads through /proc/PID/mem, page by page if some cannot be read.
    fn read_by_mem(&self, mut address: u64, mut buffer: &mut [u8]) -> Result<(), Errno> {
        // Offsets of /proc/PID/mem are signed, so the legacy vsyscall page, the only one in
        // the kernel's half of the address space, cannot be reached. All processes have the
        // same one, so our own is used; nearly everywhere it is execute-only
        // (`vsyscall=xonly`), and zeros in a core.
        if address > i64::MAX as u64 {
            let remote = [RemoteIoVec { base: address as usize, len: buffer.len() }];
            let got =
                process_vm_readv(Pid::this(), &mut [IoSliceMut::new(buffer)], &remote).unwrap_or(0);
            buffer[got..].fill(0);
            return Ok(());
        }
        while !buffer.is_empty() {
            let n = match rustix::io::pread(&self.mem, &mut *buffer, address) {
                // The address space is gone.
                Ok(0) => return Err(Errno::SRCH),
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(Errno::IO | Errno::FAULT) => {
                    let page = page_size() as usize;
                    let n = (page - address as usize % page).min(buffer.len());
                    buffer[..n].fill(0);
                    n
                }
                Err(e) => return Err(e),
            };
            address += n as u64;
            buffer = &mut buffer[n..];
        }
        Ok(())
    }
}

/// Whether two processes share their memory, as a process and its parent do between vfork(2) and
/// exec. `false` if the kernel cannot tell.
///
/// # References
/// kcmp(2), Linux 3.5 (`CONFIG_KCMP`).
pub(crate) fn is_shared(one: i32, other: i32) -> bool {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: the call takes numbers only and touches no memory.
    one != other && unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) } == 0
}

impl AsFd for ProcessMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mem.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pagemap::Pagemap;
    use std::process::{Command, Stdio};

    /// A page map that shows nothing tells nothing of whether the process is still there.
    #[test]
    fn what_is_left_of_a_process_that_has_ended() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id() as i32;
        let open = |name: &str| std::fs::File::open(format!("/proc/{pid}/{name}")).unwrap();
        let memory = ProcessMemory::new(pid, open("mem").into());
        let pagemap = Pagemap::new(open("pagemap").into());
        assert!(memory.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!memory.exists());
        let mut runs = Vec::new();
        pagemap.runs(0, 1 << 40, 16, &mut runs).unwrap();
        assert_eq!(runs, []);
    }
}
