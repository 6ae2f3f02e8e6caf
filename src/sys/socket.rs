//! Datagrams to a log daemon, the peer of a stream socket, and sockets that listen.

use anyhow::{Context, Result, ensure};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

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
pub(crate) fn peer(socket: impl AsFd) -> Result<i32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)
        .context("getsockopt(SO_PEERCRED)")?
        .pid
        .as_raw_nonzero()
        .get())
}

/// A pidfd of the process that made or connected the other end, also if it has ended.
///
/// # References
/// `SO_PEERPIDFD`, Linux 6.5.
pub(crate) fn peer_pidfd(socket: impl AsFd) -> Result<OwnedFd> {
    let (mut fd, mut size) = (-1i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the kernel writes one number and its size, and both live for the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut size,
        )
    };
    if done != 0 {
        return Err(std::io::Error::last_os_error()).context("getsockopt(SO_PEERPIDFD)");
    }
    // SAFETY: a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives a descriptor to the other side, without blocking.
///
/// # References
/// unix(7), `SCM_RIGHTS`.
pub(crate) fn give(socket: &UnixStream, fd: &OwnedFd) -> Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    ensure!(message.push(SendAncillaryMessage::ScmRights(&fds)), "no room for a descriptor");
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(&[0])], &mut message, flags).context("sendmsg(SCM_RIGHTS)")?;
    Ok(())
}

/// Waits for the descriptor that the other side gives. `None`: it has closed the socket.
pub(crate) fn receive(socket: &UnixStream) -> Result<Option<OwnedFd>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut bytes, &mut message, RecvFlags::CMSG_CLOEXEC)
    });
    let is_open = received.context("recvmsg")?.bytes > 0;
    let given = message.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    ensure!(given.is_some() || !is_open, "the other side has sent no descriptor");
    Ok(given)
}

/// Most connections that wait in the kernel, unless `net.core.somaxconn` is less.
const BACKLOG: i32 = 65_535;

/// Listens at a path, which root alone may connect to. What is there is replaced.
pub(crate) fn listen(path: &Path) -> Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .context("socket(AF_UNIX)")?;
    let address = SocketAddrUnix::new(path).with_context(|| format!("{path:?} as an address"))?;
    // A socket that is renamed into place is there all the time.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("remove {path:?}"));
        }
        _ => {}
    }
    // The mode of the file is that of the socket when it is bound.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600)).context("fchmod")?;
    rustix::net::bind(&socket, &address).with_context(|| format!("bind({path:?})"))?;
    rustix::net::listen(&socket, BACKLOG).with_context(|| format!("listen({path:?})"))?;
    Ok(socket.into())
}

/// Whether a descriptor is a socket that listens.
pub(crate) fn listens(socket: impl AsFd) -> bool {
    rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false)
}

/// Connects to the socket at `path` and waits until the other side closes the connection, without a
/// word: whoever listens there works. `time`: how long that may take.
pub(crate) fn is_answered(path: &Path, time: std::time::Duration) -> bool {
    let Ok(stream) = UnixStream::connect(path) else { return false };
    super::descriptor::wait_readable(&stream, Some(time)).unwrap_or(false)
}

/// The descriptors that this process was started with for its use: those of systemd's units of
/// sockets, or what an earlier program in this process has left. They are taken once.
///
/// # References
/// sd_listen_fds(3).
pub(crate) fn passed() -> Vec<OwnedFd> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(65_536) as i32;
    (FIRST..FIRST + count).filter_map(super::descriptor::inherited).collect()
}

/// The first descriptor that is passed: `SD_LISTEN_FDS_START`.
const FIRST: i32 = 3;

/// Starts a program in this process, and passes it descriptors as [`passed`] takes them. Returns
/// only on failure.
pub(crate) fn pass_on(fds: Vec<OwnedFd>, command: &mut std::process::Command) -> anyhow::Error {
    use std::os::unix::process::CommandExt;
    let count = fds.len() as i32;
    let attempt = || -> Result<()> {
        // First all out of the way, so that none takes the place of another one.
        let high = fds
            .iter()
            .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, FIRST + count))
            .collect::<rustix::io::Result<Vec<_>>>()
            .context("fcntl(F_DUPFD_CLOEXEC)")?;
        for (fd, place) in high.iter().zip(FIRST..) {
            // SAFETY: whatever has this number is not used any more: either the exec succeeds, or
            // this process ends.
            if unsafe { libc::dup2(fd.as_raw_fd(), place) } < 0 {
                return Err(std::io::Error::last_os_error()).context("dup2");
            }
        }
        Ok(())
    };
    if let Err(e) = attempt() {
        return e;
    }
    let pid = std::process::id().to_string();
    let error = command.env("LISTEN_PID", pid).env("LISTEN_FDS", count.to_string()).exec();
    anyhow::Error::new(error).context("execve")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_descriptor_is_given() {
        let (ours, other) = UnixStream::pair().unwrap();
        let (mut read, write) = UnixStream::pair().unwrap();
        give(&ours, &write.into()).unwrap();
        drop(receive(&other).unwrap().unwrap());
        assert_eq!(read.read(&mut [0]).unwrap(), 0, "that was the last one");
        drop(ours);
        assert!(receive(&other).unwrap().is_none());
        assert!(give(&other, &read.into()).is_err());
    }
}
