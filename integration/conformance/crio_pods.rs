//! Pods of CRI-O, by hooks.d and by NRI: crashes of exec'd and of first processes, containers that
//! are started again, names, refusals, what doctor and enable say, and the host as it was.
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::crio::{Crio, HOOKS};
use support::background::Background;
use support::cri::Pod;
use support::host::{BINARY, Host};
use support::photo::Photo;
use support::pod_crashes::{ASKS, crash_in_both, nothing_for_silent_pods};
use support::product::{core_of, doctor, doctor_says, host, product};
use support::wait::wait_for;

/// A configuration that says nothing.
const DEFAULTS: &str = "# As without a file.\n";

/// Whether there is a CRI-O to test.
fn is_there() -> bool {
    super::checkout("CRIO_SRC", &["cmd/crio", "pinns"]).is_some()
}

/// A first process that crashes, and the container in its place: a core and a record each.
fn restarted(host: &Host, crio: &Crio) {
    let pod = crio.pod("again-0", &[("oci-coredump/pattern", "/dump/core.%e")]);
    for attempt in 0..2 {
        let id = pod.attempt("app", attempt, &["/bin/crasher", "null"]);
        wait_for("the end of the container", Duration::from_secs(60), || pod.has_ended(&id));
        host.settle();
        let record = core_of(host, &id);
        assert_eq!(named(&record), ["app", "again-0", "shop", "localhost/victim:1"], "{record}");
        assert_eq!(record["core_path"], "/dump/core.crasher.1", "{record}");
    }
    pod.remove();
}

/// The names in a record: of the container, its pod, its namespace and its image.
fn named(record: &Value) -> [&str; 4] {
    ["container_name", "pod_name", "pod_namespace", "image"]
        .map(|key| record[key].as_str().unwrap_or_default())
}

/// `required` and a pattern that cannot be: the container does not start, and who asked for it
/// reads why.
fn refused(crio: &Crio) {
    let asks = [("oci-coredump/pattern", "|/bin/sh"), ("oci-coredump/required", "true")];
    let pod = crio.pod("strict-0", &asks);
    let said = create(crio, &pod);
    assert!(said.contains("oci-coredump/pattern") && said.contains("|/bin/sh"), "{said}");
    pod.remove();
}

