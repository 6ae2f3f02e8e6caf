//! The systemd units of this program, where systemd runs.

use crate::config::{Config, KernelInterface};
use std::path::Path;

/// The systemd unit that restores the pattern.
const WATCH: &str = "oci-coredump.service";

/// Those that serve the coredump socket.
const SERVE: [&str; 2] = ["oci-coredump-serve.socket", "oci-coredump-serve.service"];

/// Enables and starts the units that the configuration needs, and disables those of the socket
/// where it wants the pipe. A failure is only logged: the host works without them.
pub(super) fn enable(config: &Config) {
    let serve = |what| SERVE.iter().for_each(|unit| systemctl(&[what, "--now"], unit));
    match config.kernel_interface {
        KernelInterface::Pipe => serve("disable"),
        _ if crate::sysctl::has_socket() => serve("enable"),
        _ => {}
    }
    systemctl(&["enable", "--now"], WATCH);
}

/// Stops and disables all of them, first the one that would put the pattern back.
pub(super) fn disable() {
    systemctl(&["disable", "--now"], WATCH);
    SERVE.iter().for_each(|unit| systemctl(&["disable", "--now"], unit));
}

/// Calls systemctl for a unit, if both exist.
fn systemctl(what: &[&str], unit: &str) {
    let places =
        ["/usr/lib/systemd/system", "/etc/systemd/system", "/usr/local/lib/systemd/system"];
    let is_there = |dir: &&str| Path::new(dir).join(unit).exists();
    if !Path::new("/run/systemd/system").is_dir() || !places.iter().any(is_there) {
        return;
    }
    let done = std::process::Command::new("/usr/bin/systemctl").args(what).arg(unit).output();
    match done {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            log::warn!("systemctl {} {unit}, ignoring: {said}", what.join(" "));
        }
        Err(e) => log::warn!("cannot start systemctl, ignoring: {e}"),
    }
}
