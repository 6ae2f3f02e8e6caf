//! Sockets of this host: one datagram to a log daemon, who is at the other end of a stream, and messages that carry descriptors.

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, recvmsg,
};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

/// Sends `bytes` to the datagram socket at `path` without ever waiting. Whether it was taken.
pub fn send(path: &str, bytes: &[u8]) -> bool {
    let Ok(socket) = UnixDatagram::unbound() else { return false };
    socket.set_nonblocking(true).is_ok() && socket.send_to(bytes, path).is_ok()
}

/// The process that made or connected the other end.
///
/// # References
/// unix(7), `SO_PEERCRED`.
pub fn peer(socket: &UnixStream) -> Result<i32> {
    Ok(rustix::net::sockopt::socket_peercred(socket).context("getsockopt(SO_PEERCRED)")?.pid.as_raw_nonzero().get())
}

/// A socket at `path`, for messages; as many as may be can wait there.
///
/// # References
/// unix(7), `SOCK_SEQPACKET`; listen(2): net.core.somaxconn bounds it further.
pub fn listen(path: &str) -> Result<OwnedFd> {
    let socket = message_socket()?;
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = SocketAddrUnix::new(path).and_then(|address| rustix::net::bind(&socket, &address));
    rustix::process::umask(old);
    bound.with_context(|| format!("bind({path:?})"))?;
    rustix::net::listen(&socket, 4096).context("listen")?;
    Ok(socket)
}

fn message_socket() -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).context("socket(AF_UNIX, SOCK_SEQPACKET)")
}

/// The process that listens at `path`; `None` if nobody does.
pub fn listener(path: &str) -> Option<i32> {
    let socket = message_socket().ok()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
    Some(rustix::net::sockopt::socket_peercred(&socket).ok()?.pid.as_raw_nonzero().get())
}

/// Nobody can connect any more, and who waits in [`accept`] stops.
pub fn stop_listening(listener: impl AsFd) -> Result<()> {
    rustix::net::shutdown(listener, Shutdown::Both).context("shutdown")
}

/// Waits for somebody to connect.
pub fn accept(listener: impl AsFd) -> Result<OwnedFd> {
    loop {
        match rustix::net::accept_with(&listener, SocketFlags::CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.context("accept"),
        }
    }
}

/// One message of root's, of at most `most` bytes, with at most two descriptors.
///
/// # Errors
/// There is none, it is larger, or somebody else sent it.
pub fn receive(socket: impl AsFd, most: usize) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let sender = rustix::net::sockopt::socket_peercred(&socket).context("getsockopt(SO_PEERCRED)")?;
    ensure!(sender.uid.is_root(), "user {} has connected", sender.uid.as_raw());
    let mut bytes = vec![0; most];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).context("recvmsg")?;
    bytes.truncate(got.bytes);
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) || bytes.is_empty() {
        bail!("a message that is empty, or larger than {most} bytes and two descriptors");
    }
    Ok((bytes, descriptors))
}

/// Says one word. Whether the other side can still hear it.
pub fn say(socket: impl AsFd, word: u8) -> bool {
    rustix::net::send(socket, &[word], SendFlags::NOSIGNAL) == Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_with_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let path = path.to_str().unwrap();
        assert_eq!(listener(path), None);
        let at = listen(path).unwrap();
        assert_eq!(listener(path), Some(std::process::id() as i32));
        // That one said nothing.
        assert!(receive(accept(&at).unwrap(), 64).is_err());
        let client = message_socket().unwrap();
        rustix::net::connect(&client, &SocketAddrUnix::new(path).unwrap()).unwrap();
        rustix::net::send(&client, &[7; 65], SendFlags::empty()).unwrap();
        rustix::net::send(&client, b"abc", SendFlags::empty()).unwrap();
        let server = accept(&at).unwrap();
        assert!(receive(&server, 64).is_err(), "too large");
        assert_eq!(receive(&server, 64).unwrap().0, b"abc");
        // Who has stopped to listen cannot be told any more: the other one does the work then.
        assert!(say(&server, 1));
        rustix::net::shutdown(&client, Shutdown::Both).unwrap();
        assert!(!say(&server, 1));
        stop_listening(&at).unwrap();
        assert!(accept(&at).is_err());
        assert_eq!(listener(path), None);
    }
}
