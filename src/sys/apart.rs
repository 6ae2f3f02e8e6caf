//! Runs a program separated from its caller: in a session of its own, on a pseudo-terminal of its
//! own whose bytes are copied to and from the caller's, without other descriptors or new
//! privileges, and, if root starts it, under a user ID that nothing else has. It cannot open, read
//! or type into the caller's terminal.
//!
//! # References
//! setsid(2), pty(7), ioctl_tty(2) (`TIOCSCTTY`, `TIOCSTI`), signalfd(2), no_new_privs(7).

use super::cred::{self, Credentials};
use super::tame::Tame;
use super::{child, process};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{self, SetArg, Termios};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};

/// How a program that was started apart has ended.
#[derive(Debug)]
pub enum End {
    /// It exited by itself or by a signal, with this status.
    Exited(ExitStatus),
    /// It was killed, since this process is to end by this signal.
    Interrupted(i32),
}

/// Bytes that are read at once. A pipe that is ready takes this much without blocking (`PIPE_BUF`).
const PIECE: usize = 4096;
/// Most bytes that are still copied after the program has ended, in case other
/// processes of it keep writing.
const AFTER: usize = 1 << 20;

/// Signals that end, stop or continue this process, or report a new terminal size or a dead child.
const TOLD_OF: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
    Signal::SIGCHLD,
];

/// A copy from one descriptor to another.
struct Way {
    from: Option<OwnedFd>,
    to: Option<OwnedFd>,
    waiting: Vec<u8>,
    outward: bool,
    /// The filter for output to a terminal.
    tame: Option<Tame>,
}

impl Way {
    fn new(from: impl AsFd, to: impl AsFd, outward: bool) -> Result<Self> {
        let dup = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().context("dup");
        let (from, to) = (Some(dup(from.as_fd())?), Some(dup(to.as_fd())?));
        let to_terminal = outward && to.as_ref().is_some_and(IsTerminal::is_terminal);
        let tame = to_terminal.then(Tame::default);
        Ok(Way { from, to, waiting: Vec::new(), outward, tame })
    }

    /// The event to wait for.
    fn next(&self) -> Option<PollFd<'_>> {
        match (&self.from, &self.to) {
            (Some(from), Some(_)) if self.waiting.is_empty() => {
                Some(PollFd::new(from, PollFlags::IN))
            }
            (_, Some(to)) if !self.waiting.is_empty() => Some(PollFd::new(to, PollFlags::OUT)),
            _ => None,
        }
    }

    /// Reads or writes once, and returns how many bytes were read. End of file on
    /// either side ends the copy.
    fn step(&mut self) -> usize {
        let again = |e| e == rustix::io::Errno::AGAIN;
        if self.waiting.is_empty() {
            let Some(from) = &self.from else { return 0 };
            let mut piece = [0; PIECE];
            match process::read(from, &mut piece) {
                Ok(0) => self.end_of_input(),
                Ok(n) => {
                    match &mut self.tame {
                        Some(tame) => self.waiting = tame.pass(&piece[..n]),
                        None => self.waiting.extend_from_slice(&piece[..n]),
                    }
                    return n;
                }
                Err(e) if again(e) => {}
                // EIO: no process has the terminal open any more.
                Err(_) => self.end_of_input(),
            }
        } else if let Some(to) = &self.to {
            match process::write(to, &self.waiting) {
                Ok(n) => drop(self.waiting.drain(..n)),
                Err(e) if again(e) => {}
                Err(_) => (self.from, self.to) = (None, None),
            }
            if self.from.is_none() && self.waiting.is_empty() {
                self.to = None;
            }
        }
        0
    }

    fn end_of_input(&mut self) {
        (self.from, self.to) = (None, None);
    }
}

/// The caller's terminal, in raw mode for as long as this lives.
struct Raw(Termios);

impl Raw {
    fn new() -> Result<Self> {
        let before = termios::tcgetattr(process::stdin()).context("tcgetattr")?;
        let raw = Raw(before);
        raw.enter()?;
        Ok(raw)
    }

    fn enter(&self) -> Result<()> {
        let mut raw = self.0.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(process::stdin(), SetArg::TCSADRAIN, &raw).context("tcsetattr")
    }

