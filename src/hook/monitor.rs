//! Programs that stand for a whole kernel: what runs in them is no container of this one, and
//! crashes there are not this kernel's.

use crate::sys::proc::{Proc, printable};
use anyhow::Error;

/// Monitors of virtual machines, as Kata Containers starts them; by the head of their names, since
/// QEMU's ends with the machine's type.
const MONITORS: [&str; 6] =
    ["qemu-", "cloud-hypervisor", "firecracker", "stratovirt", "containerd-shim-kata", "kata-"];
/// gVisor's sentry is runsc itself, started from a descriptor.
const SENTRIES: [&str; 2] = ["runsc", "gvisor"];

/// What the program of this name is, if it is one of them.
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

/// The cause for which the process of a state is no container's, in place of
/// `why`, where its program tells.
pub fn explain(process: &Proc, pid: i32, why: Error) -> Error {
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
            "qemu-kvm",
            "cloud-hypervisor",
            "firecracker",
            "containerd-shim-kata-v2",
        ] {
            assert!(what(monitor).unwrap().contains("kata-guest-hook"), "{monitor}");
        }
        assert!(what("runsc-sandbox").unwrap().contains("no cores"));
        // What containers run.
        for init in ["runc", "runc:[2:INIT]", "crun", "youki", "exe", "nginx", "my-qemu-", ""] {
            assert_eq!(what(init), None, "{init}");
        }
    }
}
