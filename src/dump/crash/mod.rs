//! Who crashed: what the kernel's arguments and /proc say, whose container it was, and how the core
//! comes (`transport`: by a pipe or through the socket).

pub(super) mod arguments;
pub(super) mod container_crash;
pub(super) mod container_root;
pub(super) mod facts;
pub(super) mod from_socket;
pub(super) mod origin;
pub(super) mod transport;
