//! `vacuum` and `metrics` over a hand-written store.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

fn add(store: &Path, name: &str, host_path: &Path, host_dir: &Path, location: &str) {
    let record = serde_json::json!({
        "time": format!("2026-03-1{name}T10:30:00Z"), "container_id": "c1", "pid": 1,
        "host_pid": 1, "tid": 1, "host_tid": 1, "signal": 11,
        "signal_name": "SIGSEGV", "comm": "a", "exe": "/a", "uid": 0, "gid": 0, "dump_mode": 1,
        "pattern": "/d/core", "core_path": "/d/core",
        "host_path": host_path, "host_dir": host_dir, "location": location, "size": 5,
        "disk_size": 4096, "truncated": false, "outcome": "written",
        "reason": null
    });
    std::fs::write(store.join("records").join(format!("{name}.jsonl")), record.to_string())
        .unwrap();
}

fn run(store: &Path, args: &[&str]) -> Output {
    let out = Command::new(env!("CARGO_BIN_EXE_oci-coredump"))
        .args(args)
        .arg("--store")
        .arg(store)
        .output()
        .unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

#[test]
fn cores_in_the_store_go_with_their_records_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let (own, volume) = (store.join("containers/c1"), dir.path().join("volume"));
    for d in [&store.join("records"), &own, &own.join("sub"), &volume] {
        std::fs::create_dir_all(d).unwrap();
    }
    let precious = dir.path().join("precious");
    for f in [&own.join("core.1"), &own.join("sub/core.2"), &volume.join("core.3"), &precious] {
        std::fs::write(f, b"hello").unwrap();
    }
    // Files that a container may put into its directory.
    symlink(dir.path(), own.join("out")).unwrap();
    symlink(&precious, own.join("link")).unwrap();
    add(&store, "0", &own.join("core.1"), &own, "store");
    add(&store, "1", &own.join("sub/core.2"), &own, "store");
    add(&store, "2", &volume.join("core.3"), &volume, "volume");
    add(&store, "3", &own.join("out/precious"), &own, "store");
    add(&store, "4", &own.join("../../../precious"), &own, "store");
    add(&store, "5", &own.join("link"), &own, "store");
    add(&store, "6", &own.join("gone"), &own, "store");

    let said =
        String::from_utf8(run(&store, &["vacuum", "--keep", "0", "--dry-run"]).stdout).unwrap();
    assert!(said.contains("7 of 7 crashes"), "{said}");
    assert!(own.join("core.1").exists());

    let metrics = String::from_utf8(run(&store, &["metrics"]).stdout).unwrap();
    let records = concat!(
        r#"oci_coredump_recorded_crashes{outcome="written",cause="none","#,
        r#"location="store",signal="SIGSEGV"} 6"#
    );
    assert!(metrics.contains(records), "{metrics}");
    assert!(metrics.contains("oci_coredump_store_bytes{kind=\"cores\"} "), "{metrics}");
    let textfile = dir.path().join("a.prom");
    run(&store, &["metrics", "--textfile", textfile.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(textfile).unwrap(), metrics);

    run(&store, &["vacuum", "--max-age", "2026-03-11"]);
    assert!(!own.join("core.1").exists() && own.join("sub/core.2").exists());
    run(&store, &["vacuum", "--keep", "0"]);
    assert!(
        !own.join("sub/core.2").exists() && volume.join("core.3").exists() && precious.exists()
    );
    assert!(std::fs::symlink_metadata(own.join("link")).is_ok(), "a link is no core: it stays");
    assert_eq!(std::fs::read_dir(store.join("records")).unwrap().count(), 0);
}

/// What is kept with a core is removed with the last core that needs it, and what no core needs is
/// removed at once; but not what was kept just now, nor foreign files.
#[test]
fn kept_binaries() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let (own, kept) = (store.join("containers/c1"), store.join("binaries"));
    for d in [&store.join("records"), &own, &kept] {
        std::fs::create_dir_all(d).unwrap();
    }
    let id = |n: u8| format!("{n:040x}-{n:032x}");
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    let keep = |name: &str, age| {
        std::fs::write(kept.join(name), vec![1; 5000]).unwrap();
        if age {
            std::fs::File::options()
                .write(true)
                .open(kept.join(name))
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
    };
    (1..=4).for_each(|n| keep(&id(n), true));
    keep(&id(5), false);
    keep(&format!("{}.new", id(6)), true);
    keep(&format!("{}.new", id(7)), false);
    keep("README", true);
    for (n, needs) in [("0", [1, 2]), ("1", [2, 3]), ("2", [3, 3])] {
        std::fs::write(own.join(n), b"core").unwrap();
        add(&store, n, &own.join(n), &own, "store");
        let path = store.join("records").join(format!("{n}.jsonl"));
        let mut record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        record["binaries"] = serde_json::json!({"/a": id(needs[0]), "/b": id(needs[1])});
        std::fs::write(path, record.to_string()).unwrap();
    }
    let left = || {
        std::fs::read_dir(&kept)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect::<BTreeSet<_>>()
    };
    let all = left();
    let said =
        String::from_utf8(run(&store, &["vacuum", "--keep", "2", "--dry-run"]).stdout).unwrap();
    assert!(said.contains("would remove 1 binaries that no core needs") && left() == all, "{said}");
    // The core of the third crash is removed by hand: then it needs nothing, and
    // its record is no problem.
    run(&store, &["vacuum", "--keep", "2"]);
    let others = || [id(5), format!("{}.new", id(7)), "README".into()];
    assert_eq!(left(), others().into_iter().chain([id(2), id(3)]).collect());
    std::fs::remove_file(own.join("2")).unwrap();
    std::fs::remove_file(store.join("records/1.jsonl")).unwrap();
    run(&store, &["vacuum", "--keep", "9"]);
    assert_eq!(left(), others().into());
    let out = Command::new(env!("CARGO_BIN_EXE_oci-coredump"))
        .args(["list", "--store"])
        .arg(&store)
        .output()
        .unwrap();
    assert!(String::from_utf8(out.stdout).unwrap().contains("missing"));
}

/// A helper that was killed before its first line leaves an empty file, which is removed once it is
/// old. No other file is, nor one that has just been created.
#[test]
fn what_a_killed_helper_left() {
    let dir = tempfile::tempdir().unwrap();
    let (store, records) = (dir.path(), dir.path().join("records"));
    std::fs::create_dir(&records).unwrap();
    let names = ["a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl", "notes"];
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    for name in names {
        let damaged = matches!(name, "c.jsonl" | "d.jsonl");
        std::fs::write(records.join(name), if damaged { "damaged" } else { "" }).unwrap();
        // Somebody may be at work with what is new.
        if !matches!(name, "b.jsonl" | "d.jsonl") {
            std::fs::File::options()
                .write(true)
                .open(records.join(name))
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
    }
    let left =
        || names.iter().filter(|name| records.join(name).exists()).copied().collect::<Vec<_>>();
    run(store, &["vacuum", "--keep", "9", "--dry-run"]);
    assert_eq!(left(), names);
    run(store, &["vacuum", "--keep", "9"]);
    assert_eq!(left(), ["b.jsonl", "d.jsonl", "notes"]);
}

#[test]
fn without_a_rule_nothing_is_removed() {
    let out = Command::new(env!("CARGO_BIN_EXE_oci-coredump"))
        .args(["vacuum", "--store", "/nonexistent"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    let out = Command::new(env!("CARGO_BIN_EXE_oci-coredump"))
        .args(["vacuum", "--max-size", "much", "--store", "/nonexistent"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let rule =
        "'much' for '--max-size <SIZE>': expected a size like 0, 200K, 512Mi, 1.5G or unlimited";
    assert!(said.contains(rule), "{said}");
}