/// What CreateContainer says, which must fail.
fn create(crio: &Crio, pod: &Pod) -> String {
    let creation = pod.creation("app", 0, &["/bin/sleep", "1000"], &[]);
    let output = crio.cri().try_call("CreateContainer", &creation);
    assert!(!output.status.success(), "the container was made: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The administrator's pattern for the containers of a namespace of this engine.
fn selected(host: &Host, crio: &Crio) {
    let all = "default_pattern = \"/chosen/core\"\n[select]\nengine = \"cri-o\"\n";
    host.configure(&format!("{all}namespace = \"shop\"\nimage = \"localhost/victim*\"\n"));
    let pod = crio.pod("chosen-0", &[]);
    let id = pod.container("app");
    assert_eq!(pod.exec(&id, "/bin/crasher null").1, 139);
    host.settle();
    let path = core_of(host, &id)["core_path"].clone();
    assert!(path.as_str().unwrap().starts_with("/chosen/core."), "{path}");
    host.configure(&format!("{all}namespace = \"other\"\n"));
    let other = pod.container("other");
    assert_ne!(pod.exec(&other, "cat /proc/sys/kernel/core_pattern").0, "/chosen/core\n");
    pod.remove();
    host.configure(DEFAULTS);
}

/// What crictl is for: containers that are found by their names.
fn by_crictl(host: &Host, crio: &Crio) {
    if super::checkout("CRITOOLS_SRC", &["cmd/crictl"]).is_none() {
        return;
    }
    let pod = crio.pod("web-2", &[("example.com/other", "x")]);
    let (id, _) = (pod.container("plain"), pod.container("other"));
    let crictl = super::built("crictl");
    let by = format!("{} --runtime-endpoint unix://{}", crictl.display(), crio.socket().display());
    for name in ["plain", "web-2/plain", "shop/web-2/plain", &id[..12]] {
        let enable = ["enable", name, "--by", &by, "--pattern", "/enabled/core"];
        assert!(product(&enable).contains(&id), "{name}");
        assert!(product(&["disable", name]).contains(&id), "{name}");
    }
    product(&["enable", "plain", "--by", &by, "--pattern", "/enabled/core"]);
    assert_eq!(pod.exec(&id, "/bin/crasher null").1, 139);
    host.settle();
    let record = core_of(host, &id);
    assert_eq!(named(&record)[..3], ["plain", "web-2", "shop"], "{record}");
    pod.remove();
}

#[test]
fn by_hooks() {
    if !is_there() {
        return;
    }
    let host = host();
    host.configure(DEFAULTS);
    let mut crio = Crio::prepare(Some("none"));
    let (config, drop_ins) = (crio.config(), crio.file("crio.conf.d"));
    let before = Photo::take(&[&config, &drop_ins]);
    doctor_says("crio", &config, "warning", "where it looks for hooks");
    product(&["install", "crio", "--config", config.to_str().unwrap()]);
    doctor_says("crio", &config, "ok", &format!("by the hook {HOOKS}/oci-coredump.json"));
    crio.start();
    let pod = crio.pod("web-0", &ASKS);
    crash_in_both(&host, &pod, false);
    // The containers of an engine that is started anew go on, and keep their patterns.
    let three = pod.container("three");
    crio.restart();
    assert_eq!(pod.exec(&three, "/bin/crasher null").1, 139);
    host.settle();
    assert_eq!(named(&core_of(&host, &three))[..3], ["three", "web-0", "shop"]);
    let listed = product(&["list", "pod=web-0"]);
    assert_eq!(listed.matches("present").count(), 3, "{listed}");
    pod.remove();
    restarted(&host, &crio);
    refused(&crio);
    selected(&host, &crio);
    by_crictl(&host, &crio);
    nothing_for_silent_pods(&host, &crio.cri());

    crio.stop();
    product(&["uninstall", "crio"]);
    product(&["uninstall", "--purge"]);
    before.assert_unchanged(&[&config, &drop_ins]);
}

/// The plugin that the engine starts, found in its directory.
#[test]
fn by_nri() {
    if !is_there() {
        return;
    }
    let host = host();
    let mut crio = Crio::prepare(Some("none"));
    let plugin = crio.file("plugins/90-oci-coredump");
    std::fs::create_dir_all(plugin.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(BINARY, &plugin).unwrap();
    doctor_says("crio", &crio.config(), "warning", "does not run");
    crio.start();
    let config = crio.config();
    // It serves before it has started its plugins.
    let started = || {
        wait_for("the plugin", Duration::from_secs(60), || {
            doctor("crio", &config).iter().all(|(verdict, _)| verdict == "ok")
        });
    };
    started();
    doctor_says("crio", &config, "ok", "by the NRI plugin");
    served(&host, &mut crio, started);
    let text = std::fs::read_to_string(crio.config()).unwrap();
    std::fs::write(crio.config(), text.replace("[crio.nri]", "[crio.nri]\nenable_nri = false"))
        .unwrap();
    doctor_says("crio", &crio.config(), "failure", "NRI is switched off");
}

/// The plugin that connects by itself: before the engine is there, and again after its restart.
#[test]
fn by_nri_that_connects() {
    if !is_there() {
        return;
    }
    let host = host();
    let mut crio = Crio::prepare(Some("none"));
    let mut plugin = Command::new(BINARY);
    plugin.args(["nri", "--socket"]).arg(crio.file("nri.sock")).stderr(Stdio::piped());
    let mut plugin = Background::start(plugin);
    crio.start();
    plugin.wait_for("serving", 1);
    doctor_says("crio", &crio.config(), "ok", "by the NRI plugin");
    served(&host, &mut crio, || plugin.wait_for("serving", 2));
}

/// Pods before and after a restart of the engine. `connected`: waits for the plugin then.
fn served(host: &Host, crio: &mut Crio, connected: impl FnOnce()) {
    let pod = crio.pod("web-0", &ASKS);
    crash_in_both(host, &pod, true);
    pod.remove();
    restarted(host, crio);
    refused(crio);
    selected(host, crio);
    nothing_for_silent_pods(host, &crio.cri());
    crio.restart();
    connected();
    let pod = crio.pod("web-1", &ASKS);
    crash_in_both(host, &pod, true);
    pod.remove();
}

/// hooks.d and NRI at once, as on a node with the package and the DaemonSet: a crash is one crash.
#[test]
fn by_hooks_and_nri() {
    if !is_there() {
        return;
    }
    let host = host();
    let mut crio = Crio::prepare(None);
    product(&["install", "crio", "--config", crio.config().to_str().unwrap()]);
    let mut plugin = Command::new(BINARY);
    plugin.args(["nri", "--socket"]).arg(crio.file("nri.sock")).stderr(Stdio::piped());
    let mut plugin = Background::start(plugin);
    crio.start();
    plugin.wait_for("serving", 1);
    let said = doctor("crio", &crio.config());
    assert!(said.len() == 2 && said.iter().all(|(verdict, _)| verdict == "ok"), "{said:?}");
    let pod = crio.pod("web-0", &ASKS);
    crash_in_both(&host, &pod, true);
    pod.remove();
    restarted(&host, &crio);
    refused(&crio);
    assert!(Path::new(HOOKS).join("oci-coredump.json").exists());
    crio.stop();
    product(&["uninstall", "crio"]);
}

/// Installed, taken back and installed again while CRI-O runs: it takes up each change by itself,
/// where its directory stays; where it went with `uninstall`, `install` says what to do.
#[test]
fn installed_while_it_runs() {
    if !is_there() {
        return;
    }
    const RESTART: &str = "systemctl restart crio";
    let _host = host();
    let mut crio = Crio::prepare(None);
    let config = crio.config();
    let install = || product(&["install", "crio", "--config", config.to_str().unwrap()]);
    crio.start();
    let said = install();
    assert!(!said.contains(RESTART), "{said}");
    assert!(has_pattern(&crio, "first"));
    product(&["uninstall", "crio"]);
    assert!(!has_pattern(&crio, "without"));
    let said = install();
    assert!(!said.contains(RESTART), "{said}");
    assert!(has_pattern(&crio, "again"));
    product(&["uninstall", "crio"]);

    std::fs::remove_dir(HOOKS).unwrap();
    let said = install();
    assert!(said.contains(RESTART), "{said}");
    assert!(!has_pattern(&crio, "unseen"));
    crio.restart();
    assert!(has_pattern(&crio, "seen"));
    assert!(install().contains("in place already"));
    crio.stop();
    product(&["uninstall", "crio"]);
}

/// Whether a container that asks gets its pattern.
fn has_pattern(crio: &Crio, name: &str) -> bool {
    let pod = crio.pod(name, &[("oci-coredump/pattern", "/dump/mine")]);
    let container = pod.container("app");
    let shown = pod.exec(&container, "cat /proc/sys/kernel/core_pattern").0;
    pod.remove();
    shown == "/dump/mine\n"
}
