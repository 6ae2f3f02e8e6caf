//! Writing the core: the parent stays root and touches nothing of the container, the child becomes
//! the crasher and makes the file.

pub(super) mod child;
pub(super) mod crasher;
pub(super) mod crasher_task;
pub(super) mod label;
pub(super) mod parent;
pub(super) mod place;
pub(super) mod protocol;
pub(super) mod rotate;
pub(super) mod watchdog;
