//! Small cores (`oci-coredump/keep`): gdb shows the same stacks in them as in the kernel's own core
//! of the same program, whichever way the memory comes.

use crate::Scene;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::bare::Container;
use support::processes::page_size;
use support::require;
use support::stacks::{functions, gdb, names_them, succeed};

/// Mebibytes of the victim's memory.
const SIZE: usize = 64;

/// The functions of the thread that crashed, by gdb.
fn stack(program: &Path, core: &Path) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    functions(&succeed(gdb().args(names_them(dir.path())).arg(program).arg(core)))
}

/// Crashes a victim in a container that asks for small cores, and compares.
fn judge(scene: &Scene, container: &Container, name: &str, keep: &str) -> (PathBuf, Value) {
    let (core, record) = scene.crash(container, name, "random", SIZE);
    assert_eq!(record["keep"], keep, "{record}");
    let full = record["full_size"].as_u64().unwrap();
    assert!(full > (SIZE as u64) << 20, "{record}");
    (core, record)
}

support::cases!(small_cores:
    from_the_process("stacks", "%F"),
    through_the_pipe("stacks", "-"),
    without_the_heap("stacks-only", "%F"),
    without_the_heap_through_the_pipe("stacks-only", "-"),
);

fn small_cores(keep: &str, pidfd: &str) {
    if !require::programs(&["gdb"]) {
        return;
    }
    let scene = Scene::new("");
    let name = "small-core";
    let container = scene.container(name, &[("oci-coredump/keep", keep)]);
    let full = scene.kernels(&container, "random", SIZE);
    let theirs = stack(&scene.victim, &full);
    assert!(!theirs.is_empty() && theirs.iter().any(|f| f == "main"), "{theirs:?}");
    let ours = scene.host.sysctl("kernel/core_pattern");
    scene.host.set("kernel/core_pattern", &ours.replace(" %F ", &format!(" {pidfd} ")));
    let (core, record) = judge(&scene, &container, name, keep);
    scene.host.set("kernel/core_pattern", &ours);
    assert_eq!(stack(&scene.victim, &core), theirs);
    let (small, full) = (core.metadata().unwrap().len(), full.metadata().unwrap().len());
    assert!(small <= full / 20, "{small} of {full} bytes");
    assert_eq!(record["size"], small);
}

/// Compressed, and cut by a limit: as any core.
#[test]
fn compressed_and_limited() {
    if !require::programs(&["zstdcat"]) {
        return;
    }
    let scene = Scene::new("keep = \"stacks\"\n");
    let container = scene.container("small-zstd", &[("oci-coredump/compress", "zstd")]);
    let (core, _) = judge(&scene, &container, "small-zstd", "stacks");
    assert!(core.to_str().unwrap().ends_with(".zst"));
    let bytes = succeed(Command::new("zstdcat").arg(&core)).stdout;
    assert!(bytes.starts_with(b"\x7fELF") && bytes.len() < 2 << 20);

    let most = 2 * page_size();
    let container = scene.container("small-limited", &[("oci-coredump/limit", &most.to_string())]);
    let mut victim = container.victim(&scene.victim, "random", SIZE);
    victim.crash();
    victim.end();
    let record = scene.host.complete_record("small-limited", victim.pid());
    assert_eq!(
        (&record["outcome"], &record["cause"]),
        (&"truncated".into(), &"rlimit-core".into())
    );
    assert!(record["size"].as_u64().unwrap() <= most, "{record}");
    assert_eq!(record["keep"], "stacks");
}
