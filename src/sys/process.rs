//! This process as a whole: exec, signals, its name, its scheduling, its end.

use anyhow::{Context, Result};
use rustix::process::DumpableBehavior;
use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Lets a process that is dumping core continue to its end, with the exit status that it has,
/// although somebody still holds the other end of the kernel's pipe. The kernel waits for the
/// pipe until it is interrupted, and a tracer's interruption has no other effect. This
/// process must end soon after.
///
/// # References
/// ptrace(2), `PTRACE_SEIZE` and `PTRACE_INTERRUPT`, Linux 3.4; `wait_for_dump_helpers` and
/// `dump_emit` in fs/coredump.c.
pub(crate) fn interrupt_dump(thread: i32) -> Result<()> {
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

/// The file mode creation mask of what the kernel starts.
const KERNEL_UMASK: u32 = 0o022;

/// Replaces this process by `program` with an empty environment, as the kernel starts its
/// helpers. Returns only on failure.
///
/// `keep` stay open across the exec; descriptors 1 and 2 are closed, as when the
/// kernel starts a pipe helper.
pub(crate) fn exec_as_kernel_would(
    program: &OsStr,
    args: &[Vec<u8>],
    keep: &[OwnedFd],
) -> anyhow::Error {
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
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(KERNEL_UMASK));
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
pub(crate) fn not_dumpable() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("prctl(PR_SET_DUMPABLE, 0)")
}

/// If memory runs out, this process is killed before any other of its group: a core in memory must
/// not cost another process its life.
///
/// # References
/// proc_pid_oom_score_adj(5), Linux 2.6.36: raising it needs no privilege.
pub(crate) fn first_to_go() -> Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "1000")
        .context("write 1000 to /proc/self/oom_score_adj")
}

/// Makes writes beyond the file size limit fail with `EFBIG` instead of killing this process.
pub(crate) fn ignore_file_size_signal() -> Result<()> {
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

/// Names the process for ps(1): `PR_SET_NAME`, 15 bytes at most.
pub(crate) fn set_name(name: &std::ffi::CStr) {
    let _ = rustix::thread::set_name(name);
}

/// Makes the kernel kill this process when its parent ends.
///
/// # References
/// prctl(2): `PR_SET_PDEATHSIG`.
pub(crate) fn end_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

/// Makes the kernel send SIGTERM to this process when its parent ends.
pub(crate) fn end_with_parent_by_term() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
}

/// Runs `work`, whose one system call fails with `EINTR` after `time`, in this thread.
///
/// # References
/// timer_create(2), `SIGEV_THREAD_ID`: of other threads none is interrupted. Repeated each second,
/// in case the first signal comes before the call.
pub(crate) fn with_alarm<T>(time: Duration, work: impl FnOnce() -> T) -> Result<T> {
    use nix::sys::signal::SigevNotify::SigevThreadId;
    use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, Signal, sigaction};
    use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, which is safe at any moment. Calls are
    // not started again after it.
    unsafe { sigaction(Signal::SIGALRM, &action) }.context("sigaction(SIGALRM)")?;
    let thread_id = rustix::thread::gettid().as_raw_nonzero().get();
    let here = SigevThreadId { signal: Signal::SIGALRM, thread_id, si_value: 0 };
    let mut timer = Timer::new(nix::time::ClockId::CLOCK_MONOTONIC, SigEvent::new(here))
        .context("timer_create")?;
    let expiration = Expiration::IntervalDelayed(time.into(), Duration::from_secs(1).into());
    timer.set(expiration, TimerSetTimeFlags::empty()).context("timer_settime")?;
    Ok(work())
}

/// Lets all other processes run first: a hundred processes that are merely nice
/// would take a noticeable share.
///
/// # References
/// sched(7), `SCHED_IDLE`, Linux 2.6.23: needs no privilege.
pub(crate) fn step_back() {
    // SAFETY: reads the structure, which lives for the call.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &libc::sched_param { sched_priority: 0 })
    };
}

/// Gives a child that has stepped back the priority of any other process again. This process needs
/// CAP_SYS_NICE; without it the child goes on as it is.
///
/// # References
/// sched(7), `SCHED_OTHER`.
pub(crate) fn step_forward(child: i32) {
    // SAFETY: reads the structure, which lives for the call.
    unsafe {
        libc::sched_setscheduler(child, libc::SCHED_OTHER, &libc::sched_param { sched_priority: 0 })
    };
}

/// Number of CPUs that this process may run on.
pub(crate) fn cpus() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize)
}

/// Holds SIGINT back from this thread, and from the processes that it starts from now on.
///
/// # References
/// pthread_sigmask(3).
pub(crate) fn hold_interrupts() -> Result<()> {
    let mut interrupts = nix::sys::signal::SigSet::empty();
    interrupts.add(nix::sys::signal::Signal::SIGINT);
    interrupts.thread_block().context("pthread_sigmask")
}
