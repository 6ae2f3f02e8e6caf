//! cgroup v2 alone, without any hierarchy of v1: what a core takes is the pod's.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::DEBIAN;
use crate::stage::{self, CORE, run};
use support::host::{BINARY, Host};
use support::runtime::{Kind, Runtime};
use support::scene::{self, only_record};
use support::wait::wait_for;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 64 * MIB;

/// The cgroup of a process, in a hierarchy of version 2.
fn group(pid: i32) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text
        .trim()
        .strip_prefix("0::/")
        .unwrap_or_else(|| panic!("this is not cgroup v2 alone: {text}"));
    Path::new("/sys/fs/cgroup").join(path)
}

fn number(group: &Path, file: &str) -> u64 {
    fs::read_to_string(group.join(file)).unwrap().trim().parse().unwrap()
}

fn event(group: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(group.join("memory.events")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap()
}

/// Memory that all file systems in memory take, in bytes.
fn in_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    text.lines()
        .find_map(|line| {
            line.strip_prefix("Shmem:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        })
        .unwrap()
        * 1024
}

fn settled(host: &Host, id: &str) -> Value {
    wait_for(&format!("that the record of {id} is complete"), Duration::from_secs(60), || {
        Some(only_record(host, id)).filter(|record| record["outcome"] != "started")
    })
}

/// Whether one of the group's processes runs the product.
fn has_writer(group: &Path) -> bool {
    let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    processes.lines().any(|pid| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(BINARY))
    })
}

/// A volume in memory, a process that fills most of what the pod may have, and a core of the same
/// size: together they are more.
#[test]
fn row_13_core_beyond_memory_max() {
    DEBIAN.run(|| {
        let host = scene::host();
        let runtime = Runtime::new(Kind::Runc);
        let (mut bundle, _volume) = stage::bundle("/memory/core", &[]);
        bundle.args(&["/bin/sleep", "1000"]).tmpfs("/memory", 512 * MIB);
        bundle.config["linux"]["resources"]["memory"] = json!({ "limit": LIMIT, "swap": LIMIT });
        let container = runtime.start(&bundle, "greedy");
        let group = group(container.pid());
        assert_eq!(number(&group, "memory.max"), LIMIT);
        let (before, over) = (in_memory(), AtomicBool::new(false));
        let seen = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut seen = false;
                while !over.load(Ordering::SeqCst) {
                    seen |= has_writer(&group);
                    // no event: a group can only be looked at
                    std::thread::sleep(Duration::from_millis(1));
                }
                seen
            });
            container.exec(&[
                "/bin/parent",
                "--core",
                "unlimited",
                "--",
                "/bin/crasher",
                "--fill",
                "44",
                "null",
            ]);
            over.store(true, Ordering::SeqCst);
            watcher.join().unwrap()
        });
        let record = settled(&host, "greedy");
        assert!(seen, "no writer was in {group:?}: {record:#}");
        assert_eq!(record["outcome"], "truncated", "{record:#}");
        assert!(record["reason"].as_str().unwrap().contains("memory limit"), "{record:#}");
        assert!(number(&group, "memory.peak") <= LIMIT);
        assert!(event(&group, "oom_kill") >= 1, "nothing of the group was killed: {record:#}");
        assert_eq!(
            container.status(),
            "running",
            "an innocent process of the pod was killed: {record:#}"
        );
        let used: u64 =
            container.sh("du -k /memory | cut -f 1").trim().parse::<u64>().unwrap() * 1024;
        assert!(
            used < LIMIT - 44 * MIB + MIB,
            "{used} bytes are in the pod's memory beside the process"
        );
        let more = in_memory().saturating_sub(before);
        assert!(
            more < LIMIT - 44 * MIB + 2 * MIB,
            "{more} bytes more than before are in the machine's memory"
        );
        container.remove();
        // The neighbour has not noticed.
        let (calm, volume) = stage::bundle("/dump/core", &["/bin/crasher", "null"]);
        run(&calm, "calm");
        assert!(support::core_bytes::whole(&fs::read(volume.path().join(CORE)).unwrap()));
    });
}
