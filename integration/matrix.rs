//! The runtime matrix: what a container sees and gets, on every runtime and on podman. Needs root.
mod support;

use support::bundle::Bundle;
use support::runtime::{Kind, Runtime};

#[test]
fn every_runtime_starts_a_container() {
    for kind in Kind::installed() {
        let runtime = Runtime::new(kind);
        let mut bundle = Bundle::new();
        bundle.shell("echo hello; exec sleep 1000");
        let container = runtime.start(&bundle, "smoke");
        assert_eq!(container.exec(&["sh", "-c", "exit 3"]).status.code(), Some(3), "{kind:?}");
        container.remove();
    }
}
