//! This process: its descriptors, exec, signals, credentials.

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::DumpableBehavior;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;
use std::time::Duration;

/// Lets a process that is dumping core continue to its end, with the exit status that it has,
/// although somebody still holds the other end of the kernel's pipe. The kernel waits for the
/// pipe until it is interrupted, and a tracer's interruption has no other effect. This
/// process must end soon after.
///
/// # References
/// ptrace(2), `PTRACE_SEIZE` and `PTRACE_INTERRUPT`, Linux 3.4; `wait_for_dump_helpers` and
/// `dump_emit` in fs/coredump.c.
pub fn interrupt_dump(thread: i32) -> Result<()> {
    for (request, name) in
        [(libc::PTRACE_SEIZE, "PTRACE_SEIZE"), (libc::PTRACE_INTERRUPT, "PTRACE_INTERRUPT")]
    {
        // SAFETY: neither request reads or writes memory of ours.
        if unsafe { libc::ptrace(request, thread, 0, 0) } != 0 {
            return Err(std::io::Error::last_os_error())
                .with_context(|| format!("ptrace({name}, {thread})"));
        }
    }
    Ok(())
}

/// Closes a file and returns the file system's error: some file systems write only now. The
/// descriptor must not be used any more.
pub fn close(fd: impl AsFd) -> rustix::io::Result<()> {
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
pub fn wait_readable(fd: impl AsFd, time: Option<Duration>) -> Result<bool> {
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
pub fn wait_readable_either(fds: [BorrowedFd<'_>; 2], time: Duration) -> Result<[bool; 2]> {
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    let mut all = fds.each_ref().map(|fd| PollFd::new(fd, PollFlags::IN));
    match poll(&mut all, Some(&time)) {
        Ok(_) => Ok(all.map(|fd| !fd.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok([false; 2]),
        Err(e) => Err(e).context("poll"),
    }
}

/// Replaces this process by `program` with an empty environment, as the kernel starts its
/// helpers. Returns only on failure.
///
/// `keep` stay open across the exec; descriptors 1 and 2 are closed, as when the
/// kernel starts a pipe helper.
pub fn exec_as_kernel_would(program: &OsStr, args: &[Vec<u8>], keep: &[OwnedFd]) -> anyhow::Error {
    let attempt = || -> Result<()> {
        let path = CString::new(program.as_bytes()).context("program path holds a NUL")?;
        let argv: Vec<CString> = args
            .iter()
            .map(|a| CString::new(a.as_slice()).context("argument holds a NUL"))
            .collect::<Result<_>>()?;
        for fd in keep {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).context("fcntl(F_SETFD)")?;
        }
        // SAFETY: SIG_DFL installs no handler; what is ignored would stay ignored over the exec.
        unsafe {
            nix::sys::signal::signal(
                nix::sys::signal::Signal::SIGPIPE,
                nix::sys::signal::SigHandler::SigDfl,
            )
        }
        .context("signal(SIGPIPE, SIG_DFL)")?;
        for fd in [1, 2] {
            // SAFETY: nothing of this process uses stdout and stderr between here and the exec.
            unsafe { libc::close(fd) };
        }
        nix::unistd::execve::<_, CString>(&path, &argv, &[])
            .with_context(|| format!("execve({program:?})"))?;
        Ok(())
    };
    match attempt() {
        Ok(()) => unreachable!("execve returned without an error"),
        Err(e) => e,
    }
}

/// Makes this process not dumpable: nobody may trace it or read its memory, and
/// it leaves no core itself.
pub fn not_dumpable() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("prctl(PR_SET_DUMPABLE, 0)")
}

/// If memory runs out, this process is killed before any other of its group: a core in memory must
/// not cost another process its life.
///
/// # References
/// proc_pid_oom_score_adj(5), Linux 2.6.36: raising it needs no privilege.
pub fn first_to_go() -> Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "1000")
        .context("write 1000 to /proc/self/oom_score_adj")
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

/// Makes writes beyond the file size limit fail with `EFBIG` instead of killing this process.
pub fn ignore_file_size_signal() -> Result<()> {
    // SAFETY: SIG_IGN installs no handler.
    unsafe {
        nix::sys::signal::signal(
            nix::sys::signal::Signal::SIGXFSZ,
            nix::sys::signal::SigHandler::SigIgn,
        )
    }
    .context("signal(SIGXFSZ, SIG_IGN)")?;
    Ok(())
}

/// The user who runs this process, on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Root, in the initial user namespace or in a user namespace of root's.
    Root,
    /// This user, by the ID on the host; possibly as root of a user namespace of his own.
    User(u32),
}

/// Determines the user, once, from /proc/self/uid_map. In a nested namespace, that gives the
/// ID that the outer one uses.
///
/// # References
/// user_namespaces(7).
pub fn who() -> Who {
    static WHO: OnceLock<Who> = OnceLock::new();
    *WHO.get_or_init(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        match outside(&map, effective_uid()) {
            Some(0) => Who::Root,
            Some(uid) => Who::User(uid),
            // Without a map every ID is the overflow ID, which belongs to no one.
            None => Who::User(effective_uid()),
        }
    })
}

