//! How the kernel hands crashes to this program: it starts the dispatcher with a pipe, or connects
//! to the coredump socket, which `serve` listens on.

use super::values::core_pattern;
use crate::config::{Config, KernelInterface};
use crate::pattern::{HANDLE_SPECIFIERS, MAX_LEN};
use crate::sys::{kernel, ns, proc, socket};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket. The kernel follows no links to it, so it is below /run, and never below /var/run.
pub(crate) const SOCKET: &str = "/run/oci-coredump/coredump.socket";

/// The pattern that makes the kernel connect to [`SOCKET`], and ask before it makes a core.
pub(crate) const SOCKET_PATTERN: &str = "@@/run/oci-coredump/coredump.socket";

/// The first Linux that asks.
const SINCE: (u32, u32) = (6, 17);

/// How long a server may take to end the connection of a process that has not crashed.
const ANSWER: Duration = Duration::from_secs(2);

/// The pattern that makes the kernel start `helper`.
///
/// # Errors
/// The path cannot be used in a `core_pattern`: white space would split it, `%` starts a specifier,
/// and the whole pattern has at most 127 bytes.
pub(crate) fn dispatch_pattern(helper: &Path) -> Result<String> {
    let path = helper.to_str().with_context(|| format!("helper path {helper:?} is not UTF-8"))?;
    ensure!(path.starts_with('/'), "helper path {path:?} is not absolute");
    ensure!(
        !path.contains(|c: char| c.is_whitespace() || c.is_control() || c == '%'),
        "helper path {path:?} may not hold white space or `%`"
    );
    let pattern = format!("|{path} handle v1 {}", HANDLE_SPECIFIERS.join(" "));
    ensure!(
        pattern.len() <= MAX_LEN,
        "helper path {path:?} is too long: a core_pattern has {MAX_LEN} bytes, {} would be needed",
        pattern.len()
    );
    Ok(pattern)
}

/// Whether this kernel has the interface.
pub(crate) fn has_socket() -> bool {
    let modes = std::fs::read_to_string("/proc/sys/kernel/core_modes").unwrap_or_default();
    kernel::version() >= SINCE && modes.lines().any(|mode| mode == "socket")
}

/// Whether a server answers at the socket. systemd listens on it even for a service that has
/// failed.
pub(crate) fn is_served() -> bool {
    socket::is_answered(Path::new(SOCKET), ANSWER)
}

/// The pattern that the kernel should have now: the socket's where it is configured, the kernel has
/// it and a server answers there, else the pipe's.
///
/// # Errors
/// The path of the helper cannot stand in a pattern.
pub(crate) fn wanted(config: &Config, helper: &Path) -> Result<String> {
    let pipe = dispatch_pattern(helper)?;
    let wants = match config.kernel_interface {
        KernelInterface::Pipe => false,
        KernelInterface::Socket | KernelInterface::Auto => {
            has_socket() && (is_initial() || is_socket()?) && is_served()
        }
    };
    Ok(if wants { SOCKET_PATTERN.to_owned() } else { pipe })
}

/// Whether this process is in the initial mount namespace, the only one from which the kernel takes
/// such a pattern. crun runs hooks in another one, and a confined service has one.
fn is_initial() -> bool {
    proc::mount_ns_of(2).is_ok_and(|initial| ns::own("mnt").is_ok_and(|own| own == initial))
}

/// Whether the kernel connects to the socket now.
pub(crate) fn is_socket() -> Result<bool> {
    Ok(core_pattern()? == SOCKET_PATTERN)
}

/// The path under which the kernel will find this program, with links resolved. A file that was
/// replaced since this process has started is meant where it is now.
pub(crate) fn helper() -> Result<PathBuf> {
    let path = std::env::current_exe().context("readlink(/proc/self/exe)")?;
    let replaced = path.to_str().and_then(|path| path.strip_suffix(" (deleted)"));
    Ok(replaced.map(PathBuf::from).filter(|path| path.exists()).unwrap_or(path))
}
