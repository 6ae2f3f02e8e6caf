//! Runs a program separated from its caller: in a session of its own, on a pseudo-terminal of its
//! own whose bytes are copied to and from the caller's, without other descriptors or new
//! privileges, and, if root starts it, under a user ID that nothing else has. It cannot open, read
//! or type into the caller's terminal.
//!
//! # References
//! setsid(2), pty(7), ioctl_tty(2) (`TIOCSCTTY`, `TIOCSTI`), signalfd(2), no_new_privs(7).

mod own_user;
mod relay;

use super::descriptor;
use super::process;
use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios;
use own_user::become_user;
pub(crate) use own_user::end_all_of;
pub(crate) use relay::End;
use relay::{Direction, Raw, Relay, copy_size};
use std::io::IsTerminal;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

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

/// Runs a program until it ends, under the user and group ID `own` if given. If
/// stdin is a terminal, those of the three streams that are terminals become a new
/// one; all others become pipes.
///
/// Afterwards this process must end soon: the signals that would end it stay blocked.
///
/// # Errors
/// The program could not be started.
pub(crate) fn run(mut command: Command, own: Option<u32>) -> Result<End> {
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
        ways.push(Direction::new(streams[0], master, false)?);
        ways.push(Direction::new(master, streams[1], true)?);
    }
    for (n, stream) in streams.into_iter().enumerate() {
        let theirs = match &terminal {
            Some((_, slave)) if stream.is_terminal() => slave.try_clone().context("dup")?,
            _ => {
                let (read, write) = descriptor::pipe()?;
                let (ours, theirs) = if n == 0 { (write, read) } else { (read, write) };
                unblock(&ours)?;
                ways.push(match n {
                    0 => Direction::new(stream, ours, false)?,
                    _ => Direction::new(ours, stream, true)?,
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
        Ok(raw) => {
            let (signals, ways, raw, master) = (&signals, &mut ways, raw.as_ref(), master.as_ref());
            Relay { child, signals, ways, raw, master, own }.run()
        }
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

/// A pseudo-terminal like the caller's: the master, and the program's side, which
/// belongs to the program's user.
fn open_terminal(own: Option<u32>) -> Result<(OwnedFd, OwnedFd)> {
    let like = termios::tcgetattr(descriptor::stdin()).context("tcgetattr")?;
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

/// Ends this process by a signal that it had blocked.
pub(crate) fn die_of(signal: i32) -> ! {
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
