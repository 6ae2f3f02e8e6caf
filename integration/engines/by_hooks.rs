//! podman and CRI-O: their drop-ins, and podman's precreate hook, which edits what the runtime gets.
use crate::support::host::BINARY;
use crate::support::podman::Podman;
use crate::support::require;
use crate::support::runtime::Kind;

use super::photo::Photo;
use super::{host, product};

/// No CRI-O is in Debian: what it would read is checked by the rules of crio.conf.d(5), and that all of it goes again.
#[test]
fn drop_ins_of_podman_and_crio() {
    let _host = host();
    let scratch = tempfile::tempdir().unwrap();
    for (engine, main, text, drop_in, table) in [
        ("podman", "containers.conf", "[engine]\nhooks_dir = [\"/srv/hooks\"]\n", "containers.conf.d/oci-coredump.conf", "engine"),
        ("crio", "crio.conf", "[crio.runtime]\nhooks_dir = [\"/srv/hooks\"]\n", "crio.conf.d/99-oci-coredump.conf", "crio.runtime"),
    ] {
        let config = scratch.path().join(main);
        std::fs::write(&config, text).unwrap();
        let before = Photo::take(&[scratch.path()]);
        let arguments = ["install", engine, "--config", config.to_str().unwrap()];
        product(&arguments);
        let written: toml::Table = std::fs::read_to_string(scratch.path().join(drop_in)).unwrap().parse().unwrap();
        let list = table.split('.').fold(toml::Value::Table(written), |value, key| value[key].clone())["hooks_dir"].clone();
        assert_eq!(list, toml::Value::try_from(["/srv/hooks", "/usr/share/containers/oci/hooks.d"]).unwrap());
        let hook = std::fs::read("/usr/share/containers/oci/hooks.d/oci-coredump.json").unwrap();
        let hook: serde_json::Value = serde_json::from_slice(&hook).unwrap();
        assert_eq!(hook["hook"]["path"], BINARY);
        // CRI-O would not start if the stage stood there.
        assert!(!hook["stages"].to_string().contains("precreate"));
        assert!(product(&arguments).contains("in place already"));
        product(&["uninstall", engine]);
        product(&["uninstall", "--purge"]);
        before.assert_unchanged(&[scratch.path()]);
    }
}

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
