//! What becomes of a crash: the core's file and its limits, which older cores go, and which
//! refusals have a record of their own. All of it is pure.

pub(super) mod plan;
pub(super) mod quota;
pub(super) mod refusals;
