//! What the writer of a core may do, and how much one container's cores may take: against
//! real targets that hang, and real storms. Root; needs the machine's `core_pattern`: run
//! it with `--test-threads=1`.
#[path = "limits/quota.rs"]
mod quota;
#[path = "limits/stall.rs"]
mod stall;
mod support;
#[path = "limits/writer.rs"]
mod writer;
