//! Copying the core, with the crasher's rights only: through the kernel's pipe, or faster from the
//! memory of the process itself.

pub mod early_release;
pub mod frames;
pub mod head;
pub mod input;
pub mod lanes;
pub mod output;
pub mod pages;
pub mod parallel;
pub mod pipe;
pub mod regions;
pub mod sink;
pub mod small_core;
pub mod source;
pub mod spans;
pub mod stop;
pub mod target;
