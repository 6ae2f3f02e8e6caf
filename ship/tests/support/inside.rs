//! Namespaces of a test's own: it starts itself in them.

use super::{stderr, succeed};
use std::process::Command;

/// Set in the namespaces.
const INSIDE: &str = "OCI_COREDUMP_INSIDE";

/// Whether this is in a network and a mount namespace of its own, with these addresses. Else the
/// test of this name starts itself there, and has passed if that has.
pub fn is_inside(test: &str, addresses: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        succeed(Command::new("ip").args(["link", "set", "lo", "up"]));
        for address in addresses {
            succeed(Command::new("ip").args(["address", "add", address, "dev", "lo"]));
        }
        return true;
    }
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let out = command
        .args(["--net", "--mount", "--"])
        .arg(own)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &stderr(&out);
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
    false
}
