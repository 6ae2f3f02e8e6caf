//! Copying the core, with the crasher's rights only: through the kernel's pipe, or faster from the
//! memory of the process itself.

pub mod early_release;
pub mod frames;
pub mod head;
pub mod input;
pub mod lanes;
pub mod output;
pub mod parallel;
pub mod regions;
pub mod small_core;
