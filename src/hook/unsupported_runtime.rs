//! Recognises programs that run a kernel of their own: what runs in them is not a container of this
//! kernel, and crashes there are not reported by it.

use crate::sys::proc::{Proc, printable};
use anyhow::Error;

/// Monitors of virtual machines that Kata Containers starts. Compared with the beginning of the
/// program's name, since QEMU's ends with the machine type.
const MONITORS: [&str; 6] =
    ["qemu-", "cloud-hypervisor", "firecracker", "stratovirt", "containerd-shim-kata", "kata-"];
/// gVisor's sentry is runsc itself, started from a descriptor.
const SENTRIES: [&str; 2] = ["runsc", "gvisor"];

/// A description of the program with this name, if it is one of them.
fn what(program: &str) -> Option<&'static str> {
    if MONITORS.iter().any(|m| program.starts_with(m)) {
        return Some(
            "the monitor of a virtual machine; its guest has a kernel of its own, install the \
             guest hook there (`make kata-guest-hook`)",
        );
    }
    SENTRIES
        .iter()
        .any(|s| program.starts_with(s))
        .then_some("a kernel in user space, which dumps no cores")
}

/// Replaces the error `why` for the process of a state, if its program shows that
/// it is no native container.
pub(super) fn reworded(process: &Proc, pid: i32, why: Error) -> Error {
    let exe = process.link("exe").unwrap_or_default();
    let names = [
        exe.rsplit(|b| *b == b'/').next().map(printable),
        process.read("comm").ok().map(|c| printable(c.trim_ascii_end())),
    ];
    match names.into_iter().flatten().find_map(|name| Some((what(&name)?, name))) {
        Some((what, name)) => {
            anyhow::anyhow!("unsupported runtime: process {pid} is {name}, {what}")
        }
        None => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs() {
        for monitor in [
            "qemu-system-x86_64",
            "qemu-system-aarch64",
            "qemu-kvm",
            "cloud-hypervisor",
            "firecracker",
            "containerd-shim-kata-v2",
        ] {
            assert!(what(monitor).unwrap().contains("kata-guest-hook"), "{monitor}");
        }
        assert!(what("runsc-sandbox").unwrap().contains("no cores"));
        // Programs that containers run.
        for init in ["runc", "runc:[2:INIT]", "crun", "youki", "exe", "nginx", "my-qemu-", ""] {
            assert_eq!(what(init), None, "{init}");
        }
    }
}
