//! Resources that a container takes beyond its own: memory, time, space.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use support::fixture::{bundle, crash, names};
use support::fuse::{Answer, Fuse};
use support::processes::helpers;
use support::runtime::{Kind, Runtime};
use support::scene::{self, ECI, only_record};
use support::wait::wait_for;

const MIB: u64 = 1 << 20;

/// The memory group of a process: cgroup v1's hierarchy, or the one of v2.
fn memory_group(pid: i32) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let v1 = text.lines().find_map(|line| line.split_once(":memory:"));
    match v1 {
        Some((_, path)) => PathBuf::from(format!("/sys/fs/cgroup/memory{path}")),
        None => PathBuf::from(format!(
            "/sys/fs/cgroup{}",
            text.lines().find_map(|line| line.strip_prefix("0::")).unwrap()
        )),
    }
}

fn number(group: &Path, names: [&str; 2]) -> u64 {
    let text = names
        .iter()
        .find_map(|name| fs::read_to_string(group.join(name)).ok())
        .unwrap_or_else(|| panic!("{group:?} has none of {names:?}"));
    text.trim().parse().unwrap()
}

support::cases!(row_13_core_beyond_the_memory_limit: late("late"), early("early"));

/// A volume in memory, a process that uses half of the pod's memory, and a core of the same size:
/// together they exceed the limit. The host would have to provide the rest; instead the core is cut
/// there. Early release does not avoid that.
fn row_13_core_beyond_the_memory_limit(release: &str) {
    const LIMIT: u64 = 64 * MIB;
    let host = scene::host();
    host.configure("allow_early_release = true\n");
    let runtime = Runtime::new(Kind::Runc);
    let (calm, calms_volume) = bundle();
    let calm = runtime.start(&calm, "calm");
    let id = format!("greedy-{release}");
    let (mut bundle, _volume) = bundle();
    bundle.annotation(ECI, "/memory/core").tmpfs("/memory", 512 * MIB);
    if release == "early" {
        bundle.annotation("oci-coredump/release", "early");
    }
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": LIMIT, "swap": LIMIT });
    let container = runtime.start(&bundle, &id);
    let group = memory_group(container.pid());
    assert_eq!(number(&group, ["memory.limit_in_bytes", "memory.max"]), LIMIT);
    let (_, status) = crash(&container, "0:0", "", &["/bin/crasher", "--fill", "44", "null"]);
    assert_ne!(status, 0);
    let peak = number(&group, ["memory.max_usage_in_bytes", "memory.peak"]);
    let record = settled(&host, &id);
    assert_eq!(record["outcome"], "truncated", "{record:#}");
    let why = record["reason"].as_str().unwrap();
    assert!(why.contains("memory limit"), "{why}");
    let size: u64 = container.sh("cat /memory/core* | wc -c").trim().parse().unwrap();
    let used: u64 = container.sh("du -k /memory | cut -f 1").trim().parse::<u64>().unwrap() * 1024;
    assert!(
        used < LIMIT - 44 * MIB + MIB,
        "{used} bytes are in the pod's memory beside the process ({size} in the file)"
    );
    assert!(peak <= LIMIT, "{peak}");
    assert_eq!(container.status(), "running", "an innocent process of the pod was killed");
    // The neighbour is not affected.
    let (pid, _) = crash(&calm, "0:0", "", &["/bin/crasher", "null"]);
    support::core_file::read(&calms_volume.path().join(format!("core.{pid}")));
    println!("{release}: peak {peak} of {LIMIT}, {used} bytes of core kept; {why}");
    container.remove();
}

/// The largest process of the pod has nothing to do with the crash, and must not be killed
/// to make room for the core.
#[test]
fn row_13_core_at_the_cost_of_another_process() {
    const LIMIT: u64 = 64 * MIB;
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, _volume) = bundle();
    bundle.annotation(ECI, "/memory/core").tmpfs("/memory", 512 * MIB);
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": LIMIT, "swap": LIMIT });
    // A FIFO without a writer holds it; its memory is filled when it says so.
    bundle.shell("mkfifo /tmp/never; exec 0<>/tmp/never; exec /bin/crasher --fill 36 --wait null");
    let container = runtime.start(&bundle, "bystander");
    container.wait_for_stdout("ready");
    crash(&container, "0:0", "", &["/bin/crasher", "--fill", "18", "null"]);
    let record = settled(&host, "bystander");
    assert_eq!(record["outcome"], "truncated", "{record:#}");
    assert_eq!(container.status(), "running", "the pod died of a core: {record:#}");
    assert!(record["reason"].as_str().unwrap().contains("memory limit"), "{record:#}");
}

/// The record, once it no longer changes.
fn settled(host: &support::host::Host, id: &str) -> serde_json::Value {
    wait_for(&format!("that the record of {id} is complete"), Duration::from_secs(60), || {
        Some(only_record(host, id)).filter(|record| record["outcome"] != "started")
    })
}

/// The groups to which a core's memory and disk traffic are charged: those of the crashed process,
/// in every accounting hierarchy, from before the first byte.
#[test]
fn row_13_the_writer_is_in_the_crashers_groups() {
    let _host = scene::host();
    let target = Fuse::mount();
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, volume) = bundle();
    bundle.annotation(ECI, "/fuse/core").bind(target.path(), "/fuse");
    let container = runtime.start(&bundle, "accounts");
    let groups = |pid: i32| -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        // Where memory has a hierarchy of its own, the group of cgroup v2 accounts for nothing.
        let v1 = text.contains(":memory:");
        let counts = |line: &&str| {
            line.contains(":memory:")
                || line.contains(":blkio:")
                || (!v1 && line.starts_with("0::"))
        };
        text.lines().filter(counts).map(str::to_owned).collect()
    };
    let wanted = groups(container.pid());
    target.on_write(0, Answer::Hold);
    std::thread::scope(|scope| {
        let crashing =
            scope.spawn(|| crash(&container, "1000:1000", "", &["/bin/crasher", "null"]));
        let held = target.wait_held(Duration::from_secs(10));
        let now: Vec<_> = helpers().into_iter().map(groups).collect();
        target.go_on();
        crashing.join().unwrap();
        assert!(held && now.len() == 2 && now.contains(&wanted), "{now:?}, wanted {wanted:?}");
    });
    assert_eq!(names(volume.path()), [] as [&str; 0]);
    println!("groups: {wanted:?}");
}
