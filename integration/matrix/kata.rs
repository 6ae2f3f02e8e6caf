//! Kata Containers, without Kata: the tree for its guest, called as the agent in the guest calls
//! it; and the host's side, where the process of the state is a virtual machine's monitor.
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use support::core_file::{self, Crashed};
use support::host::{BINARY, STORE};
use support::require;
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, ECI_PATTERN, bundle, crash, host};

/// The tree of `make kata-guest-hook`.
fn guest() -> TempDir {
    let tree = TempDir::new().unwrap();
    let output = Command::new("make")
        .args(["--silent", "kata-guest-hook", "--directory"])
        .arg(support::program::repository())
        .arg(format!("binary={}", support::program::program().display()))
        .arg(format!("DESTDIR={}", tree.path().display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    tree
}

/// The agent's rule: regular files below `<guest_hook_path>/<stage>` that anybody may execute, no
/// links; called by their name, with the stage.
fn hooks(tree: &Path, stage: &str) -> Vec<(PathBuf, Vec<String>)> {
    let entries =
        fs::read_dir(tree.join("usr/share/oci/hooks").join(stage)).unwrap().map(Result::unwrap);
    let found = entries.filter(|e| {
        e.file_type().unwrap().is_file() && e.metadata().unwrap().permissions().mode() & 0o111 != 0
    });
    found
        .map(|e| (e.path(), vec![e.file_name().into_string().unwrap(), stage.to_owned()]))
        .collect()
}

/// The guest's kernel writes the file, by the pod's pattern, from prestart to poststop.
#[test]
fn the_guest() {
    if !require::programs(&["make", "runc"]) {
        return;
    }
    let host = host();
    let tree = guest();
    // In the guest it lies in /etc; a store on this machine that `uninstall` knows.
    let config = fs::read_to_string(tree.path().join("etc/oci-coredump/config.toml")).unwrap();
    let parsed: toml::Table = config.parse().unwrap();
    assert_eq!(parsed["mode"].as_str(), Some("kernel"));
    assert!(
        parsed["store"].as_str().unwrap().starts_with("/run/"),
        "the guest's root is read-only"
    );
    host.configure(&config.replace(parsed["store"].as_str().unwrap(), STORE));

    let before = host.sysctl("kernel/core_pattern");
    let mut bundle = bundle();
    bundle.annotation(ECI, ECI_PATTERN);
    for stage in ["prestart", "poststart", "poststop"] {
        let found = hooks(tree.path(), stage);
        assert_eq!(found.len(), 1, "{stage}");
        bundle.config["hooks"][stage] = json!([{ "path": found[0].0, "args": found[0].1 }]);
    }
    // No hook of the host's kind.
    bundle.config["hooks"].as_object_mut().unwrap().remove("createRuntime");
    let runtime = Runtime::new(Kind::Runc);
    let container = runtime.start(&bundle, "guest");
    assert_eq!(host.sysctl("kernel/core_pattern"), ECI_PATTERN);
    assert_eq!(container.sh("cat /proc/sys/kernel/core_pattern"), format!("{ECI_PATTERN}\n"));
    let (pid, status) =
        crash(|script| container.sh(&format!("ulimit -c unlimited; {script}")), "segv");
    assert_eq!(status, 11 | 0x80);
    container.remove();
    let core = Path::new(STORE).join("containers/guest").join(format!("core-eci.{pid}"));
    assert_eq!(core_file::read(&core), Crashed { signal: 11, tid: pid });
    assert_eq!(host.sysctl("kernel/core_pattern"), before, "poststop frees the pattern");
}

/// Killed on drop.
struct Monitor(Child);

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// On Kata's host the state names the monitor. Whether it has a mount namespace of its own or not:
/// one line, nothing done, and the pod starts.
#[test]
fn the_host() {
    let host = host();
    let before = host.sysctl("kernel/core_pattern");
    let directory = TempDir::new().unwrap();
    let qemu = directory.path().join("qemu-system-x86_64");
    fs::copy(require::find("sleep").unwrap(), &qemu).unwrap();
    fs::create_dir(directory.path().join("rootfs")).unwrap();
    let config = |required: bool| {
        let annotations = if required {
            json!({ ECI: ECI_PATTERN, "oci-coredump/required": "true" })
        } else {
            json!({ ECI: ECI_PATTERN })
        };
        let text = json!({
            "ociVersion": "1.0.2", "root": { "path": "rootfs" }, "annotations": annotations,
        })
        .to_string();
        fs::write(directory.path().join("config.json"), text).unwrap();
    };
    for jailed in [false, true] {
        let mut command = Command::new(if jailed { Path::new("unshare") } else { &qemu });
        if jailed {
            command.args(["--mount", "--propagation=private", "--"]).arg(&qemu);
        }
        let monitor = Monitor(command.arg("1000").spawn().unwrap());
        while fs::read_link(format!("/proc/{}/exe", monitor.0.id())).unwrap() != qemu {
            std::thread::yield_now();
        }
        for required in [false, true] {
            config(required);
            let state = json!({
                "ociVersion": "1.0.2", "id": format!("kata-{required}"), "status": "",
                "pid": monitor.0.id(), "bundle": directory.path(),
            });
            let mut hook = Command::new(BINARY)
                .args(["hook", "createRuntime"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            hook.stdin.take().unwrap().write_all(state.to_string().as_bytes()).unwrap();
            let output = hook.wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.success(), !required, "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(
                said.contains("qemu-system-x86_64") && said.contains("make kata-guest-hook"),
                "{said}"
            );
        }
        assert_eq!(host.sysctl("kernel/core_pattern"), before);
    }
}
