//! What becomes of a crash: the core's file and its limits, which older cores go, how many dumps
//! run at a time, and which refusals have a record of their own.
//!
//! `plan`, `quota` and `refusals` are pure; `slot` and `slots` lock files, and wait.

pub(super) mod plan;
pub(super) mod quota;
pub(super) mod refusals;
pub(super) mod slot;
pub(super) mod slots;
