//! The memory of the crashed process, as the faster lanes read it.

use super::pages::page_size;
use super::stop::Stop;
use crate::elf::Load;
use crate::sys::memory::{ProcessMemory, Span};
use crate::sys::pagemap::Pagemap;
use crate::sys::{Errno, OwnedFd, pidfd};

/// What the lane reads from. All of it was opened with root's rights, for the process that the
/// pidfd names.
#[derive(Debug)]
pub(crate) struct CrashedMemory {
    pub memory: ProcessMemory,
    /// Which pages of it exist.
    pub pagemap: Pagemap,
    /// Where the vDSO is mapped.
    pub vdso: Option<u64>,
    /// The process; without it there is no fast lane.
    pub pidfd: Option<OwnedFd>,
    /// Where its threads' lists of robust futexes begin; asked for an early release only.
    pub robust: Vec<u64>,
    /// Most threads that may copy.
    pub threads: usize,
}

impl CrashedMemory {
    /// Reads, and says whether that was the crasher's. `held`: the process has gone, and its memory
    /// is held.
    ///
    /// # Errors
    /// [`Stop::Ended`]: it was not, or is not there any more.
    pub(crate) fn read(&self, spans: &[Span], buffer: &mut [u8], held: bool) -> Result<(), Stop> {
        let read = self.memory.read(spans, buffer);
        // Only now is it certain whose memory that was: the ID could have been another's by the
        // time of the read.
        if read == Err(Errno::SRCH) || !(held || self.alive()) {
            return Err(Stop::Ended);
        }
        read.map_err(Stop::Memory)
    }

    /// Whether what the page map has just shown is true: of a process that has gone it shows
    /// nothing, as of memory that was never touched.
    pub(crate) fn is_mapped(&self) -> bool {
        self.memory.exists()
    }

    /// Whether all memory of a core can be read from the process. Some kernels give what the
    /// process itself could not read to a debugger only: to us it would be zeros. `barred`: such
    /// memory; `files`: the starts of the mapped files.
    ///
    /// # References
    /// `proc_mem.force_override`, Documentation/admin-guide/kernel-parameters.txt, Linux 6.12;
    /// Debian has `CONFIG_PROC_MEM_FORCE_PTRACE`.
    pub(crate) fn can_read(&self, barred: &[Load], files: &[u64]) -> bool {
        barred.iter().all(|load| {
            let Ok(page) = self.existing_page(load) else { return false };
            // A page of a file has contents even where it does not exist yet.
            page.map_or(!files.contains(&load.address), |page| self.memory.is_given(page))
        })
    }

    /// A page of a load that exists.
    fn existing_page(&self, load: &Load) -> Result<Option<u64>, Errno> {
        let (mut at, end) = (load.address, load.address.saturating_add(load.size));
        let mut runs = Vec::new();
        while at < end && runs.is_empty() {
            // At least one page at a time.
            at = self.pagemap.runs(at, end, 512, &mut runs)?.max(at + page_size());
        }
        Ok(runs.first().map(|run| run.0))
    }

    /// Whether what was just read was the crasher's.
    pub(crate) fn alive(&self) -> bool {
        self.pidfd.as_ref().is_some_and(pidfd::lives)
    }
}

/// Why the lane gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The stream can do it, if it is still there. If not: why there is no more, and up to where
    /// the file is whole.
    Stream(Stop, u64),
    /// The process has gone; the file is whole up to here.
    Ended(u64),
}
