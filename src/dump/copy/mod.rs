//! Copying the core, with the crasher's rights only: through the kernel's pipe, or faster from the
//! memory of the process itself.

pub(super) mod crashed_memory;
pub(super) mod early_release;
pub(super) mod lanes;
pub(super) mod output;
pub(super) mod pages;
pub(super) mod parallel;
pub(super) mod pipe;
pub(super) mod pipe_reader;
pub(super) mod reduced;
pub(super) mod regions;
pub(super) mod sink;
pub(super) mod small_process;
pub(super) mod stop;
pub(super) mod target;
pub(super) mod zstd_frames;
