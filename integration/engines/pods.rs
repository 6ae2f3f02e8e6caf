//! Whole pods, by the CRI: two containers of different patterns, ExecSync, and the host as it was.
use std::process::{Command, Stdio};

use super::containerd::{Containerd, Pod};
use super::photo::Photo;
use super::suite::Suite;
use super::{core_of, doctor_says, host, product};
use support::host::{BINARY, Host};

const PROGRAMS: [&str; 3] = ["containerd", "ctr", "containerd-shim-runc-v2"];

/// Only one of the two has a pattern of its own; the other takes the pod's.
const ASKS: [(&str, &str); 2] =
    [("oci-coredump/pattern", "/dump/all"), ("two.oci-coredump/pattern", "/cores/%e-of-two")];

/// Crashes in both containers of a pod, by ExecSync; `limited`: whether the engine gives an
/// exec the container's limit.
fn crash_in_both(host: &Host, pod: &Pod<'_>, limited: bool) {
    let (one, two) = (pod.container("one"), pod.container("two"));
    if limited {
        assert_eq!(pod.exec(&one, "ulimit -Sc").0, "unlimited\n");
    }
    assert_eq!(pod.exec(&one, "cat /proc/sys/kernel/core_pattern").0, "/dump/all\n");
    assert_eq!(pod.exec(&two, "cat /proc/sys/kernel/core_pattern").0, "/cores/%e-of-two\n");
    for (container, name, directory, start) in
        [(&one, "one", "/dump", "all."), (&two, "two", "/cores", "crasher-of-two.")]
    {
        let (_, status) = pod.exec(container, "/bin/crasher null");
        assert_eq!(status, 139, "{name}");
        let record = core_of(host, container);
        assert_eq!(
            (&record["container_name"], &record["pod_namespace"]),
            (&name.into(), &"shop".into()),
            "{record}"
        );
        assert!(record["pod_name"].as_str().is_some_and(|pod| pod.starts_with("web")), "{record}");
        let listed = pod.exec(container, &format!("ls {directory}")).0;
        assert!(listed.starts_with(start), "{name}: {listed:?}");
    }
}

fn nothing_for_silent_pods(host: &Host, containerd: &Containerd) {
    let pod = containerd.pod("silent", &[("example.com/other", "x")]);
    let container = pod.container("app");
    pod.exec(&container, "/bin/crasher null");
    assert!(host.records_of(&container).is_empty());
    // The host's own pattern, as without us.
    assert_eq!(
        pod.exec(
            &container,
            "ls -d /dump /cores 2>/dev/null; head -c 1 /proc/sys/kernel/core_pattern"
        )
        .0,
        "|"
    );
    pod.remove();
}

/// The plugin, started by the engine: across a restart of the engine, and when it is killed.
fn by_nri(suite: Suite, version: u32) {
    if !suite.has(&PROGRAMS) {
        return;
    }
    let host = host();
    let mut containerd = Containerd::prepare(suite, version, version == 2);
    let config = containerd.config();
    let plugins = containerd.file("plugins");
    let before = Photo::take(&[&config, &plugins]);
    product(&["install", "containerd", "--way", "nri", "--config", config.to_str().unwrap()]);
    doctor_says("containerd", &config, "warning", "does not run");
    containerd.start();
    doctor_says("containerd", &config, "ok", "by the NRI plugin");
    let pod = containerd.pod("web-0", &ASKS);
    crash_in_both(&host, &pod, true);
    pod.remove();
    nothing_for_silent_pods(&host, &containerd);

    containerd.restart();
    let pod = containerd.pod("web-1", &ASKS);
    crash_in_both(&host, &pod, true);
    let killed = plugin_of(&plugins.join("90-oci-coredump"));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(killed), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    // Without its plugin the engine goes on without it.
    let (out, status) = pod.exec(&pod.container("three"), "echo alive");
    assert_eq!((out.as_str(), status), ("alive\n", 0));
    pod.remove();

    containerd.stop();
    product(&["uninstall", "--purge"]);
    before.assert_unchanged(&[&config, &plugins]);
}

/// The PID of the process that was started by this path.
fn plugin_of(path: &std::path::Path) -> i32 {
    let started = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with(path.as_os_str().as_encoded_bytes()))
    };
    support::processes::all().find(started).unwrap_or_else(|| panic!("no plugin {path:?} runs"))
}

#[test]
fn nri_of_containerd_2() {
    by_nri(Suite::Sid, 3);
}

#[test]
fn nri_of_containerd_1_7() {
    by_nri(Suite::Trixie, 2);
}

/// The plugin that connects by itself: before the engine is there, and again after its restart.
#[test]
fn nri_by_connecting() {
    if !Suite::Sid.has(&PROGRAMS) {
        return;
    }
    let host = host();
    let mut containerd = Containerd::prepare(Suite::Sid, 3, true);
    let mut plugin = Command::new(BINARY);
    plugin.args(["nri", "--socket"]).arg(containerd.file("nri.sock")).stderr(Stdio::piped());
    let mut plugin = super::Background::start(plugin);
    containerd.start();
    plugin.wait_for("serving containerd", 1);
    let pod = containerd.pod("web-0", &ASKS);
    crash_in_both(&host, &pod, true);
    pod.remove();
    containerd.restart();
    plugin.wait_for("serving containerd", 2);
    let pod = containerd.pod("web-1", &ASKS);
    crash_in_both(&host, &pod, true);
    pod.remove();
}

/// The base specification of the CRI plugin.
fn by_spec(suite: Suite, version: u32) {
    if !suite.has(&PROGRAMS) {
        return;
    }
    let host = host();
    let mut containerd = Containerd::prepare(suite, version, false);
    let config = containerd.config();
    let drop_ins = containerd.file("conf.d");
    let before = Photo::take(&[&config, &drop_ins]);
    product(&["install", "containerd", "--way", "spec", "--config", config.to_str().unwrap()]);
    doctor_says("containerd", &config, "ok", "by the base specification");
    containerd.start();
    let pod = containerd.pod("web-0", &ASKS);
    crash_in_both(&host, &pod, false);
    pod.remove();
    nothing_for_silent_pods(&host, &containerd);
    containerd.stop();
    // An administrator who lets nothing through: pods that ask get nothing,
    // and doctor is who says so.
    let file = if version == 3 { drop_ins.join("oci-coredump.toml") } else { config.clone() };
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"oci-coredump/*\"", "\"other/*\"")).unwrap();
    doctor_says("containerd", &config, "failure", "do not let oci-coredump/* through");
    std::fs::write(&file, text).unwrap();
    product(&["uninstall", "--purge"]);
    before.assert_unchanged(&[&config, &drop_ins]);
}

#[test]
fn spec_of_containerd_1_6() {
    by_spec(Suite::Machine, 2);
}

#[test]
fn spec_of_containerd_1_7() {
    by_spec(Suite::Trixie, 2);
}

#[test]
fn spec_of_containerd_2() {
    by_spec(Suite::Sid, 3);
}