    /// Discards pending input, such as a terminal's answer that the program has provoked: the
    /// caller's shell must not read it.
    fn leave(&self) {
        let _ = termios::tcsetattr(process::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Runs a program until it ends, under the user and group ID `own` if given. If
/// stdin is a terminal, those of the three streams that are terminals become a new
/// one; all others become pipes.
///
/// Afterwards this process must end soon: the signals that would end it stay blocked.
///
/// # Errors
/// The program could not be started.
pub fn run(mut command: Command, own: Option<u32>) -> Result<End> {
    let mut told_of = SigSet::empty();
    TOLD_OF.into_iter().for_each(|s| told_of.add(s));
    let mut blocked = told_of;
    // So that a closed stdout is an error of write.
    blocked.add(Signal::SIGPIPE);
    blocked.thread_block().context("sigprocmask")?;
    let signals = SignalFd::with_flags(&told_of, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("signalfd")?;
    process::not_dumpable()?;

    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let terminal = streams[0].is_terminal().then(|| open_terminal(own)).transpose()?;
    let mut ways = Vec::new();
    if let Some((master, _)) = &terminal {
        ways.push(Way::new(streams[0], master, false)?);
        ways.push(Way::new(master, streams[1], true)?);
    }
    for (n, stream) in streams.into_iter().enumerate() {
        let theirs = match &terminal {
            Some((_, slave)) if stream.is_terminal() => slave.try_clone().context("dup")?,
            _ => {
                let (read, write) = process::pipe()?;
                let (ours, theirs) = if n == 0 { (write, read) } else { (read, write) };
                unblock(&ours)?;
                ways.push(match n {
                    0 => Way::new(stream, ours, false)?,
                    _ => Way::new(ours, stream, true)?,
                });
                theirs
            }
        };
        match n {
            0 => command.stdin(Stdio::from(theirs)),
            1 => command.stdout(Stdio::from(theirs)),
            _ => command.stderr(Stdio::from(theirs)),
        };
    }
    let has_terminal = terminal.is_some();
    // SAFETY: this process has one thread, so the child may go on to run any code.
    unsafe { command.pre_exec(move || set_apart(has_terminal, own)) };
    let child = command.spawn()?;
    // Drops our copies of the program's streams.
    drop(command);
    let master = terminal.map(|(master, _)| master);
    let raw = master.is_some().then(Raw::new).transpose();
    let end = match raw {
        Ok(raw) => relay(child, &signals, &mut ways, raw.as_ref(), master.as_ref(), own),
        Err(e) => {
            let mut child = child;
            let _ = child.kill();
            let _ = child.wait();
            Err(e)
        }
    };
    if let Some(uid) = own {
        end_all_of(uid);
    }
    end
}

fn relay(
    mut child: std::process::Child,
    signals: &SignalFd,
    ways: &mut [Way],
    raw: Option<&Raw>,
    master: Option<&OwnedFd>,
    own: Option<u32>,
) -> Result<End> {
    let mut ended: Option<ExitStatus> = None;
    let mut after = 0;
    loop {
        let mut waiting = vec![PollFd::new(signals, PollFlags::IN)];
        let mut who = Vec::new();
        for (i, way) in ways.iter().enumerate() {
            if let Some(fd) = way.next().filter(|_| ended.is_none() || way.outward) {
                who.push(i);
                waiting.push(fd);
            }
        }
        // What the program wrote before its end is copied completely, at the reader's pace.
        let blocked = ways.iter().any(|w| w.outward && w.to.is_some() && !w.waiting.is_empty());
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let time = (ended.is_some() && !blocked).then_some(&at_once);
        match poll(&mut waiting, time) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => {}
            Err(e) => return Err(e).context("poll"),
        }
        let ready: Vec<usize> = who
            .into_iter()
            .zip(&waiting[1..])
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(i, _)| i)
            .collect();
        while let Ok(Some(signal)) = signals.read_signal() {
            match signal.ssi_signo as i32 {
                libc::SIGCHLD => {}
                libc::SIGWINCH => copy_size(master),
                libc::SIGCONT => drop(raw.map(Raw::enter)),
                libc::SIGTSTP => {
                    raw.map(Raw::leave);
                    // SIGTSTP is blocked; SIGSTOP has the same effect, so that the
                    // shell sees a stopped job.
                    let _ = nix::sys::signal::raise(Signal::SIGSTOP);
                    let _ = raw.map(Raw::enter);
                }
                other => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Ok(End::Interrupted(other));
                }
            }
        }
        if ended.is_none() {
            ended = child.try_wait().context("waitpid")?;
            if let (Some(_), Some(uid)) = (ended, own) {
                end_all_of(uid);
            }
        }
        let mut moved = !ready.is_empty();
        for i in ready {
            let n = ways[i].step();
            after += if ended.is_some() { n } else { 0 };
            // The caller's terminal is gone.
            if raw.is_some() && !ways[i].outward && ways[i].from.is_none() && ended.is_none() {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(End::Interrupted(libc::SIGHUP));
            }
        }
        moved |= blocked;
        if let Some(status) = ended
            && (!moved && time.is_some() || after > AFTER)
        {
            return Ok(End::Exited(status));
        }
    }
}

/// A pseudo-terminal like the caller's: the master, and the program's side, which
/// belongs to the program's user.
fn open_terminal(own: Option<u32>) -> Result<(OwnedFd, OwnedFd)> {
    let like = termios::tcgetattr(process::stdin()).context("tcgetattr")?;
    let pty = nix::pty::openpty(None, &like).context("openpty")?;
    for fd in [&pty.master, &pty.slave] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).context("fcntl(F_SETFD)")?;
    }
    unblock(&pty.master)?;
    copy_size(Some(&pty.master));
    if let Some(uid) = own {
        super::file::chown(&pty.slave, uid, uid)?;
    }
    super::file::chmod(&pty.slave, 0o600)?;
    Ok((pty.master, pty.slave))
}

