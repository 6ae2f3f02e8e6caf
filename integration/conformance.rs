//! Other projects' tests of hooks, unchanged, from checkouts that the caller names: with the
//! runtime itself, through our wrapper, and through our wrapper with our hooks in every container.
//! The same tests must pass each time. And CRI-O, kubelet and a control plane, built from their
//! sources, with real pods. `make conformance` starts this; `cargo test` alone does not.
#[path = "conformance/cluster.rs"]
mod cluster;
#[path = "conformance/cluster_pods.rs"]
mod cluster_pods;
#[path = "conformance/crio.rs"]
mod crio;
#[path = "conformance/crio_pods.rs"]
mod crio_pods;
#[path = "conformance/kubelet.rs"]
mod kubelet;
#[path = "conformance/kubelet_pods.rs"]
mod kubelet_pods;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::host::{BINARY, Host};
use support::require;
use support::runtime::{Kind, Runtime, script, steady};
use tempfile::TempDir;

/// A test's name, and whether it passed.
type Results = BTreeMap<String, bool>;

/// The hook tests among the groups of youki's `contest`.
const CONTEST: [&str; 9] = [
    "hooks",
    "start_container_hook_env_inherit",
    "create_runtime",
    "prestart",
    "prestart_fail",
    "poststart",
    "poststart_fail",
    "poststop",
    "poststop_fail",
];

/// The checkout that a variable names; suites whose variable is not set are skipped.
fn checkout(variable: &str, needs: &[&str]) -> Option<PathBuf> {
    let Some(source) = std::env::var_os(variable).filter(|v| !v.is_empty()) else {
        println!("{variable} is not set: left out");
        return None;
    };
    let source = fs::canonicalize(&source).unwrap_or_else(|e| panic!("{variable}={source:?}: {e}"));
    for need in needs {
        assert!(
            source.join(need).exists(),
            "{variable}: there is no {need} in {}; build the project's tests as it says itself",
            source.display()
        );
    }
    Some(source)
}

/// A program that `make conformance` has built from a checkout.
fn built(name: &str) -> PathBuf {
    let directory = std::env::var_os("KUBERNETES_BUILT").map(PathBuf::from);
    let program = directory.map(|directory| directory.join(name)).filter(|path| path.is_file());
    program.unwrap_or_else(|| panic!("{name} has not been built: run `make conformance`"))
}

/// Runs a suite three times. `suite` is given the runtime that it is to use.
fn three_times(kind: Kind, suite: impl Fn(&Path) -> String) {
    require::root();
    let host = Host::take();
    host.install();
    let link = Path::new(BINARY).with_file_name("oci-coredump-runtime");
    let _ = fs::remove_file(&link);
    symlink("oci-coredump", &link).unwrap();

    let scratch = TempDir::new().unwrap();
    let runtime = Runtime::new(kind);
    let real = steady(kind, scratch.path(), runtime.program());
    let alone = report(kind, "alone", &suite(&real));
    host.configure(&format!("runtime = {real:?}\n"));
    let wrapped = report(kind, "through the wrapper", &suite(&link));
    assert!(
        !host.sysctl("kernel/core_pattern").contains("oci-coredump"),
        "a container was taken for one that asks"
    );
    host.configure(&format!("runtime = {real:?}\ndefault_pattern = \"/dump/core\"\n"));
    let hooked = report(kind, "with our hooks in every container", &suite(&link));
    assert!(host.sysctl("kernel/core_pattern").contains("oci-coredump"), "our hooks did not run");
    fs::remove_file(&link).unwrap();
    assert_eq!(wrapped, alone);
    assert_eq!(hooked, alone);
}

fn report(kind: Kind, how: &str, output: &str) -> Results {
    let results = read(output);
    assert!(!results.is_empty(), "{} {how}: no test ran: {output}", kind.name());
    let passed = results.values().filter(|passed| **passed).count();
    println!("{}, {how}: {passed} passed, {} failed", kind.name(), results.len() - passed);
    if passed < results.len() {
        println!("{output}");
    }
    results
}

