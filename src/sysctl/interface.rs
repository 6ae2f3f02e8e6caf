//! How the kernel hands crashes to this program: it starts the dispatcher with a pipe, or connects
//! to the coredump socket, which `serve` listens on.

use super::dispatch_pattern;
use super::values::core_pattern;
use crate::config::{Config, KernelInterface};
use crate::sys::{kernel, socket};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket. The kernel follows no links to it, so it is below /run, and never below /var/run.
pub(crate) const SOCKET: &str = "/run/oci-coredump/coredump.socket";

/// The pattern that makes the kernel connect to [`SOCKET`], and ask before it makes a core.
pub(crate) const SOCKET_PATTERN: &str = "@@/run/oci-coredump/coredump.socket";

/// The first Linux that asks.
const SINCE: (u32, u32) = (6, 17);

/// How long a server may take to end the connection of somebody who has not crashed.
const ANSWER: Duration = Duration::from_secs(2);

/// Whether this kernel has the interface.
pub(crate) fn has_socket() -> bool {
    let modes = std::fs::read_to_string("/proc/sys/kernel/core_modes").unwrap_or_default();
    kernel::version() >= SINCE && modes.lines().any(|mode| mode == "socket")
}

/// Whether somebody serves the socket: not only listens, as a unit of systemd does for a service
/// that has failed.
pub(crate) fn is_served() -> bool {
    socket::is_answered(Path::new(SOCKET), ANSWER)
}

/// The pattern that the kernel should have now: the socket's where the configuration wants it, the
/// kernel has it and somebody serves it, else the pipe's.
///
/// # Errors
/// The path of the helper cannot stand in a pattern.
pub(crate) fn wanted(config: &Config, helper: &Path) -> Result<String> {
    let pipe = dispatch_pattern(helper)?;
    let wants = match config.kernel_interface {
        KernelInterface::Pipe => false,
        KernelInterface::Socket | KernelInterface::Auto => has_socket() && is_served(),
    };
    Ok(if wants { SOCKET_PATTERN.to_owned() } else { pipe })
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