fn unblock(fd: &OwnedFd) -> Result<()> {
    rustix::fs::fcntl_setfl(fd, rustix::fs::OFlags::NONBLOCK).context("fcntl(F_SETFL)")
}

/// Sets the pseudo-terminal's size to that of the caller's; the kernel notifies the program.
fn copy_size(master: Option<&OwnedFd>) {
    let Some(master) = master else { return };
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure lives for both calls; the first fills it.
    unsafe {
        if libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) == 0 {
            libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size);
        }
    }
}

/// Runs in the child just before exec, when its streams are in place.
fn set_apart(has_terminal: bool, own: Option<u32>) -> std::io::Result<()> {
    let other = |e: anyhow::Error| std::io::Error::other(format!("{e:#}"));
    rustix::process::setsid()?;
    // SAFETY: neither call touches memory of ours; the descriptors only get a flag.
    unsafe {
        if has_terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        if libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, none)?;
    match own {
        Some(uid) => become_user(uid).map_err(other)?,
        None => rustix::thread::set_no_new_privs(true)?,
    }
    // After the change of IDs, which clears it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

fn become_user(uid: u32) -> Result<()> {
    let own = Credentials {
        uid: [uid; 4],
        gid: [uid; 4],
        groups: Vec::new(),
        effective: 0,
        permitted: 0,
    };
    cred::assume(&own, None)
}

/// Kills all processes with this user ID, which is the program's own, including those
/// that a debugger has started.
///
/// # References
/// kill(2): -1 signals all processes that the caller may signal, except itself.
pub fn end_all_of(uid: u32) {
    // The processes may be quick enough to kill the child that kills them, but not ten times.
    for _ in 0..10 {
        let attempt = || -> Result<()> {
            become_user(uid)?;
            let ids = [rustix::process::getuid().as_raw(), rustix::process::geteuid().as_raw()];
            ensure!(uid > 0 && ids == [uid; 2], "setresuid did not take");
            // SAFETY: kill touches no memory. All IDs of this child are the program's own.
            match unsafe { libc::kill(-1, libc::SIGKILL) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()).context("kill(-1)"),
            }
        };
        let Ok(child) = child::fork(|| {
            i32::from(attempt().is_err_and(|e| {
                e.root_cause().downcast_ref::<std::io::Error>().and_then(|e| e.raw_os_error())
                    != Some(libc::ESRCH)
            }))
        }) else {
            return;
        };
        let time = std::time::Duration::from_secs(5);
        if matches!(child.end_within(time), Ok(Some(child::Ended::Exit(0)))) {
            return;
        }
    }
}

/// Ends this process by a signal that it had blocked.
pub fn die_of(signal: i32) -> ! {
    if let Ok(signal) = Signal::try_from(signal) {
        let mut set = SigSet::empty();
        set.add(signal);
        // SAFETY: SIG_DFL installs no handler.
        let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) };
        let _ = nix::sys::signal::raise(signal);
        let _ = set.thread_unblock();
    }
    std::process::exit(128 + signal)
}

/// Starts a process that outlives this one, however this one ends, and then runs `work`. Nothing
/// that ends this process ends that one. It keeps stdout and stderr, so that whoever reads them to
/// their end knows that the work is done, and the given descriptors.
pub fn executor(keep: &[BorrowedFd<'_>], work: impl FnOnce()) -> Result<Executor> {
    let (read, write) = process::pipe()?;
    let child = child::fork(|| {
        let _ = SigSet::all().thread_block();
        let _ = rustix::process::setsid();
        let mut all = vec![read.as_fd()];
        all.extend_from_slice(keep);
        process::release_stdin();
        if process::close_all_but(&all).is_err() {
            return 1;
        }
        // End of file: no other process has the other end.
        let _ = process::read(&read, &mut [0]);
        work();
        0
    })?;
    Ok(Executor { alive: Some(write), child: Some(child) })
}

/// See [`executor`]. Dropping it waits for the process.
#[derive(Debug)]
pub struct Executor {
    alive: Option<OwnedFd>,
    child: Option<child::Child>,
}

impl Drop for Executor {
    fn drop(&mut self) {
        drop(self.alive.take());
        // There may be much to remove; the process continues by itself if it takes longer.
        if let Some(child) = self.child.take() {
            let _ = child.end_within(std::time::Duration::from_secs(600));
        }
    }
}
