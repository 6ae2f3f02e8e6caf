//! How the core comes on stdin.

use crate::sys::{Errno, coredump_socket, descriptor};

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
    /// The kernel does not answer: the crashed process was killed.
    pub(crate) fn begin(self) -> Result<(), Errno> {
        match self {
            Transport::Pipe => Ok(()),
            Transport::Socket => coredump_socket::accept(descriptor::stdin()),
        }
    }
}
