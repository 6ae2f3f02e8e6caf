//! How the core comes on stdin.

use crate::sys::{AsFd, Errno, coredump_socket, descriptor};
use std::time::Duration;

/// How often a wait without an end is begun again.
const TICK: Duration = Duration::from_secs(60);

/// How the core comes on stdin. In both the kernel keeps the crashed process until every holder of
/// stdin has closed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A pipe: the kernel writes at once, and takes the core for dumped whatever becomes of it.
    Pipe,
    /// The coredump socket: the kernel waits until it is asked. If stdin is closed before, no core
    /// was dumped.
    Socket,
}

impl Transport {
    /// Asks for the core, once, when it is certain that it is wanted.
    ///
    /// # Errors
    /// The crashed process was killed.
    pub(crate) fn ask(self) -> Result<(), Errno> {
        match self {
            Transport::Pipe => Ok(()),
            Transport::Socket => coredump_socket::ask(descriptor::stdin()),
        }
    }

    /// Waits for the core that another process asks for. When `asker` becomes readable that one has
    /// ended, and this process asks.
    ///
    /// # Errors
    /// The kernel does not answer: the crashed process was killed.
    pub(crate) fn wait(self, asker: impl AsFd) -> Result<(), Errno> {
        if self == Transport::Pipe {
            return Ok(());
        }
        let come = [descriptor::stdin(), asker.as_fd()];
        let has_come = loop {
            match descriptor::wait_readable_either(come, TICK) {
                Ok([false, false]) => {}
                Ok([core, _]) => break core,
                Err(_) => break false,
            }
        };
        if !has_come {
            self.ask()?;
        }
        self.answered()
    }

    /// Waits until what was asked for comes.
    ///
    /// # Errors
    /// See [`Self::wait`].
    pub(crate) fn answered(self) -> Result<(), Errno> {
        match self {
            Transport::Pipe => Ok(()),
            Transport::Socket => coredump_socket::answered(descriptor::stdin()),
        }
    }
}
