//! What becomes of a crash: the core's file and its limits, which older cores go, how many dumps
//! run at a time, and which refusals have a record of their own.

pub(super) mod plan;
pub(super) mod quota;
pub(super) mod refusals;
pub(super) mod slot;
pub(super) mod slots;
