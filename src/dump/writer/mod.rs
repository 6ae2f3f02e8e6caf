//! Writing the core: the parent stays root and touches nothing of the container, the child becomes
//! the crasher and makes the file.

pub mod as_crasher;
pub mod child;
pub mod crasher;
pub mod label;
pub mod parent;
pub mod place;
pub mod protocol;
pub mod rotate;
pub mod watchdog;
