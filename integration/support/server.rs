//! `oci-coredump serve`, for the tests in which crashes come through the kernel's coredump socket.
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{BINARY, Host};
use crate::processes;
use crate::wait::wait_for;

/// Where the kernel connects to.
pub const SOCKET: &str = "/run/oci-coredump/coredump.socket";
/// `kernel.core_pattern` then.
pub const PATTERN: &str = "@@/run/oci-coredump/coredump.socket";
/// A line of the configuration.
pub const WANTED: &str = "kernel_interface = \"socket\"\n";

/// No server takes this long to start, to end, or to change the kernel's pattern.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Whether this kernel has the interface; a test that needs it says that it is not run.
pub fn is_possible() -> bool {
    let modes = std::fs::read_to_string("/proc/sys/kernel/core_modes").unwrap_or_default();
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let is = version >= (6, 17) && modes.lines().any(|mode| mode == "socket");
    if !is {
        println!("not run: Linux {release} has no coredump socket with requests (6.17)");
    }
    is
}

/// A server. To be dropped before the host is put back.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts the installed program, and waits until it listens.
    pub fn start(_: &Host) -> Self {
        // As a service manager starts it. With RUST_BACKTRACE every error would be followed up to
        // main(), also those that are looked at and forgotten.
        let mut command = Command::new(BINARY);
        command.arg("serve").env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
        let child = command.spawn().unwrap();
        let server = Server { child };
        wait_for("the server's socket", DEADLINE, || UnixStream::connect(SOCKET).is_ok());
        server
    }

    /// The process that holds the socket.
    pub fn keeper(&self) -> i32 {
        self.child.id() as i32
    }

    /// The process that serves it.
    pub fn serving(&self) -> i32 {
        wait_for("the process that serves", DEADLINE, || processes::child(self.keeper()))
    }

    /// Sends the keeper a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.keeper()), signal).unwrap();
    }

    /// Waits until the kernel sends crashes here.
    pub fn wait_used(&self) {
        wait_for("the socket in core_pattern", DEADLINE, || self.is_used());
    }

    /// Whether the kernel sends crashes here.
    pub fn is_used(&self) -> bool {
        std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap().trim_end() == PATTERN
    }

    /// Ends it, and waits for that.
    pub fn stop(mut self) -> std::process::ExitStatus {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

/// How the kernel hands crashes to the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It starts the helper.
    Pipe,
    /// It connects to the server.
    Socket,
}

impl Way {
    /// Whether this kernel has it.
    pub fn is_possible(self) -> bool {
        self == Self::Pipe || is_possible()
    }

    /// The server, where there has to be one. The next container makes the kernel use it.
    pub fn serve(self, host: &Host) -> Option<Server> {
        (self == Self::Socket).then(|| {
            host.configure(WANTED);
            Server::start(host)
        })
    }

    /// Whether crashes come this way now.
    pub fn is_taken(self, host: &Host) -> bool {
        let pattern = host.sysctl("kernel/core_pattern");
        match self {
            Self::Pipe => pattern.starts_with(&format!("|{BINARY} ")),
            Self::Socket => pattern == PATTERN,
        }
    }
}
