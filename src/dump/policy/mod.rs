//! The rules of what becomes of a crash, all of them pure: the core's file and its limits, which
//! older cores go, and which crashes without a core have a record of their own. The dispatcher asks
//! them for the plan, `slots` for rate and concurrency, and the writer, as the crashed process, for
//! cores, bytes and free space.

pub(super) mod plan;
pub(super) mod quota;
pub(super) mod refusals;
