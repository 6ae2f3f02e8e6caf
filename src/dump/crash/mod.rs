//! Who crashed: what the kernel's arguments and /proc say, and whose container it was.

pub(super) mod arguments;
pub(super) mod container_root;
pub(super) mod facts;
pub(super) mod from_socket;
pub(super) mod origin;
pub(super) mod transport;
