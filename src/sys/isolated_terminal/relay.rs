//! Copies between the caller's streams and the program's until the program ends.

use super::own_user::end_all_of;
use crate::sys::descriptor;
use crate::sys::terminal_filter::Tame;
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::termios::{self, SetArg, Termios};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;

/// How a program that was started apart has ended.
#[derive(Debug)]
pub(crate) enum End {
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

/// A copy from one descriptor to another.
pub(super) struct Direction {
    from: Option<OwnedFd>,
    to: Option<OwnedFd>,
    waiting: Vec<u8>,
    outward: bool,
    /// The filter for output to a terminal.
    tame: Option<Tame>,
}

impl Direction {
    /// `outward`: from the program to the caller, not the other way round.
    pub(super) fn new(from: impl AsFd, to: impl AsFd, outward: bool) -> Result<Self> {
        let dup = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().context("dup");
        let (from, to) = (Some(dup(from.as_fd())?), Some(dup(to.as_fd())?));
        let to_terminal = outward && to.as_ref().is_some_and(IsTerminal::is_terminal);
        let tame = to_terminal.then(Tame::default);
        Ok(Direction { from, to, waiting: Vec::new(), outward, tame })
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
            match descriptor::read(from, &mut piece) {
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
            match descriptor::write(to, &self.waiting) {
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
pub(super) struct Raw(Termios);

impl Raw {
    /// Puts stdin, a terminal, into raw mode.
    pub(super) fn new() -> Result<Self> {
        let before = termios::tcgetattr(descriptor::stdin()).context("tcgetattr")?;
        let raw = Raw(before);
        raw.enter()?;
        Ok(raw)
    }

    fn enter(&self) -> Result<()> {
        let mut raw = self.0.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(descriptor::stdin(), SetArg::TCSADRAIN, &raw).context("tcsetattr")
    }

    /// Discards pending input, such as a terminal's answer that the program has provoked: the
    /// caller's shell must not read it.
    fn leave(&self) {
        let _ = termios::tcsetattr(descriptor::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Copies until the program has ended and what it wrote before is copied.
pub(super) fn relay(
    mut child: std::process::Child,
    signals: &SignalFd,
    ways: &mut [Direction],
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

/// Sets the pseudo-terminal's size to that of the caller's; the kernel notifies the program.
pub(super) fn copy_size(master: Option<&OwnedFd>) {
    let Some(master) = master else { return };
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure lives for both calls; the first fills it.
    unsafe {
        if libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) == 0 {
            libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size);
        }
    }
}
