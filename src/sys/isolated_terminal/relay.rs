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
use std::process::{Child, ExitStatus};

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

    fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
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

/// A program, and the streams between it and the caller.
pub(super) struct Relay<'a> {
    pub child: Child,
    /// The signals that this process handles meanwhile.
    pub signals: &'a SignalFd,
    pub ways: &'a mut [Direction],
    /// The caller's terminal, if it is in raw mode.
    pub raw: Option<&'a Raw>,
    /// The program's terminal, from this side.
    pub master: Option<&'a OwnedFd>,
    /// The user that is the program's own.
    pub own: Option<u32>,
}

/// What a wait has found.
struct Ready {
    /// Which ways can be copied.
    ways: Vec<usize>,
    /// Something of the program's waits until the caller takes it.
    blocked: bool,
}

impl Relay<'_> {
    /// Copies until the program has ended and what it wrote before is copied.
    pub(super) fn run(mut self) -> Result<End> {
        let mut ended: Option<ExitStatus> = None;
        // Bytes that were copied after its end.
        let mut after = 0;
        loop {
            let had_ended = ended.is_some();
            let ready = self.wait(had_ended)?;
            if let Some(signal) = self.handle_signals() {
                return Ok(self.interrupted(signal));
            }
            if ended.is_none() {
                ended = self.child.try_wait().context("waitpid")?;
                if let (Some(_), Some(uid)) = (ended, self.own) {
                    end_all_of(uid);
                }
            }
            let is_idle = ready.ways.is_empty() && !ready.blocked;
            for i in ready.ways {
                let n = self.ways[i].step();
                after += if ended.is_some() { n } else { 0 };
                let way = &self.ways[i];
                // The caller's terminal is gone.
                if self.raw.is_some() && !way.outward && way.from.is_none() && ended.is_none() {
                    return Ok(self.interrupted(libc::SIGHUP));
                }
            }
            if let Some(status) = ended
                && (had_ended && is_idle || after > AFTER)
            {
                return Ok(End::Exited(status));
            }
        }
    }

    /// Waits for signals and for the ways; after the program's end only for what it wrote before:
    /// that is copied completely, at the reader's pace.
    fn wait(&self, ended: bool) -> Result<Ready> {
        let mut waiting = vec![PollFd::new(self.signals, PollFlags::IN)];
        let mut who = Vec::new();
        for (i, way) in self.ways.iter().enumerate() {
            if let Some(fd) = way.next().filter(|_| !ended || way.outward) {
                who.push(i);
                waiting.push(fd);
            }
        }
        let is_blocked = |way: &Direction| way.outward && way.to.is_some() && way.has_waiting();
        let blocked = self.ways.iter().any(is_blocked);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut waiting, (ended && !blocked).then_some(&at_once)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("poll"),
        }
        let ready = who.into_iter().zip(&waiting[1..]);
        let ready = ready.filter(|(_, fd)| !fd.revents().is_empty()).map(|(i, _)| i);
        Ok(Ready { ways: ready.collect(), blocked })
    }

    /// Does what signals ask for. Returns one that ends this process.
    fn handle_signals(&self) -> Option<i32> {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match signal.ssi_signo as i32 {
                libc::SIGCHLD => {}
                libc::SIGWINCH => copy_size(self.master),
                libc::SIGCONT => drop(self.raw.map(Raw::enter)),
                libc::SIGTSTP => {
                    self.raw.map(Raw::leave);
                    // SIGTSTP is blocked; SIGSTOP has the same effect, so that the shell sees a
                    // stopped job.
                    let _ = nix::sys::signal::raise(Signal::SIGSTOP);
                    let _ = self.raw.map(Raw::enter);
                }
                other => return Some(other),
            }
        }
        None
    }

    fn interrupted(&mut self, signal: i32) -> End {
        let _ = self.child.kill();
        let _ = self.child.wait();
        End::Interrupted(signal)
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
