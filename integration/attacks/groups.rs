//! The processor time, disk traffic and memory of a dump are charged to the container, in every
//! controller, even at its limits.
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use support::crasher::crasher;
use support::fixture::{bundle, crash};
use support::fuse::{Answer, Fuse, op};
use support::processes::helpers;
use support::runtime::{Kind, Runtime};
use support::scene::{self, ECI, only_record};

const MIB: u64 = 1 << 20;

/// The groups of a process in the accounting controllers.
fn groups(pid: i32) -> BTreeSet<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    // Where memory has a hierarchy of its own, the group of cgroup v2 accounts for nothing.
    let v1 = text.contains(":memory:");
    let counts = |line: &&str| {
        let controllers = line.split(':').nth(1).unwrap_or_default();
        let charging = ["cpu", "cpuacct", "cpuset", "memory", "blkio"];
        controllers.split(',').any(|c| charging.contains(&c)) || !v1 && line.starts_with("0::")
    };
    text.lines().filter(counts).map(str::to_owned).collect()
}

/// The writer is in all groups of the crashed process before it writes the first byte; the parent,
/// which acts for the host, is in none of them.
#[test]
fn row_32_the_writer_is_in_all_groups() {
    let _host = scene::host();
    let target = Fuse::mount();
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, _volume) = bundle();
    bundle.annotation(ECI, "/fuse/core").bind(target.path(), "/fuse");
    let container = runtime.start(&bundle, "all-groups");
    let wanted = groups(container.pid());
    target.on_write(0, Answer::Hold);
    std::thread::scope(|scope| {
        let crashing = scope.spawn(|| crash(&container, "0:0", "", &["/bin/crasher", "null"]));
        let held = target.wait_held(Duration::from_secs(30));
        let now: Vec<_> = helpers().into_iter().map(groups).collect();
        target.go_on();
        crashing.join().unwrap();
        let there = now.iter().filter(|g| **g == wanted).count();
        assert!(held && now.len() == 2 && there == 1, "{now:#?}, wanted {wanted:#?}");
        let other = now.iter().find(|g| **g != wanted).unwrap();
        assert!(wanted.is_disjoint(other), "the parent is in {other:?}");
    });
}

/// The process that keeps the programs of a core continues after the crashed process was released.
/// When the container is removed its groups are empty all the same, or its runtime could not remove
/// them.
#[test]
fn row_32_a_keeper_does_not_hold_the_groups_of_a_container_that_goes() {
    let host = scene::host();
    let target = Fuse::mount();
    let program = target.path().join("crasher");
    fs::copy(crasher(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, volume) = bundle();
    bundle.bind(target.path(), "/fuse");
    let container = runtime.start(&bundle, "goes");
    let script = "ulimit -c unlimited; exec /fuse/crasher --wait null";
    let mut command = container.exec_command(&[], &["/bin/sh", "-c", script]);
    let mut victim = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(victim.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    target.hold(op::OPEN);
    victim.stdin.take().unwrap().write_all(b"x").unwrap();
    victim.wait().unwrap();
    assert!(target.wait_held(Duration::from_secs(30)), "nobody looks at the program");
    let group = groups(container.pid());
    let there = || helpers().into_iter().filter(|pid| groups(*pid) == group).count();
    assert_eq!(there(), 1, "the keeper is not in the container's groups");
    container.remove();
    assert_eq!(there(), 0, "the keeper is in the groups of a container that has gone");
    target.go_on();
    host.settle();
    assert_eq!(support::fixture::names(volume.path()).len(), 1);
}

/// A container at its limit of processes still gets its core.
#[test]
fn row_32_a_container_at_its_pids_limit() {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, volume) = bundle();
    // The crashing process is all that the limit allows.
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 1 });
    bundle.args(&["/bin/crasher", "--fill", "24", "null"]);
    let container = runtime.create(&bundle, "full");
    container.start();
    container.wait_stopped();
    host.settle();
    let record = only_record(&host, "full");
    assert_eq!(record["outcome"], "written", "{record:#}");
    support::core_file::read(&volume.path().join("core.1"));
}

support::cases!(
    row_39_compression_never_costs_the_core: full("60", false),
    nearly_full("56", false),
    with_room("24", true)
);

/// A container with too little memory left for the compression gets a complete, uncompressed core,
/// and the record says so. With more memory the core is compressed.
fn row_39_compression_never_costs_the_core(fill: &str, compressed: bool) {
    const LIMIT: u64 = 64 * MIB;
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let id = format!("near-{fill}");
    let (mut bundle, volume) = bundle();
    bundle.annotation("oci-coredump/compress", "zstd");
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": LIMIT, "swap": LIMIT });
    bundle.args(&["/bin/crasher", "--fill", fill, "null"]);
    let container = runtime.create(&bundle, &id);
    container.start();
    container.wait_stopped();
    host.settle();
    let record = only_record(&host, &id);
    assert_eq!(record["outcome"], "written", "{fill} MiB: {record:#}");
    let name = if compressed { "core.1.zst" } else { "core.1" };
    let core = volume.path().join(name);
    assert!(core.exists(), "{fill} MiB: {:?}, {record:#}", support::fixture::names(volume.path()));
    if !compressed {
        support::core_file::read(&core);
        let why = record["reason"].as_str().unwrap_or_default();
        assert!(why.contains("not compressed"), "{record:#}");
    }
}
