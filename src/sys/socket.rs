//! One datagram to a log daemon.

use std::os::unix::net::UnixDatagram;

/// Sends `bytes` to the datagram socket at `path` without ever waiting. Whether it was taken.
pub fn send(path: &str, bytes: &[u8]) -> bool {
    let Ok(socket) = UnixDatagram::unbound() else { return false };
    socket.set_nonblocking(true).is_ok() && socket.send_to(bytes, path).is_ok()
}