/// TAP (`ok 1 - name`), and what `contest` prints (`1 / 1 : name : ok`).
fn read(output: &str) -> Results {
    let mut results = Results::new();
    for line in output.lines().map(str::trim_end) {
        let tap = line
            .strip_prefix("ok ")
            .map(|rest| (rest, true))
            .or_else(|| line.strip_prefix("not ok ").map(|rest| (rest, false)));
        let words: Vec<&str> = line.split(" : ").collect();
        if let Some((rest, passed)) = tap {
            let name = rest
                .trim_start_matches(|c: char| c.is_ascii_digit())
                .trim_start_matches([' ', '-']);
            results.insert(name.to_owned(), passed);
        } else if let [place, name, verdict] = words[..]
            && place.contains(" / ")
        {
            results.insert(format!("{name} {place}"), verdict != "not ok");
        }
    }
    results
}

/// Standard output and error of a command, whatever its status: the verdicts are in them.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
    .replace('\r', "")
}

#[test]
fn runc_hooks_bats() {
    let Some(source) = checkout("RUNC_SRC", &["tests/integration/hooks.bats"]) else { return };
    assert!(require::programs(&["runc", "bats", "jq", "script", "gcc"]), "hooks.bats needs them");
    // A copy, since the images are put into it and the checkout must stay unchanged.
    let scratch = TempDir::new().unwrap();
    let tests = scratch.path().join("tests");
    assert!(
        Command::new("cp")
            .arg("-a")
            .arg(source.join("tests"))
            .arg(&tests)
            .status()
            .unwrap()
            .success()
    );
    images(&tests.join("integration/testdata"));
    three_times(Kind::Runc, |runtime| {
        // runc spec asks for a terminal.
        let bats = format!("bats --tap {}", tests.join("integration/hooks.bats").display());
        output(
            Command::new("script")
                .args(["--quiet", "--return", "--flush", "--command", &bats, "/dev/null"])
                .env("RUNC", runtime),
        )
    });
}

/// The images of hooks.bats: a shell, grep, ldconfig and their libraries, from this machine instead
/// of Debian's image. Existing images are kept.
fn images(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let script = "set -e; r=$(mktemp -d); \
        mkdir -p $r/bin $r/sbin $r/lib $r/etc $r/dev $r/proc $r/sys $r/tmp; \
        for p in sh grep; do f=$(readlink -f $(command -v $p)); cp $f $r/bin/$p; \
        ldd $f | grep -o '/[^ ]*' | while read l; do \
        mkdir -p $r$(dirname $l); cp -L $l $r$l; done; \
        done; \
        cp /sbin/ldconfig $r/sbin/; printf '/lib\\n/lib/x86_64-linux-gnu\\n' >$r/etc/ld.so.conf; \
        for i in busybox-amd64.tar.xz debian-amd64.tar.xz hello-world-amd64.tar; do \
        [ -e $i ] || tar -C $r -cf $i .; done; rm -r $r";
    let status = Command::new("sh").args(["-c", script]).current_dir(directory).status().unwrap();
    assert!(status.success(), "the root file system for hooks.bats");
}

#[test]
fn crun_test_hooks() {
    let Some(source) = checkout("CRUN_SRC", &["tests/test_hooks.py", "tests/init"]) else { return };
    assert!(require::programs(&["crun", "python3"]), "test_hooks.py needs them");
    let scratch = TempDir::new().unwrap();
    three_times(Kind::Crun, |runtime| {
        let test = source.join("tests/test_hooks.py");
        output(
            Command::new("python3")
                .arg("-B")
                .arg(test)
                .current_dir(scratch.path())
                .env("OCI_RUNTIME", runtime)
                .env("INIT", source.join("tests/init")),
        )
    });
}

#[test]
fn youki_contest() {
    let Some(source) =
        checkout("YOUKI_SRC", &["contest", "runtimetest", "tests/contest/contest/bundle.tar.gz"])
    else {
        return;
    };
    assert!(require::programs(&["youki"]), "contest needs it");
    let scratch = TempDir::new().unwrap();
    fs::copy(
        source.join("tests/contest/contest/bundle.tar.gz"),
        scratch.path().join("bundle.tar.gz"),
    )
    .unwrap();
    three_times(Kind::Youki, |runtime| {
        // contest resolves links, and the wrapper is recognised by the name of its link.
        let runtime = script(
            &scratch.path().join("runtime"),
            &format!("#!/bin/sh\nexec {} \"$@\"\n", runtime.display()),
        );
        let mut contest = Command::new(source.join("contest"));
        contest
            .arg("run")
            .arg("--runtime")
            .arg(runtime)
            .arg("--runtimetest")
            .arg(source.join("runtimetest"))
            .arg("-t")
            .args(CONTEST);
        output(contest.current_dir(scratch.path()))
    });
}
