//! Why a copy ends before the end of the core, and the limits that can end it.

use crate::config::KeptMemory;
use crate::sys::Errno;

/// Why the copy ended before the end of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The next unit would go over RLIMIT_CORE.
    Limit,
    /// The target took no more.
    Write(Errno),
    /// The room that a limit leaves on the target is used up.
    Full,
    /// The stream could not be read.
    Read(Errno),
    /// The memory of the process, which has been let go, could not be read.
    Memory(Errno),
    /// The stream ended early: the crasher was killed.
    Ended,
}

/// What bounds a core, and how much of the memory it keeps.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    /// RLIMIT_CORE: most bytes emitted.
    pub limit: Option<u64>,
    /// RLIMIT_FSIZE: most bytes of the file.
    pub file_size: Option<u64>,
    /// How much of the memory is kept.
    pub keep: KeptMemory,
}

impl Bounds {
    /// What both leave.
    pub(crate) fn room(&self) -> u64 {
        self.limit.unwrap_or(u64::MAX).min(self.file_size.unwrap_or(u64::MAX))
    }
}
