//! The systemd unit of this program, where systemd runs.

use std::path::Path;

/// The systemd unit that restores the pattern.
const UNIT: &str = "oci-coredump.service";

/// Calls systemctl for our unit, if both exist. A failure is only logged: the
/// host works without the unit.
pub(super) fn systemctl(what: &[&str]) {
    let places =
        ["/usr/lib/systemd/system", "/etc/systemd/system", "/usr/local/lib/systemd/system"];
    let is_there = |dir: &&str| Path::new(dir).join(UNIT).exists();
    if !Path::new("/run/systemd/system").is_dir() || !places.iter().any(is_there) {
        return;
    }
    let done = std::process::Command::new("/usr/bin/systemctl").args(what).arg(UNIT).output();
    match done {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            log::warn!("systemctl {} {UNIT}, ignoring: {said}", what.join(" "));
        }
        Err(e) => log::warn!("cannot start systemctl, ignoring: {e}"),
    }
}
