//! The rights of a core's writer, and the limits for the cores of one container: against
//! real targets that hang, and real storms. Needs root and the machine's `core_pattern`: run
//! it with `--test-threads=1`.
#[path = "limits/counts.rs"]
mod counts;
#[path = "limits/quota.rs"]
mod quota;
#[path = "limits/stall.rs"]
mod stall;
#[path = "limits/writer.rs"]
mod writer;
