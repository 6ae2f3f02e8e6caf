//! A child process for reading untrusted input: no privileges, no way to open anything, and
//! bounded memory, processor time and wall time. It has the descriptors that it is given,
//! and a pipe for its output.

use super::child::{self, Ended};
use super::cred;
use super::descriptor;
use super::filter::{self, BpfProgram, Rule, Rule::Allow};
use super::process;
use super::user::{self, reserved::READER};
use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bounds of a sandboxed child.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SandboxBounds {
    /// Most address space of the child, in bytes (RLIMIT_AS).
    pub memory: u64,
    /// Most processor time of the child, in seconds (RLIMIT_CPU).
    pub cpu: u64,
    /// Wall time until it is killed.
    pub time: Duration,
    /// Most bytes of its output.
    pub output: usize,
    /// Most bytes of a file that it writes to.
    pub file: u64,
}

/// The output of a sandboxed child, and why it stopped.
#[derive(Debug)]
pub(crate) struct ChildOutput {
    /// What the child has written; truncated where it was ended by a limit.
    pub output: Vec<u8>,
    /// Why the output is incomplete; `None` if the child came to its end.
    pub cut: Option<String>,
}

/// The user and group ID that own nothing, for root of a user namespace, which may not use
/// [`READER`].
const NOBODY: u32 = 65534;

/// Runs `work` in a sandbox. The caller must be single-threaded. `keep` are the descriptors that
/// the child has besides the pipe, under the same numbers.
///
/// # Errors
/// The child could not be started. What happens in it is in [`ChildOutput`].
///
/// # References
/// seccomp(2), Linux 3.17; setrlimit(2); credentials(7).
pub(crate) fn run(
    bounds: &SandboxBounds,
    keep: &[BorrowedFd<'_>],
    work: impl FnOnce(&mut dyn Write),
) -> Result<ChildOutput> {
    let (read, write) = descriptor::pipe()?;
    let child = child::fork(|| {
        let mut out = std::fs::File::from(write);
        match enter(bounds, keep, &out) {
            Ok(()) => {
                work(&mut out);
                // The end of the process closes it. std would check first that it is open, which
                // is one more call to allow.
                std::mem::forget(out);
                0
            }
            Err(e) => {
                let _ = write!(out, "{e:#}");
                1
            }
        }
    })?;
    let (output, why) = listen(&read, bounds);
    let ended = if why.is_some() { child.end_now() } else { child.end_within(bounds.time) }?;
    let cut = why.or_else(|| match ended.unwrap_or(Ended::Exit(0)) {
        Ended::Exit(0) => None,
        Ended::Exit(_) => Some(format!(
            "its reader could not give up its rights: {}",
            String::from_utf8_lossy(&output)
        )),
        Ended::Signal(n) if n == libc::SIGXCPU || n == libc::SIGKILL => {
            Some(format!("its reader had used {} seconds of processor time", bounds.cpu))
        }
        Ended::Signal(n) if n == libc::SIGXFSZ => {
            Some(format!("its reader wanted to write more than {} MiB", bounds.file >> 20))
        }
        // An abort ends as a forbidden call too.
        Ended::Signal(n) if n == libc::SIGABRT || n == child::FORBIDDEN => {
            Some("its reader gave up: more memory than it may have, or a defect".into())
        }
        Ended::Signal(n) => Some(format!("its reader was killed by signal {n}")),
    });
    Ok(ChildOutput { output, cut })
}

/// Reads the output of a child until it ends, exceeds its time, or writes too much; then also
/// returns why the reading stopped.
pub(crate) fn listen(pipe: &OwnedFd, bounds: &SandboxBounds) -> (Vec<u8>, Option<String>) {
    listen_beside(pipe, bounds, Meanwhile::default())
}

/// What is done while the output of a child is awaited, each once.
#[derive(Default)]
pub(crate) struct Meanwhile<'a> {
    /// Called when the descriptor has become readable.
    pub readable: Option<(&'a OwnedFd, &'a mut dyn FnMut())>,
    /// Called when the child has taken so long.
    pub late: Option<(Duration, &'a mut dyn FnMut())>,
}

/// The same, and what is done in the meantime.
pub(crate) fn listen_beside(
    pipe: &OwnedFd,
    bounds: &SandboxBounds,
    meanwhile: Meanwhile<'_>,
) -> (Vec<u8>, Option<String>) {
    let begun = Instant::now();
    let end = begun + bounds.time;
    let Meanwhile { mut readable, mut late } = meanwhile;
    let mut output = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return (
                output,
                Some(format!("its reader took more than {} seconds", bounds.time.as_secs())),
            );
        }
        if let Some((_, then)) = late.take_if(|(after, _)| begun.elapsed() >= *after) {
            then();
        }
        let until_late = late.as_ref().map(|(after, _)| after.saturating_sub(begun.elapsed()));
        let wait = until_late.map_or(left, |time| time.min(left));
        let is_ready = match &readable {
            None => descriptor::wait_readable(pipe, Some(wait)),
            Some((fd, _)) => {
                let ready = descriptor::wait_readable_either([pipe.as_fd(), fd.as_fd()], wait);
                if matches!(ready, Ok([_, true]))
                    && let Some((_, then)) = readable.take()
                {
                    then();
                }
                ready.map(|[is_ready, _]| is_ready)
            }
        };
        match is_ready {
            Ok(false) => continue,
            Ok(true) => {}
            Err(e) => return (output, Some(format!("{e:#}"))),
        }
        match descriptor::read(pipe, &mut buffer) {
            Ok(0) => return (output, None),
            Ok(n) => output.extend_from_slice(&buffer[..n]),
            Err(e) => return (output, Some(format!("read: {e}"))),
        }
        if output.len() > bounds.output {
            output.truncate(bounds.output);
            return (output, Some(format!("its output exceeds {} bytes", bounds.output)));
        }
    }
}

