//! Containers that are killed, removed or frozen while their core is written, and a program
//! that is replaced meanwhile.
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::witness::{BOUND, Calm, is_whole, settled};
use support::bare::{self, Container};
use support::fixture::bundle;
use support::fuse::{Answer, Fuse};
use support::host::BINARY;
use support::processes::helpers;
use support::processes::wait_gone;
use support::runtime::{Kind, Runtime};
use support::scene::{self, ECI};
use support::wait::becomes;

/// Upper bound for any step of this test.
fn bounded(runtime: &Runtime, args: &[&str]) -> bool {
    let state = runtime.command();
    let root = state.get_args().nth(1).unwrap().to_str().unwrap().to_owned();
    let output = Command::new("timeout")
        .args(["-k", "1", "15"])
        .arg(runtime.program())
        .args(["--root", &root])
        .args(args)
        .output()
        .unwrap();
    assert_ne!(output.status.code(), Some(124), "{args:?} hangs");
    if !output.status.success() {
        println!("{args:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    output.status.success()
}

support::cases!(killed_removed_or_frozen_in_the_middle: 
    kill_pipe("3", "kill", "late"),
    remove_pipe("3", "remove", "late"),
    remove_pipe_early("3", "remove", "early"),
    freeze_pipe("3", "freeze", "late"),
    kill_fast("12", "kill", "late"),
    remove_fast("12", "remove", "late"),
    remove_fast_early("12", "remove", "early"),
    freeze_fast("12", "freeze", "late"));

fn killed_removed_or_frozen_in_the_middle(fill: &str, how: &str, release: &str) {
    let host = scene::host();
    host.configure("allow_early_release = true\n");
    let calm = Calm::new();
    let runtime = Runtime::new(Kind::Runc);
    let what = format!("{how}, {fill} MiB, {release} release");
    let target = Fuse::mount();
    let (mut bundle, _volume) = bundle();
    bundle.annotation(ECI, "/fuse/core").bind(target.path(), "/fuse");
    if release == "early" {
        bundle.annotation("oci-coredump/release", "early");
    }
    let id = format!("{how}-{fill}-{release}");
    let container = runtime.start(&bundle, &id);
    // Before an early release the small parts are copied.
    target.on_write(
        if release == "early" && fill == "12" { 6 << 20 } else { 128 << 10 },
        Answer::Hold,
    );
    let line = format!(
        "(/bin/parent --core unlimited -- /bin/crasher --fill {fill} null) >/dev/null 2>&1 \
         &"
    );
    container.sh(&line);
    assert!(target.wait_held(Duration::from_secs(10)), "{what}: nothing was written");
    let both = helpers();
    calm.crash(&host, &what);
    match how {
        "kill" => assert!(bounded(&runtime, &["kill", &id, "KILL"]), "{what}"),
        "remove" => {
            let went = bounded(&runtime, &["delete", "--force", &id]);
            println!("{what}: removed at once: {went}");
        }
        _ => {
            assert!(bounded(&runtime, &["pause", &id]), "{what}");
            calm.crash(&host, &what);
        }
    }
    target.go_on();
    if how == "freeze" {
        assert!(bounded(&runtime, &["resume", &id]), "{what}");
    }
    for pid in both {
        wait_gone(pid, BOUND);
    }
    let records = host.records_of(&id);
    assert_eq!(records.len(), 1, "{what}: {records:#?}");
    let record = &records[0];
    let name = target
        .names()
        .into_iter()
        .find(|name| name.starts_with("core"))
        .unwrap_or_else(|| panic!("{what}: no file, {record:#}"));
    let whole = is_whole(&target.content(&name).unwrap());
    assert_eq!(
        record["outcome"],
        if whole { "written" } else { "truncated" },
        "{what}: {record:#}"
    );
    assert_eq!(record["truncated"], !whole, "{what}: {record:#}");
    // The kernel stops dumping a process that is killed or frozen, here as in its file
    // mode; only what was released before is beyond that.
    if release == "early" && fill == "12" {
        assert!(whole, "{what}: {record:#}");
    } else {
        assert!(
            !whole && record["reason"].as_str().unwrap().contains("killed"),
            "{what}: {record:#}"
        );
    }
    assert!(
        bounded(&runtime, &["delete", "--force", &id]),
        "{what}: the container cannot be removed afterwards"
    );
    drop(container);
}

support::cases!(program_replaced_during_a_dump: renamed_over("renamed over"), removed("removed"));

/// An upgrade renames the new program over the old one, or removes it first.
fn program_replaced_during_a_dump(how: &str) {
    let host = scene::host();
    let target = Fuse::mount();
    let container = Container::new("upgraded", target.path(), &[]);
    let victim = bare::victim();
    target.on_write(64 << 10, Answer::Hold);
    let mut crashing = container.victim(&victim, "random", 24);
    crashing.crash();
    assert!(target.wait_held(Duration::from_secs(10)));
    let both = helpers();
    if how == "removed" {
        fs::remove_file(BINARY).unwrap();
    }
    host.install();
    // The new program serves the next crash while the old one is still working, on a
    // target that does not hang.
    let beside = TempDir::new().unwrap();
    let next = Container::new("next", beside.path(), &[]);
    let mut quick = next.victim(&victim, "tiny", 0);
    quick.crash();
    assert!(quick.ends_within(BOUND));
    assert!(is_whole(&fs::read(quick.core()).unwrap()), "{how}");
    assert!(
        both.iter().all(|pid| Path::new(&format!("/proc/{pid}")).exists()),
        "{how}: the old one is gone"
    );
    target.go_on();
    assert!(crashing.ends_within(BOUND), "{how}");
    assert_eq!(settled(&host, "upgraded", crashing.pid())["outcome"], "written", "{how}");
    assert!(is_whole(&target.content(&format!("core.{}", crashing.pid())).unwrap()), "{how}");
    assert!(becomes(BOUND, || helpers().is_empty()), "{how}: a helper stays");
}
