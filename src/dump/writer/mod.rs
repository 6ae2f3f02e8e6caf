//! Writing the core: the parent stays root and touches nothing of the container, the child becomes
//! the crasher and makes the file.

pub(super) mod as_crasher;
pub(super) mod child;
pub(super) mod crasher;
pub(super) mod create_file;
pub(super) mod older_cores;
pub(super) mod parent;
pub(super) mod protocol;
pub(super) mod selinux_label;
pub(super) mod watchdog;
