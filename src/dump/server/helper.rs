//! The process that serves one crash, and those that are there before one comes.

use super::super::crash::arguments::Crash;
use super::super::crash::from_socket::Peer;
use super::super::dispatch_named;
use crate::report;
use crate::sys::child::{self, Child};
use crate::sys::{AsFd, OwnedFd, descriptor, process, rlimit, signals, socket};
use anyhow::Result;
use std::os::unix::net::UnixStream;

/// Starts a process that serves the crash of `peer`, which has connected. Returns its ID.
///
/// # Errors
/// fork(2) failed.
pub(super) fn start(connection: OwnedFd, peer: Peer) -> Result<i32> {
    forked(|| become_helper(connection, peer))
}

/// A process that waits for a connection, so that a crash does not wait for a fork.
#[derive(Debug)]
pub(super) struct ReadyHelper {
    /// Its ID.
    pub process: i32,
    /// Where it is given the connection. It ends when this is closed.
    socket: UnixStream,
}

impl ReadyHelper {
    /// Starts one.
    ///
    /// # Errors
    /// A system call failed.
    pub(super) fn start() -> Result<Self> {
        let (socket, its_own) = UnixStream::pair()?;
        let process = forked(|| {
            process::set_name(c"oci-ready");
            descriptor::close_all_but(&[its_own.as_fd()])?;
            let Some(connection) = socket::receive(&its_own)? else { return Ok(()) };
            drop(its_own);
            let peer = Peer::of(&connection)?;
            become_helper(connection, peer)
        })?;
        Ok(ReadyHelper { process, socket })
    }

    /// Gives it the connection. Returns its ID.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn serve(self, connection: &OwnedFd) -> Result<i32> {
        socket::give(&self.socket, connection)?;
        Ok(self.process)
    }
}

fn forked(work: impl FnOnce() -> Result<()>) -> Result<i32> {
    let child: Child = child::fork(|| {
        report::last_words(1);
        i32::from(work().inspect_err(|e| log::error!("handle: {e:#}")).is_err())
    })?;
    Ok(child.id().as_raw_nonzero().get())
}

/// Is as the kernel's pipe helper from here on.
fn become_helper(connection: OwnedFd, peer: Peer) -> Result<()> {
    process::set_name(c"oci-crash");
    signals::give_back()?;
    descriptor::replace_stdin(&connection);
    drop(connection);
    descriptor::close_all_but(&[peer.as_fd()])?;
    rlimit::as_helper()?;
    match Crash::from_connection(descriptor::stdin(), peer.into_helpers()?)? {
        Some(crash) => dispatch_named(crash),
        None => Ok(()),
    }
}
