//! `kubectl coredump` over a kubectl that is a script: several nodes, one of which cannot be asked.
//! The real one, and an API server, are in integration/conformance/cluster_pods.rs.

use std::process::{Command, Output};
use support::runtime::script;

/// Two agents; pod `web` is gone; node `b` answers `exec` as the script in `ANSWER` says.
const KUBECTL: &str = r#"#!/bin/sh
case "$*" in
    "get pod "*) ;;
    "get pods "*)
        for node in a b; do
            items="$items${items:+,}{\"metadata\": {\"name\": \"pod-$node\"},
                \"spec\": {\"nodeName\": \"$node\"}, \"status\": {\"phase\": \"Running\"}}"
        done
        echo "{\"items\": [$items]}" ;;
    *"pod-a "*" list "*)
        test -n "$FIRST" && echo "$FIRST" && exit
        echo 'oci-coredump: list: no crash in /var/lib/oci-coredump matches' >&2
        echo 'command terminated with exit code 1' >&2
        exit 1 ;;
    *"pod-b "*" list "*)
        echo 'Error from server: error dialing backend: no route to host' >&2
        exit 1 ;;
    *) echo "$*" ;;
esac
"#;

/// `kubectl coredump info web`, with the newest crash on node `a`, if any.
fn info(first: &str) -> (Output, String) {
    let directory = tempfile::tempdir().unwrap();
    script(&directory.path().join("kubectl"), KUBECTL);
    let plugin = directory.path().join("kubectl-coredump");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_oci-coredump"), &plugin).unwrap();
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let mut command = Command::new(plugin);
    command.args(["info", "web", "-n", "shop"]).env("PATH", path).env("FIRST", first);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    (output, stderr)
}

#[test]
fn a_node_that_cannot_be_asked_is_named() {
    let unreachable = "node b is left out: Error from server: error dialing backend";
    let (output, said) = info("{\"time\": \"2026-03-10T10:30:00Z\"}");
    assert!(output.status.success(), "{output:?}");
    let asked = String::from_utf8(output.stdout).unwrap();
    assert!(asked.contains("exec -n oci-coredump pod-a -c node"), "{asked}");
    assert!(asked.ends_with("info -- pod=web namespace=shop\n"), "{asked}");
    assert!(said.contains("there is no pod web in namespace shop now"), "{said}");
    assert!(said.contains(unreachable) && !said.contains("node a"), "{said}");

    let (output, said) = info("");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("no crash of pod web is on any node"), "{said}");
    assert!(said.contains(unreachable) && !said.contains("node a"), "{said}");
}
