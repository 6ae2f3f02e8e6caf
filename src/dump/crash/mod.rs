//! Who crashed: what the kernel's arguments and /proc say, and whose container it was.

pub mod arguments;
pub mod container;
pub mod facts;
