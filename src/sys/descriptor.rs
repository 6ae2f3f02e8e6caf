//! Descriptors of this process: pipes, reading, writing, waiting, and the standard three.

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Closes a file and returns the file system's error: some file systems write only now. The
/// descriptor must not be used any more.
pub(crate) fn close(fd: impl AsFd) -> rustix::io::Result<()> {
    // SAFETY: the caller is a child that leaves by _exit: no destructor closes
    // this number a second time.
    match unsafe { libc::close(fd.as_fd().as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()
            .raw_os_error()
            .map_or(rustix::io::Errno::IO, rustix::io::Errno::from_raw_os_error)),
    }
}

/// Waits until there is something to read, or end of file, for at most `time`.
/// Returns whether there is.
pub(crate) fn wait_readable(fd: impl AsFd, time: Option<Duration>) -> Result<bool> {
    let time =
        time.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
    loop {
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], time.as_ref()) {
            Ok(n) => return Ok(n > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("poll"),
        }
    }
}

/// The same for two descriptors: for each, whether there is something to read.
pub(crate) fn wait_readable_either(fds: [BorrowedFd<'_>; 2], time: Duration) -> Result<[bool; 2]> {
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    let mut all = fds.each_ref().map(|fd| PollFd::new(fd, PollFlags::IN));
    match poll(&mut all, Some(&time)) {
        Ok(_) => Ok(all.map(|fd| !fd.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok([false; 2]),
        Err(e) => Err(e).context("poll"),
    }
}

/// A pipe, both ends closed on exec.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe2")
}

/// Enlarges a pipe, as far as the system allows. A smaller pipe is no error: it
/// only needs more system calls.
pub(crate) fn enlarge_pipe(pipe: impl AsFd, bytes: usize) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, bytes);
}

/// Takes over a descriptor that this process was started with, such as the pidfd that the kernel
/// passes to its helper. `None` if it is not open.
pub(crate) fn inherited(fd: i32) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: fcntl(F_GETFD) on a number that may not be open only reports EBADF.
    if fd < 3 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, above the standard three, and called once, before this process opens
    // anything that it could be confused with.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// The descriptor's number, for messages.
pub(crate) fn number(fd: impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}

/// `read(2)`, restarted when a signal interrupts it.
pub(crate) fn read(fd: impl AsFd, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    loop {
        match rustix::io::read(&fd, &mut *buffer) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// `write(2)`, restarted when a signal interrupts it.
pub(crate) fn write(fd: impl AsFd, bytes: &[u8]) -> rustix::io::Result<usize> {
    loop {
        match rustix::io::write(&fd, bytes) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Moves bytes into a pipe, without copying them where that is possible: how many, 0 at the end.
///
/// # References
/// splice(2).
pub(crate) fn splice(from: impl AsFd, pipe: impl AsFd) -> rustix::io::Result<usize> {
    const MOST: usize = 1 << 20;
    loop {
        let flags = rustix::pipe::SpliceFlags::empty();
        match rustix::pipe::splice(&from, None, &pipe, None, MOST, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Whether the other side of a stream socket is gone.
pub(crate) fn is_hung_up(socket: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&socket, PollFlags::empty())];
    let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// Gives a descriptor another number, which no other may have.
pub(crate) fn renumber(fd: OwnedFd, number: i32) -> Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    if fd.as_raw_fd() == number {
        return Ok(fd);
    }
    // SAFETY: the number is nobody else's, so that the new descriptor has one owner.
    unsafe {
        if libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) < 0 {
            return Err(std::io::Error::last_os_error()).context("dup3");
        }
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// `pwrite(2)`: writes at most these bytes at this offset, and returns how many.
pub(crate) fn write_at(fd: impl AsFd, bytes: &[u8], offset: u64) -> rustix::io::Result<usize> {
    loop {
        match rustix::io::pwrite(&fd, bytes, offset) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Sets the size of an open file, in bytes, by ftruncate(2).
pub(crate) fn set_size(file: impl AsFd, size: u64) -> rustix::io::Result<()> {
    rustix::fs::ftruncate(file, size)
}

/// Closes every descriptor of this process except the standard three and those given.
///
/// # References
/// close_range(2), Linux 5.9.
pub(crate) fn close_all_but(keep: &[BorrowedFd<'_>]) -> Result<()> {
    let mut keep: Vec<u32> =
        keep.iter().map(|fd| fd.as_raw_fd() as u32).filter(|n| *n > 2).collect();
    keep.sort_unstable();
    let mut first = 3u32;
    for stop in keep.into_iter().chain([u32::MAX]) {
        if first < stop {
            // SAFETY: for a child that leaves by _exit: no destructor closes
            // these numbers a second time.
            let r = unsafe { libc::syscall(libc::SYS_close_range, first, stop - 1, 0) };
            if r != 0 {
                return Err(std::io::Error::last_os_error()).context("close_range");
            }
        }
        first = stop.saturating_add(1);
    }
    Ok(())
}

/// Standard input, whoever opened it.
pub(crate) fn stdin() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}

/// Replaces standard input by another descriptor. The kernel, which waits until every holder of its
/// pipe has closed it, then releases the crashed process. May be repeated.
pub(crate) fn replace_stdin(with: impl AsFd) {
    let _ = rustix::stdio::dup2_stdin(with);
}

/// Replaces standard input by /dev/null; see [`replace_stdin`].
pub(crate) fn release_stdin() {
    if let Ok(null) = std::fs::File::open("/dev/null") {
        replace_stdin(null);
    }
}

/// Replaces a child's standard input, output and error by /dev/null, so that no
/// reader of them waits for it.
pub(crate) fn release_streams() {
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// Opens /dev/null for each of the standard streams that is closed, and makes writes to a closed
/// pipe fail with `EPIPE` instead of killing this process.
pub fn make_streams_safe() -> Result<()> {
    for fd in 0..=2 {
        // SAFETY: fcntl(F_GETFD) on a number that may not be open only reports EBADF.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            // The lowest free number is this one.
            let null =
                rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())
                    .context("open /dev/null")?;
            std::mem::forget(null);
        }
    }
    // SAFETY: SIG_IGN installs no handler.
    unsafe {
        nix::sys::signal::signal(
            nix::sys::signal::Signal::SIGPIPE,
            nix::sys::signal::SigHandler::SigIgn,
        )
    }
    .context("signal(SIGPIPE, SIG_IGN)")?;
    Ok(())
}
