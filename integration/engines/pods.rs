//! Whole pods, by the CRI: two containers of different patterns, ExecSync, and the host as it was.
use std::process::{Command, Stdio};

use super::containerd::Containerd;
use super::suite::Suite;
use support::background::Background;
use support::host::BINARY;
use support::photo::Photo;
use support::pod_crashes::{ASKS, crash_in_both, nothing_for_silent_pods};
use support::product::{core_of, doctor_says, host, product};

const PROGRAMS: [&str; 3] = ["containerd", "ctr", "containerd-shim-runc-v2"];

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
    nothing_for_silent_pods(&host, &containerd.cri());

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
    let mut plugin = Background::start(plugin);
    containerd.start();
    plugin.wait_for("serving containerd", 1);
    doctor_says("containerd", &containerd.config(), "ok", "by the NRI plugin that connects");
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
    nothing_for_silent_pods(&host, &containerd.cri());
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

/// Volumes as a kubelet prepares them: an emptyDir in memory, and a part of a volume (`subPath`).
/// Also what `enable` finds by the pod's name.
#[test]
fn volumes_of_a_kubelet() {
    if !Suite::Machine.has(&PROGRAMS) {
        return;
    }
    let host = host();
    let mut containerd = Containerd::prepare(Suite::Machine, 2, false);
    let config = containerd.config();
    product(&["install", "containerd", "--way", "spec", "--config", config.to_str().unwrap()]);
    containerd.start();
    let pods = containerd.file("kubelet/pods/u-1");
    let (memory, part) =
        (pods.join("volumes/kubernetes.io~empty-dir/tmp"), pods.join("volume-subpaths/data/app/0"));
    let data = containerd.file("volume/of-app");
    for directory in [&memory, &part, &data] {
        std::fs::create_dir_all(directory).unwrap();
    }
    mount(&["-t", "tmpfs", "-o", "size=16m", "tmpfs", memory.to_str().unwrap()]);
    let tmpfs = Unmounted(&memory);
    mount(&["--bind", data.to_str().unwrap(), part.to_str().unwrap()]);
    let subpath = Unmounted(&part);

    let asks = [
        ("memory.oci-coredump/pattern", "/tmp/dump/core"),
        ("part.oci-coredump/pattern", "/data/dump/core"),
    ];
    let pod = containerd.pod("web-0", &asks);
    let in_memory = pod.container_with("memory", &[(&memory, "/tmp")]);
    let in_part = pod.container_with("part", &[(&part, "/data")]);
    let plain = pod.container("plain");
    for container in [&in_memory, &in_part] {
        assert_eq!(pod.exec(container, "/bin/crasher null").1, 139);
    }
    host.settle();
    let record = core_of(&host, &in_memory);
    assert_eq!(
        (&record["location"], &record["reason"]),
        (&"pod memory".into(), &"the core goes away with the pod".into())
    );
    assert!(record["host_path"].as_str().unwrap().starts_with(memory.to_str().unwrap()));
    let record = core_of(&host, &in_part);
    assert_eq!(record["location"], "volume");
    assert!(record["host_path"].as_str().unwrap().starts_with(data.to_str().unwrap()), "{record}");

    let by = containerd.ctr_command(&[]);
    let words: Vec<&str> = std::iter::once(by.get_program())
        .chain(by.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    for name in ["plain", "web-0/plain", "shop/web-0/plain", &plain[..12]] {
        let enable = ["enable", name, "--by", &words.join(" "), "--pattern", "/enabled/core"];
        assert!(product(&enable).contains(&plain), "{name}");
        assert!(product(&["disable", name]).contains(&plain), "{name}");
    }

    // The pod goes, and with it what the kubelet has mounted for it.
    pod.remove();
    drop(subpath);
    drop(tmpfs);
    std::fs::remove_dir_all(&pods).unwrap();
    let listed = product(&["list"]);
    assert!(listed.contains("removed with its pod") && listed.contains("present"), "{listed}");
    containerd.stop();
    product(&["uninstall", "--purge"]);
}

fn mount(args: &[&str]) {
    assert!(Command::new("mount").args(args).status().unwrap().success(), "{args:?}");
}

/// A mount, until drop.
struct Unmounted<'a>(&'a std::path::Path);

impl Drop for Unmounted<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
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
