//! The server of the kernel's coredump socket. For each crash it forks a process, which does what
//! the pipe helper does from [`Crash`] on, and is as isolated from the others.
//!
//! Of a connection the server itself uses only what the kernel says: whether that process has
//! crashed, and its cgroup. It never blocks on one connection.

mod helper;
mod queue;

use super::crash::from_socket::Peer;
use crate::sys::proc::{self, Proc};
use crate::sys::signals::{SignalEvent, Signals};
use crate::sys::{AsFd, BorrowedFd, OwnedFd, child, descriptor, file, process, rlimit};
use anyhow::{Context, Result};
use helper::ReadyHelper;
use queue::Queue;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// Connections that may wait in this process. Beyond that they wait in the kernel.
const HELD: usize = 8192;

/// How often the children that have ended are looked for, should a signal have been lost, and how
/// often [`Server::regularly`] acts.
const TICK: Duration = Duration::from_secs(10);

/// The same, where connections wait.
const SOON: Duration = Duration::from_secs(1);

/// Processes that wait for a crash.
const READY: usize = 2;

/// A connection whose crash waits to be served.
type Connection = (OwnedFd, Peer);

/// Why the server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was told to end.
    End,
    /// It was told to begin anew, as the program that is installed now.
    Again,
}

/// The server.
pub(crate) struct Server {
    listener: UnixListener,
    signals: Signals,
    queue: Queue<Connection>,
    ready: Vec<ReadyHelper>,
    /// A child, and what is done when it has ended.
    awaited: Option<(i32, fn())>,
    /// What is done every [`TICK`], and when it was done last.
    regularly: Option<(fn(), Instant)>,
}

impl Server {
    /// Prepares for serving the crashes that come to `listener`. `accepted`: connections that came
    /// already.
    ///
    /// # Errors
    /// A system call failed.
    pub(crate) fn new(listener: UnixListener, accepted: Vec<OwnedFd>) -> Result<Self> {
        process::not_dumpable()?;
        file::set_umask(0);
        file::change_dir(file::open_dir("/".as_ref())?)?;
        listener.set_nonblocking(true).context("fcntl(O_NONBLOCK)")?;
        rlimit::raise_files();
        let (signals, queue, ready) = (Signals::take()?, Queue::new(), Vec::new());
        let mut server = Server { listener, signals, queue, ready, awaited: None, regularly: None };
        accepted.into_iter().for_each(|connection| server.arrived(connection));
        Ok(server)
    }

    /// Does something when a child of this process has ended, while it serves.
    pub(crate) fn when_ended(&mut self, child: &child::Child, then: fn()) {
        self.awaited = Some((child.id().as_raw_nonzero().get(), then));
    }

    /// Does something every ten seconds while it serves. It must not block.
    pub(crate) fn regularly(&mut self, what: fn()) {
        self.regularly = Some((what, Instant::now()));
    }

    /// Serves until it is told otherwise.
    ///
    /// # Errors
    /// The socket cannot be waited for.
    pub(crate) fn run(&mut self) -> Result<Ending> {
        loop {
            while let Some(told) = self.signals.next() {
                match told {
                    SignalEvent::Child => {}
                    SignalEvent::End => return Ok(Ending::End),
                    SignalEvent::Again => return Ok(Ending::Again),
                }
            }
            let time = if self.queue.waiting() == 0 { TICK } else { SOON };
            self.step(time)?;
            if let Some((what, last)) = &mut self.regularly
                && last.elapsed() >= TICK
            {
                *last = Instant::now();
                what();
            }
        }
    }

    /// Serves what still comes, now that the kernel sends further crashes elsewhere: until nothing
    /// came for `quiet`, but not longer than `most`.
    ///
    /// # Errors
    /// The socket cannot be waited for.
    pub(crate) fn drain(&mut self, quiet: Duration, most: Duration) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < most {
            while self.signals.next().is_some() {}
            if !self.step(quiet)? && self.queue.waiting() == 0 {
                break;
            }
        }
        Ok(())
    }

    /// What a new program goes on with: the socket that listens first, then the connections.
    pub(crate) fn into_descriptors(self) -> Vec<OwnedFd> {
        let waiting = self.queue.into_waiting().map(|(connection, _)| connection);
        std::iter::once(self.listener.into()).chain(waiting).collect()
    }

    /// Waits for something to happen, and deals with it. Returns whether a connection came.
    fn step(&mut self, time: Duration) -> Result<bool> {
        self.prepare();
        let is_full = self.queue.waiting() >= HELD;
        let nothing: BorrowedFd<'_> = self.signals.as_fd();
        let comes = if is_full { nothing } else { self.listener.as_fd() };
        descriptor::wait_readable_either([comes, self.signals.as_fd()], time)?;
        while let Some(process) = child::reap() {
            self.queue.ended(process);
            self.ready.retain(|helper| helper.process != process);
            if let Some((_, then)) = self.awaited.take_if(|(child, _)| *child == process) {
                then();
            }
        }
        let mut came = false;
        while self.queue.waiting() < HELD
            && let Ok((connection, _)) = self.listener.accept()
        {
            came = true;
            self.arrived(connection.into());
        }
        if self.queue.waiting() > 0 {
            self.forget_ended();
        }
        while let Some((group, connection)) = self.queue.next(Instant::now()) {
            match self.begin(connection) {
                Ok(process) => self.queue.begun(process, group),
                Err(e) => log::error!("a crash is lost: {e:#}"),
            }
        }
        Ok(came)
    }

    /// A process that has ended but for a thread which hangs in the store's disk cannot be reaped,
    /// and serves nobody.
    fn forget_ended(&mut self) {
        let has_ended = |process: &i32| {
            let stat = Proc::open(*process).and_then(|process| process.read("stat"));
            stat.is_ok_and(|stat| proc::has_leader_ended(&stat) == Some(true))
        };
        for process in self.queue.processes().into_iter().filter(has_ended) {
            self.queue.ended(process);
        }
    }

    /// A connection that is no crash's ends here.
    fn arrived(&mut self, connection: OwnedFd) {
        match Peer::of(&connection) {
            Ok(peer) => self.queue.add(peer.group, Instant::now(), (connection, peer)),
            Err(e) => log::debug!("{e:#}"),
        }
    }

    /// Has a process serve a crash: one that is there already, or a new one. Returns its ID.
    fn begin(&mut self, (connection, peer): Connection) -> Result<i32> {
        while let Some(helper) = self.ready.pop() {
            match helper.serve(&connection) {
                Ok(process) => return Ok(process),
                Err(e) => log::debug!("a helper that was ready has ended: {e:#}"),
            }
        }
        helper::start(connection, peer)
    }

    /// Has as many helpers ready as there should be. Not while crashes wait: those have processes
    /// of their own sooner.
    fn prepare(&mut self) {
        while self.queue.waiting() == 0 && self.ready.len() < READY {
            match ReadyHelper::start() {
                Ok(helper) => self.ready.push(helper),
                Err(e) => {
                    log::debug!("no helper is ready: {e:#}");
                    break;
                }
            }
        }
    }
}
