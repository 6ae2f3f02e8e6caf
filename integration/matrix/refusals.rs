//! Requests that cannot be honoured: the container starts all the same, one clear line says why,
//! and with `oci-coredump/required` it does not start.
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use support::bundle::Bundle;
use support::runtime::{Container, Kind, Runtime};
use support::scene::{ECI, bundle, host, product};

support::per_runtime!(
    a_refused_pattern_lets_the_container_start,
    a_required_pattern_that_is_refused_stops_the_container,
    a_strict_host
);

support::cases!(a_pattern_with_nul: runc(Kind::Runc), youki(Kind::Youki));

/// Patterns that are no file name (security: attack 8), with what is wrong with them.
fn refused() -> Vec<(&'static str, String)> {
    vec![
        ("a pipe", "|/bin/sh -c id".into()),
        ("a socket", "@/run/coredump.socket".into()),
        ("a socket with request", "@@/run/coredump.socket".into()),
        ("empty", String::new()),
        ("longer than 127 bytes", format!("/{}", "x".repeat(127))),
        ("a newline", "/tmp/core\n|/bin/sh".into()),
        ("an escape sequence", "/tmp/\u{1b}[2J".into()),
        ("upwards", "/pod/../../etc/core".into()),
    ]
}

/// Calls a hook stage as a runtime does.
fn call(stage: &str, state: &Value) -> Output {
    let mut child = product(&["hook", stage])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(state.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// One line for a person, nothing for a machine.
fn assert_one_line(output: &Output, what: &str) {
    assert!(output.stdout.is_empty(), "{what}: {output:?}");
    let line = std::str::from_utf8(&output.stderr).unwrap();
    assert!(line.ends_with('\n') && line.lines().count() == 1, "{what}: not one line: {line:?}");
    assert!(!line.trim_end().contains(char::is_control), "{what}: control characters: {line:?}");
}

fn a_refused_pattern_lets_the_container_start(kind: Kind) {
    let host = host();
    let before = host.sysctl("kernel/core_pattern");
    let runtime = Runtime::new(kind);
    for (what, pattern) in refused() {
        let mut bundle = bundle();
        bundle.annotation(ECI, &pattern);
        let container = runtime.start(&bundle, "refused");
        assert_eq!(
            container.sh("cat /proc/sys/kernel/core_pattern"),
            format!("{before}\n"),
            "{what}"
        );
        // Whoever looks for its crashes is told.
        for look in [&["info", "refused"][..], &["list", "--since", "1h", "refused"]] {
            let said = product(look).output().unwrap();
            let text = String::from_utf8_lossy(&said.stderr);
            assert!(!said.status.success(), "{what}: {said:?}");
            assert!(text.contains("container refused") && text.contains(ECI), "{what}: {text}");
            assert_one_line(&said, what);
        }
        container.remove();
        assert_eq!(host.sysctl("kernel/core_pattern"), before, "{what}");
    }
}

/// NUL cannot be in a C string, and crun's annotations are some: only runc and youki pass it on.
fn a_pattern_with_nul(kind: Kind) {
    if !support::require::programs(&[kind.name()]) {
        return;
    }
    let host = host();
    let before = host.sysctl("kernel/core_pattern");
    let runtime = Runtime::new(kind);
    let mut bundle = bundle();
    bundle.annotation(ECI, "/tmp/core\0|/bin/sh");
    let container = runtime.start(&bundle, "nul");
    assert_eq!(container.sh("cat /proc/sys/kernel/core_pattern"), format!("{before}\n"));
}

fn a_required_pattern_that_is_refused_stops_the_container(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    for (what, pattern) in refused() {
        let mut bundle = bundle();
        bundle.annotation(ECI, &pattern).annotation("oci-coredump/required", "true");
        let started = runtime.try_create(&bundle, "required").is_ok();
        assert!(!started, "{what}: the container was created");
    }
    let mut bundle = bundle();
    bundle.annotation(ECI, "/pod/data/dump/core").annotation("oci-coredump/required", "true");
    let started = runtime.try_create(&bundle, "required").is_ok();
    assert!(started, "a good pattern was refused");
    drop(host);
}

/// The administrator's switch does for all containers what the annotation does for one.
fn a_strict_host(kind: Kind) {
    let host = host();
    host.configure("strict = true\n");
    let runtime = Runtime::new(kind);
    let try_with = |pattern: &str| {
        let mut bundle = bundle();
        bundle.annotation(ECI, pattern);
        runtime.try_create(&bundle, "strict").is_ok()
    };
    assert!(!try_with("|/bin/sh"), "the container was created");
    assert!(try_with("/pod/data/dump/core"), "a good pattern was refused");
    let started = runtime.try_create(&bundle(), "strict").is_ok();
    assert!(started, "a container that asks for nothing was refused");
}

/// A created container without hooks, so that the test can call them itself and see what they say.
fn silent<'r>(runtime: &'r Runtime, bundle: &mut Bundle, id: &str) -> Container<'r> {
    bundle.config["hooks"] = json!({});
    runtime.create(bundle, id)
}

#[test]
fn one_line_says_why() {
    let host = host();
    let runtime = Runtime::new(Kind::Runc);
    let reasons: Vec<String> = refused()
        .into_iter()
        .map(|(what, pattern)| {
            let mut bundle = bundle();
            bundle.annotation(ECI, &pattern);
            let container = silent(&runtime, &mut bundle, "why");
            let output = call("createRuntime", &container.state());
            assert!(output.status.success(), "{what}: {output:?}");
            assert_one_line(&output, what);
            let line = String::from_utf8(output.stderr).unwrap();
            assert!(line.contains(ECI), "{what}: the annotation is not named: {line}");
            line
        })
        .collect();
    let mut different = reasons.clone();
    different.sort();
    different.dedup();
    assert!(different.len() >= reasons.len() - 1, "the reasons are not told apart: {reasons:#?}");
    drop(host);
}

/// Kata's runtime gives the PID of a virtual machine monitor, gVisor's that of the sentry: a
/// process in the host's own mount namespace. Taking that for a container's init would change
/// the host's /proc and mounts.
#[test]
fn a_process_of_the_host_is_no_container() {
    let host = host();
    let pattern = host.sysctl("kernel/core_pattern");
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let mut bundle = Bundle::new();
    bundle.annotation(ECI, "/pod/data/dump/core");
    for required in [false, true] {
        if required {
            bundle.annotation("oci-coredump/required", "true");
        }
        bundle.write();
        let mut monitor = Command::new("sleep").arg("1000").spawn().unwrap();
        let state = json!({
            "ociVersion": "1.0.2", "id": "vm", "status": "creating", "pid": monitor.id(),
            "bundle": bundle.path(),
            "annotations": bundle.config["annotations"],
        });
        let output = call("createRuntime", &state);
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        assert_eq!(output.status.success(), !required, "{output:?}");
        assert_one_line(&output, "a VMM's PID");
        assert_eq!(mounts(), before);
        assert_eq!(host.sysctl("kernel/core_pattern"), pattern);
    }
}

/// What comes after the start never stops a container, whatever it is told.
#[test]
fn later_stages_always_succeed() {
    let host = host();
    for stage in ["poststart", "poststop"] {
        let states = [
            json!({}),
            json!({
                "id": "gone", "status": "stopped", "bundle": "/nonexistent", "ociVersion": "1.0.2",
            }),
        ];
        for state in states {
            let output = call(stage, &state);
            assert!(output.status.success(), "{stage} {state}: {output:?}");
            assert!(output.stdout.is_empty(), "{stage} {state}: {output:?}");
        }
    }
    drop(host);
}
