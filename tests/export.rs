//! `export` and `debug`: opens a crash whose program is gone, from the kept
//! binaries and from a bundle.

#[path = "stacks/kept.rs"]
#[allow(dead_code)]
mod kept;

use kept::{BACKTRACE, Crash, has_stack};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use support::require;
use support::stacks::succeed;

#[test]
fn a_crash_whose_container_is_gone() {
    if !require::programs(&["gdb", "gcc", "tar", "zstd"]) {
        return;
    }
    let crash = Crash::new();
    let text = String::from_utf8(crash.run("info", &["program"]).stdout).unwrap();
    assert!(
        text.contains("innermost at ")
            && text.contains("/dump/core.12 (present)")
            && text.contains("kept"),
        "{text}"
    );
    has_stack(&crash.run("debug", &BACKTRACE));

    // If root starts it, gdb runs under a user ID that nothing else has, since a
    // container's files may take it over.
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        let ids = [
            "-A",
            "-batch",
            "-A",
            "-ex",
            "-A",
            "python import os; print('IDS', os.getresuid(), os.getresgid(), os.getgroups(), \
             os.environ['HOME'])",
        ];
        let told = |args: &[&str]| {
            String::from_utf8(crash.run("debug", &[&ids, args].concat()).stdout).unwrap()
        };
        let line = told(&[]);
        let own = line.split("IDS (").nth(1).and_then(|l| l.split(',').next()).unwrap_or_default();
        let uid: u32 = own.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!((2_147_450_880..2_147_451_904).contains(&uid), "{line}");
        let expected = format!(
            "IDS ({uid}, {uid}, {uid}) ({uid}, {uid}, {uid}) [] /var/tmp/oci-coredump-debug-"
        );
        assert!(line.contains(&expected), "{line}");
        assert!(told(&["--as-root"]).contains("IDS (0, 0, 0)"));
        has_stack(&crash.run("debug", &[&["--as-root"], &BACKTRACE[..]].concat()));
    }

    // The same bytes each time, for the owner only.
    let bundle = crash.export("a/b.tar.zst", &[]);
    assert!(
        std::fs::read(&bundle).unwrap()
            == std::fs::read(crash.export("c/b.tar.zst", &["pid=12"])).unwrap()
    );
    assert_eq!(bundle.metadata().unwrap().mode() & 0o777, 0o600);
    has_stack(&crash.run("debug", &[&[bundle.to_str().unwrap()], &BACKTRACE[..]].concat()));
    let info = crash.run("info", &[bundle.to_str().unwrap(), "--json"]).stdout;
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    assert!(info["pid"] == 12 && !info["stacks"].as_array().unwrap().is_empty(), "{info}");
    let shown = String::from_utf8(crash.run("info", &[bundle.to_str().unwrap()]).stdout).unwrap();
    assert!(shown.contains(&format!("Next: oci-coredump debug {}", bundle.display())), "{shown}");

    // Opened elsewhere, with only gdb.
    let there = crash.path("there");
    std::fs::create_dir(&there).unwrap();
    succeed(Command::new("tar").arg("-C").arg(&there).args(["--zstd", "-xf"]).arg(&bundle));
    std::fs::remove_dir_all(crash.path("store")).unwrap();
    has_stack(&succeed(Command::new(there.join("b/gdb.sh")).args(["-nx", "-batch", "-ex", "bt"])));
    assert!(std::fs::read(there.join("b/core")).unwrap() == std::fs::read(&crash.core).unwrap());
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(there.join("b/record.json")).unwrap()).unwrap();
    assert_eq!(record["pid"], 12);
    assert!(std::fs::read_to_string(there.join("b/README")).unwrap().contains("SIGSEGV"));
}

#[test]
fn the_core_alone_and_compressed_ones() {
    if !require::programs(&["gdb", "gcc", "zstd"]) {
        return;
    }
    let crash = Crash::new();
    let whole = std::fs::read(&crash.core).unwrap();
    let alone = crash.export("alone", &["--core-only"]);
    assert!(std::fs::read(&alone).unwrap() == whole);
    assert!(
        alone.metadata().unwrap().blocks() * 512 < whole.len() as u64 / 2,
        "its holes were filled"
    );
    // As the dispatcher writes it where a container asks for that.
    succeed(
        Command::new("zstd")
            .args(["-q", "--rm", "-f"])
            .arg(&crash.core)
            .arg("-o")
            .arg(crash.path("packed")),
    );
    std::fs::rename(crash.path("packed"), &crash.core).unwrap();
    assert!(std::fs::read(crash.export("again", &["--core-only"])).unwrap() == whole);
    let info = crash.run("info", &[]).stdout;
    let info = String::from_utf8_lossy(&info);
    assert!(info.contains("innermost at ") && info.contains(", compressed to "), "{info}");
    has_stack(&crash.run("debug", &BACKTRACE));
}

#[test]
fn failures_leave_no_file() {
    if !require::programs(&["gdb", "gcc"]) {
        return;
    }
    let crash = Crash::new();
    let fails = |crash: &Crash, verb: &str, args: &[&str], says: &str| {
        let out = crash.command(verb, args).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            out.status.code() == Some(1) && said.contains(says) && said.lines().count() == 1,
            "{verb} {args:?}: {said}"
        );
    };
    let output = crash.path("out");
    let o = output.to_str().unwrap();
    fails(&crash, "export", &["nobody", "-o", o], "no crash in ");
    fails(&crash, "debug", &["--debugger", "/nonexistent/gdb"], "start /nonexistent/gdb: ");
    std::fs::write(crash.path("x.tar.zst"), b"hello").unwrap();
    fails(&crash, "debug", &[crash.path("x.tar.zst").to_str().unwrap()], "unpack ");
    std::fs::write(&crash.core, b"no core").unwrap();
    fails(&crash, "export", &["-o", o], "it is not an ELF file");
    std::fs::remove_file(&crash.core).unwrap();
    fails(&crash, "export", &["-o", o], "the core of process 12 is missing");
    assert!(!Path::new(o).exists());
    let left = std::fs::read_dir(crash.dir.path())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".tmp"))
        .count();
    assert_eq!(left, 0);
}

/// A core can name any build-id. Its owner gets only the kept files that the crashed process itself
/// could read, as listed in its record.
#[test]
fn kept_files_of_others_stay_out() {
    if !require::programs(&["gdb", "gcc", "tar", "zstd"]) {
        return;
    }
    let crash = Crash::new();
    let record = crash.path("store/records/1.jsonl");
    let mut told: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    let own = told["exe"].as_str().unwrap().to_owned();
    told["binaries"].as_object_mut().unwrap().remove(&own).unwrap();
    std::fs::write(&record, told.to_string()).unwrap();
    let bundle = crash.export("b.tar.zst", &[]);
    let list =
        String::from_utf8(succeed(Command::new("tar").args(["--zstd", "-tf"]).arg(&bundle)).stdout)
            .unwrap();
    assert!(list.contains("libc.so") && !list.contains(&format!("root{own}")), "{list}");
    assert!(!String::from_utf8(crash.run("info", &[]).stdout).unwrap().contains("innermost"));
}