/// The ID outside of a user namespace of a user inside, by its map.
fn outside(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        uid.checked_sub(inside).filter(|n| *n < count)?.checked_add(outside)
    })
}

/// Whether this process is root of the initial user namespace, as far as /proc/self/uid_map shows.
pub fn is_host_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// A pipe, both ends closed on exec.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe2")
}

/// Enlarges a pipe, as far as the system allows. A smaller pipe is no error: it
/// only needs more system calls.
pub fn enlarge_pipe(pipe: impl AsFd, bytes: usize) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, bytes);
}

/// Takes over a descriptor that this process was started with, such as the pidfd that the kernel
/// passes to its helper. `None` if it is not open.
pub fn inherited(fd: i32) -> Option<OwnedFd> {
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
pub fn number(fd: impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}

/// `write(2)`, restarted when a signal interrupts it.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> rustix::io::Result<usize> {
    loop {
        match rustix::io::write(&fd, bytes) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// `pwrite(2)`: writes at most these bytes at this offset, and returns how many.
pub fn write_at(fd: impl AsFd, bytes: &[u8], offset: u64) -> rustix::io::Result<usize> {
    loop {
        match rustix::io::pwrite(&fd, bytes, offset) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Closes every descriptor of this process except the standard three and those given.
///
/// # References
/// close_range(2), Linux 5.9.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> Result<()> {
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
pub fn stdin() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}

/// Replaces standard input by another descriptor. The kernel, which waits until every holder of its
/// pipe has closed it, then releases the crashed process. May be repeated.
pub fn replace_stdin(with: impl AsFd) {
    let _ = rustix::stdio::dup2_stdin(with);
}

/// Replaces a child's standard input, output and error by /dev/null, so that no
/// reader of them waits for it.
pub fn release_streams() {
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// Names the process for ps(1): `PR_SET_NAME`, 15 bytes at most.
pub fn set_name(name: &std::ffi::CStr) {
    let _ = rustix::thread::set_name(name);
}

/// Makes the kernel kill this process when its parent ends.
///
/// # References
/// prctl(2): `PR_SET_PDEATHSIG`.
pub fn end_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

/// Replaces standard input by /dev/null; see [`replace_stdin`].
pub fn release_stdin() {
    if let Ok(null) = std::fs::File::open("/dev/null") {
        replace_stdin(null);
    }
}

/// Runs `work`, whose one system call fails with `EINTR` after `time`.
///
/// # References
/// setitimer(2): repeated each second, in case the first signal comes before the call.
pub fn with_alarm<T>(time: Duration, work: impl FnOnce() -> T) -> Result<T> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn nothing(_: libc::c_int) {}
    let set = |value: Duration| {
        let spec = |t: Duration| libc::timeval {
            tv_sec: t.as_secs() as i64,
            tv_usec: t.subsec_micros().into(),
        };
        let timer = libc::itimerval {
            it_interval: spec(Duration::from_secs(u64::from(!value.is_zero()))),
            it_value: spec(value),
        };
        // SAFETY: the structure lives for the call, and nothing is asked back.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) }
    };
    // SAFETY: the handler does nothing, which is safe at any moment. Calls are
    // not started again after it.
    unsafe {
        sigaction(
            Signal::SIGALRM,
            &SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty()),
        )
    }
    .context("sigaction(SIGALRM)")?;
    set(time);
    let done = work();
    set(Duration::ZERO);
    Ok(done)
}

/// `read(2)`, restarted when a signal interrupts it.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    loop {
        match rustix::io::read(&fd, &mut *buffer) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Sets the size of an open file, in bytes, by ftruncate(2).
pub fn set_size(file: impl AsFd, size: u64) -> rustix::io::Result<()> {
    rustix::fs::ftruncate(file, size)
}

/// The effective user ID in this process's user namespace.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Lets all other processes run first: a hundred processes that are merely nice
/// would take a noticeable share.
///
/// # References
/// sched(7), `SCHED_IDLE`, Linux 2.6.23: needs no privilege.
pub fn step_back() {
    // SAFETY: reads the structure, which lives for the call.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &libc::sched_param { sched_priority: 0 })
    };
}

/// Number of CPUs that this process may run on.
pub fn cpus() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize)
}

/// Holds SIGINT back from this thread, and from the processes that it starts from now on.
///
/// # References
/// pthread_sigmask(3).
pub fn hold_interrupts() -> Result<()> {
    let mut interrupts = nix::sys::signal::SigSet::empty();
    interrupts.add(nix::sys::signal::Signal::SIGINT);
    interrupts.thread_block().context("pthread_sigmask")
}

#[cfg(test)]
mod tests {
    use super::outside;

    #[test]
    fn users_outside_of_a_namespace() {
        let rootless = "         0       1001          1\n         1     100000      65536\n";
        assert_eq!(
            (outside(rootless, 0), outside(rootless, 1), outside(rootless, 65_537)),
            (Some(1001), Some(100_000), None)
        );
        assert_eq!(outside("0 0 4294967295\n", 1001), Some(1001));
        assert_eq!(outside("", 0), None);
    }
}
