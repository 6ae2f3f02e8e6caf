//! Datagrams to a log daemon, and the peer of a stream socket.

use anyhow::{Context, Result};
use std::os::unix::net::{UnixDatagram, UnixStream};

/// Sends `bytes` to the datagram socket at `path` without blocking. Returns
/// whether they were accepted.
pub(crate) fn send(path: &str, bytes: &[u8]) -> bool {
    let Ok(socket) = UnixDatagram::unbound() else { return false };
    socket.set_nonblocking(true).is_ok() && socket.send_to(bytes, path).is_ok()
}

/// PID of the process that made or connected the other end.
///
/// # References
/// unix(7), `SO_PEERCRED`.
pub(crate) fn peer(socket: &UnixStream) -> Result<i32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)
        .context("getsockopt(SO_PEERCRED)")?
        .pid
        .as_raw_nonzero()
        .get())
}
