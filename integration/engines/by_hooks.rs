//! podman's precreate hook: what the runtime gets is edited before it starts.
use crate::support::host::BINARY;
use crate::support::podman::Podman;
use crate::support::require;
use crate::support::runtime::Kind;

use super::host;

#[test]
fn precreate_of_podman() {
    if !require::programs(&["podman", "crun"]) {
        return;
    }
    let _host = host();
    let podman = Podman::new(Kind::Crun, |_| {});
    let file = oci_coredump::engine::podman::precreate_file(BINARY).unwrap();
    std::fs::write(podman.hooks().join("precreate.json"), file).unwrap();
    // With the precreate hook alone: it adds the others.
    podman.start("asks", &["--annotation", "oci-coredump/pattern=/dump/core", "--annotation", "oci-coredump/limit=1M"], &["sleep", "1000"]);
    podman.start("silent", &[], &["sleep", "1000"]);
    let config = |name: &str| -> serde_json::Value {
        let path = podman.verb(&["inspect", "--format", "{{.OCIConfigPath}}", name]);
        serde_json::from_slice(&std::fs::read(path.trim()).unwrap()).unwrap()
    };
    let core = |name: &str| config(name)["process"]["rlimits"].as_array().unwrap().iter().find(|l| l["type"] == "RLIMIT_CORE").cloned();
    assert_eq!(core("asks").unwrap()["soft"], 1 << 20);
    assert_eq!(core("silent"), None);
    assert!(!config("silent").to_string().contains("\"poststop\""));
    assert_eq!(podman.sh("asks", "cat /proc/sys/kernel/core_pattern"), "/dump/core\n");
}