/// Most memory of a reader's own, in bytes: compressed sections can expand to any size.
const OWN: u64 = 2 << 30;

fn own_memory() -> u64 {
    super::kernel::memory().map_or(OWN, |(_, available)| OWN.min(available / 2))
}

/// Gives up all privileges. The order matters for security: descriptors, limits, IDs, and the
/// filter last, since it forbids the other calls.
fn enter(bounds: &SandboxBounds, keep: &[BorrowedFd<'_>], out: &std::fs::File) -> Result<()> {
    // What Rust's runtime prints at an abort must not reach the user's terminal.
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("open(/dev/null)")?;
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .context("dup2")?;
    drop(null);
    // While files can still be opened.
    let own = if user::is_host_root() { READER } else { NOBODY };
    let mut all = vec![out.as_fd()];
    all.extend_from_slice(keep);
    descriptor::close_all_but(&all)?;
    // Detach from the controlling terminal.
    rustix::process::setsid().context("setsid")?;
    for (resource, most) in [
        (Resource::As, bounds.memory),
        // Mapped files do not take the host's memory for good; data made from them does.
        (Resource::Data, bounds.memory.min(own_memory())),
        (Resource::Cpu, bounds.cpu),
        (Resource::Core, 0),
        (Resource::Fsize, bounds.file),
        (Resource::Nofile, 0),
        (Resource::Nproc, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .with_context(|| format!("setrlimit({resource:?}, {most})"))?;
    }
    if rustix::process::geteuid().is_root() {
        cred::give_up(own)?;
    } else {
        rustix::thread::set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
        process::not_dumpable()?;
    }
    // Ends with the parent, since this process has left the terminal's session and gets no SIGINT.
    let death = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(death).context("prctl(PR_SET_PDEATHSIG)")?;
    filter::enter(&FILTER)
}

/// Runs `work` in this process, which from then on can open, send and start nothing, and ends it.
/// For a process that has given up its rights before, and has opened all that it needs. If the
/// kernel refuses, `work` is not run.
///
/// # References
/// seccomp(2), Linux 3.17.
pub(crate) fn confined(work: impl FnOnce()) -> ! {
    let code = match filter::enter(&FILTER) {
        Ok(()) => {
            work();
            0
        }
        Err(_) => 1,
    };
    // SAFETY: _exit has no preconditions. To close the open files first, std would check that they
    // are open, which is one more call to allow.
    unsafe { libc::_exit(code) }
}

/// Reading, writing to given files, memory, and ending: nothing that opens, sends or starts
/// anything. Any other call kills the child.
const RULES: &[&[Rule]] = &[
    filter::BASE,
    &[
        Allow(libc::SYS_read),
        Allow(libc::SYS_pread64),
        Allow(libc::SYS_write),
        Allow(libc::SYS_lseek),
        Allow(libc::SYS_ftruncate),
        Allow(libc::SYS_fstat),
        Allow(libc::SYS_newfstatat),
        Allow(libc::SYS_statx),
        Allow(libc::SYS_getrandom),
        Allow(libc::SYS_rt_sigaction),
        Allow(libc::SYS_getpid),
        // No tgkill, not even for an abort, which then ends as a forbidden call: other
        // processes have the same user ID.
    ],
];

static FILTER: BpfProgram = filter::program(RULES);

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: SandboxBounds = SandboxBounds {
        memory: 1 << 30,
        cpu: 20,
        time: Duration::from_secs(60),
        output: 1 << 20,
        file: 0,
    };

    /// Tests run on threads. Entering the sandbox is safe all the same: the child uses nothing that
    /// another thread could have locked except the allocator, which glibc makes consistent at fork.
    fn sandboxed(bounds: &SandboxBounds, work: impl FnOnce(&mut dyn Write)) -> ChildOutput {
        run(bounds, &[], work).unwrap()
    }

    #[test]
    fn what_it_says_arrives() {
        let said = sandboxed(&BOUNDS, |out| out.write_all(b"hello").unwrap());
        assert_eq!((said.output.as_slice(), said.cut), (&b"hello"[..], None));
    }

    #[test]
    fn it_can_open_start_and_connect_nothing() {
        let attempts: [fn(); 5] = [
            // Signal 0 to the first process only tests the permission.
            || {
                // SAFETY: touches no memory.
                let _ = unsafe { libc::syscall(libc::SYS_tgkill, 1, 1, 0) };
            },
            || drop(std::fs::File::open("/etc/passwd")),
            || drop(std::os::unix::net::UnixStream::pair()),
            // The calls themselves: the library may fail before them.
            || {
                // SAFETY: a copy of this process would end like it.
                let _ = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
            },
            || {
                let none = std::ptr::null::<*const libc::c_char>();
                // SAFETY: the path ends with NUL; there are no arguments and no environment.
                let _ =
                    unsafe { libc::syscall(libc::SYS_execve, c"/bin/true".as_ptr(), none, none) };
            },
        ];
        for (i, attempt) in attempts.into_iter().enumerate() {
            let said = sandboxed(&BOUNDS, |out| {
                attempt();
                let _ = out.write_all(b"still here");
            });
            assert!(said.output.is_empty() && said.cut.is_some(), "{i}: {said:?}");
        }
    }

    #[test]
    fn it_is_nobody_elses_and_has_no_terminal() {
        let (read, write) = descriptor::pipe().unwrap();
        let child = child::fork(|| {
            enter(&BOUNDS, &[], &std::fs::File::from(write)).map_or(1, |()| {
                loop {
                    std::hint::black_box(0);
                }
            })
        })
        .unwrap();
        let id = child.id().as_raw_nonzero().to_string();
        let path = format!("/proc/{id}/");
        let status = || std::fs::read_to_string(format!("{path}status")).unwrap();
        while !status().contains("Seccomp:\t2") {
            std::thread::yield_now();
        }
        let stat = std::fs::read_to_string(format!("{path}stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // Session and terminal.
        assert_eq!((fields[3], fields[4]), (id.as_str(), "0"));
        if user::is_host_root() {
            assert!(status().contains(&format!("Uid:\t{READER}\t{READER}\t{READER}\t{READER}")));
            assert!(status().contains("CapEff:\t0000000000000000"));
        }
        child.end_now().unwrap();
        drop(read);
    }

    #[test]
    fn what_is_done_meanwhile_is_done_once() {
        let (read, write) = descriptor::pipe().unwrap();
        let (gone, other) = descriptor::pipe().unwrap();
        drop(other);
        let (mut left, mut hurried) = (0, 0);
        let mut leave = || left += 1;
        let mut hurry = || hurried += 1;
        let meanwhile = Meanwhile {
            readable: Some((&gone, &mut leave)),
            late: Some((Duration::from_millis(50), &mut hurry)),
        };
        let bounds = SandboxBounds { time: Duration::from_millis(200), ..BOUNDS };
        let (output, cut) = listen_beside(&read, &bounds, meanwhile);
        assert!(output.is_empty() && cut.is_some());
        assert_eq!((left, hurried), (1, 1));
        drop(write);
        let (mut left, mut hurried) = (0, 0);
        let mut leave = || left += 1;
        let mut hurry = || hurried += 1;
        let never = Meanwhile {
            readable: Some((&gone, &mut leave)),
            late: Some((Duration::from_secs(3600), &mut hurry)),
        };
        assert_eq!(listen_beside(&read, &BOUNDS, never), (Vec::new(), None));
        assert_eq!((left, hurried), (1, 0));
    }

    #[test]
    fn it_is_bounded() {
        let said = sandboxed(&SandboxBounds { cpu: 1, ..BOUNDS }, |_| {
            loop {
                std::hint::black_box(0);
            }
        });
        assert_eq!(said.cut.as_deref(), Some("its reader had used 1 seconds of processor time"));
        let said = sandboxed(&SandboxBounds { time: Duration::from_millis(100), ..BOUNDS }, |_| {
            loop {
                std::hint::black_box(0);
            }
        });
        assert!(said.cut.unwrap().starts_with("its reader took more than"));
        let said = sandboxed(&BOUNDS, |out| {
            let big = vec![1u8; 2 << 30];
            let _ = out.write_all(&big[..10]);
        });
        assert!(said.output.is_empty() && said.cut.is_some());
        let said = sandboxed(&BOUNDS, |out| while out.write_all(&[0; 4096]).is_ok() {});
        assert_eq!(said.output.len(), BOUNDS.output);
        assert!(said.cut.unwrap().starts_with("its output exceeds"));
    }
}
