//! Containers that request nothing: nothing about them, or the host, may differ.
use std::fs;
use std::path::Path;

use support::bundle::Bundle;
use support::host::{Host, RUN, STORE};
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, ECI_PATTERN, bundle, host};

support::per_runtime!(
    a_container_without_annotation,
    a_container_without_annotation_but_with_a_limit,
    a_sandbox
);

/// What a container can see of its surroundings; numbers that differ from
/// start to start are left out.
fn surroundings(runtime: &Runtime, bundle: &Bundle) -> String {
    let container = runtime.start(bundle, "surroundings");
    // mountinfo(5): without the IDs of the mounts and the device numbers of their
    // superblocks, and the optional tags.
    let mounts = container
        .sh("sed -E 's/^[0-9]+ [0-9]+ [0-9]+:[0-9]+ //; s/(shared|master):[0-9]+ //g' \
             /proc/1/mountinfo");
    let rest = container.sh("cat /proc/1/limits /proc/1/coredump_filter \
                             /proc/sys/kernel/core_pattern ; ls / /proc/sys/kernel; id; pwd");
    let config = fs::read_to_string(bundle.path().join("config.json")).unwrap();
    container.remove();
    assert_eq!(
        config,
        serde_json::to_string_pretty(&bundle.config).unwrap(),
        "config.json was changed"
    );
    mounts + &rest
}

/// The same container with and without the hook, and the host afterwards.
fn assert_untouched(host: &Host, kind: Kind, mut bundle: Bundle) {
    let runtime = Runtime::new(kind);
    let sysctls = || {
        ["kernel/core_pattern", "kernel/core_uses_pid", "kernel/core_pipe_limit"]
            .map(|name| host.sysctl(name))
    };
    let before = sysctls();
    let with_hook = surroundings(&runtime, &bundle);
    bundle.config["hooks"] = serde_json::json!({});
    let without_hook = surroundings(&runtime, &bundle);
    assert_eq!(with_hook, without_hook, "{kind:?}");
    assert_eq!(sysctls(), before, "{kind:?}");
    assert!(
        !Path::new(RUN).exists() && !Path::new(STORE).exists(),
        "{kind:?}: the host was set up for nobody"
    );
}

fn a_container_without_annotation(kind: Kind) {
    let host = host();
    let mut bundle = bundle();
    bundle.annotation("io.kubernetes.cri.container-type", "container");
    assert_untouched(&host, kind, bundle);
}

/// A limit in config.json is the container's own choice, as long as it requests nothing.
fn a_container_without_annotation_but_with_a_limit(kind: Kind) {
    let host = host();
    let mut bundle = bundle();
    bundle.rlimit("RLIMIT_CORE", 4096, 8192);
    assert_untouched(&host, kind, bundle);
}

/// The pause container of a pod carries the pod's annotations, but its crashes are of no interest.
fn a_sandbox(kind: Kind) {
    let host = host();
    for key in ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"] {
        let mut bundle = bundle();
        bundle.annotation(key, "sandbox").annotation(ECI, ECI_PATTERN);
        assert_untouched(&host, kind, bundle);
    }
}
