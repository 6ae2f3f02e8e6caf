//! What becomes of a crash: the core's file and its limits, which older cores go, how many dumps
//! run at a time, and which refusals have a record of their own.

pub mod plan;
pub mod quota;
pub mod refusals;
pub mod slots;
