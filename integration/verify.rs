//! `oci-coredump verify`: the real runtimes pass, and for a runtime with a fault that fault is
//! reported. Needs root; changes nothing on the host.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::require;
use support::runtime::{Kind, script, steady};
use tempfile::TempDir;

support::per_runtime!(runc_crun_and_youki_pass);

/// The checks that failed, and the exit status. Nothing may be left of the containers.
fn verify(runtime: &Path) -> (BTreeSet<String>, Option<i32>) {
    let scratch = TempDir::new().unwrap();
    let mut command = alone();
    command.env("TMPDIR", scratch.path()).args(["verify", "--json", "--runtime"]).arg(runtime);
    let output = command.output().unwrap();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "something is left: {output:?}");
    let checks: Vec<Value> =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert!(checks.len() > 30, "{checks:#?}");
    let failed = checks
        .iter()
        .filter(|c| c["verdict"] == "failed")
        .map(|c| format!("{}: {}", c["subject"].as_str().unwrap(), c["need"].as_str().unwrap()));
    (failed.collect(), output.status.code())
}

/// The program; where cgroups are hybrid, which crun refuses, in a mount namespace
/// without the second hierarchy.
fn alone() -> Command {
    let program = support::program::program();
    if !Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "umount /sys/fs/cgroup/unified; exec \"$@\"", "sh"]);
    command.arg(program);
    command
}

fn runc_crun_and_youki_pass(kind: Kind) {
    require::root();
    let directory = TempDir::new().unwrap();
    let program = require::find(kind.name()).unwrap();
    assert_eq!(verify(&steady(kind, directory.path(), &program)), (BTreeSet::new(), Some(0)));
}

/// runc, before which config.json is edited by a line of Python: `c` is it, `h` its hooks.
fn broken(edit: &str) -> BTreeSet<String> {
    let directory = TempDir::new().unwrap();
    let runc = require::find("runc").unwrap();
    fs::write(
        directory.path().join("edit.py"),
        format!(
            "import json, sys\np = sys.argv[1]\nc = json.load(open(p))\nh = c['hooks']\n{edit}\n\
             json.dump(c, open(p, 'w'))\n"
        ),
    )
    .unwrap();
    // `--root DIR create --bundle DIR ID`
    let text = format!(
        "#!/bin/sh -e\n[ \"$3\" != create ] || python3 {}/edit.py \"$5/config.json\"\n\
         exec {} \"$@\"\n",
        directory.path().display(),
        runc.display()
    );
    let (failed, status) = verify(&script(&directory.path().join("runtime"), &text));
    assert_eq!(status, Some(1), "{edit}: {failed:#?}");
    failed
}

support::cases!(a_runtime_that_does_less_is_found_out:
        reversed(
            "[l.reverse() for l in h.values()]",
            &["order: hooks of one stage run in the listed order"],
        ),
        twice("h.update(prestart=h.get('prestart', []) * 2)", &["order: no hook runs twice"]),
        no_env("[x.pop('env') for l in h.values() for x in l]", &["state: a hook's env arrives"]),
        no_annotations(
            "c.pop('annotations')",
            &["state: config.json in the bundle can be read, with its annotations"],
        ),
        another_limit(
            "c['process'].setdefault('rlimits', \
             [{'type': 'RLIMIT_CORE', 'soft': 4096, 'hard': 1 << 40}])",
            &["limits: RLIMIT_CORE that createRuntime sets is the program's, \
               where config.json has none"],
        ),
        no_refusal(
            "[x.update(path='/bin/true') for l in h.values() for x in l if 'exit:3' in x['args']]",
            &["refusal: a createRuntime hook that fails stops the container"],
        ),
        no_poststop(
            "h.pop('poststop', 0)",
            &[
                "namespaces: poststop runs in the runtime's namespaces",
                "order: poststop runs in delete",
                "state: a hook's env arrives",
                "state: bundle is the absolute path of the bundle",
                "state: config.json in the bundle can be read, with its annotations",
                "state: id is the container's",
                "state: status is stopped at poststop",
                "state: the state comes whole on stdin, and ends there",
            ],
        ),
);

/// Each fault, and exactly the checks that report it.
fn a_runtime_that_does_less_is_found_out(edit: &str, expected: &[&str]) {
    require::root();
    if require::programs(&["runc", "python3"]) {
        assert_eq!(broken(edit), expected.iter().map(|s| (*s).to_owned()).collect());
    }
}

#[test]
fn a_runtime_without_create_runtime_is_found_out() {
    require::root();
    if !require::programs(&["runc", "python3"]) {
        return;
    }
    let subjects = |failed: &BTreeSet<String>| {
        failed.iter().map(|f| f.split(':').next().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let everything: BTreeSet<String> =
        ["limits", "mounts", "namespaces", "order", "refusal", "state"].map(String::from).into();
    let dropped = broken("h.pop('createRuntime', 0)");
    assert_eq!(subjects(&dropped), everything, "{dropped:#?}");
    // In the next stage, the container's mount namespace, the hook can do none of its actions.
    let later = broken(
        "h.update(createContainer=h.pop('createRuntime', []) + h.get('createContainer', []))",
    );
    for need in [
        "namespaces: createRuntime runs in the runtime's namespaces",
        "mounts: the program sees that mount",
    ] {
        assert!(later.contains(need), "{need}: {later:#?}");
    }
}

#[test]
fn what_is_no_runtime() {
    require::root();
    let run = |path: &str| -> Output {
        Command::new(support::program::program())
            .args(["verify", "--runtime", path])
            .output()
            .unwrap()
    };
    let none = run("/nowhere/runc");
    assert!(
        none.status.code() == Some(1)
            && String::from_utf8_lossy(&none.stderr).contains("/nowhere/runc"),
        "{none:?}"
    );
    // A program that reports success and does nothing.
    let yes = run("/bin/true");
    let said = String::from_utf8_lossy(&yes.stderr);
    assert!(
        yes.status.code() == Some(1)
            && yes.stdout.is_empty()
            && said.contains("create did nothing")
            && said.lines().count() == 1,
        "{yes:?}"
    );
    // As a shell finds it.
    assert!(run("no-such-runtime").status.code() == Some(1));
    assert!(
        Command::new(support::program::program())
            .args(["verify", "--runtime", "true"])
            .output()
            .is_ok_and(
                |found| String::from_utf8_lossy(&found.stderr).contains("create did nothing")
            )
    );
}
