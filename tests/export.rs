//! `export` and `debug`: a crash whose program is gone by then, opened from the kept binaries and from a bundle.

#[allow(dead_code)]
mod stacks;

use stacks::{build, dump, require, succeed};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A store with one record, its core on a volume, its executable among the kept binaries, and nowhere else.
struct Crash {
    dir: tempfile::TempDir,
    core: PathBuf,
}

impl Crash {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = build(dir.path(), "program", &["gcc", "-g", "-O1", "-pthread"], "crash.c");
        let core = dump(dir.path(), &program, &["a"], false);
        let volume = dir.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        let kept = dir.path().join("store/binaries");
        std::fs::create_dir_all(&kept).unwrap();
        std::fs::create_dir_all(dir.path().join("store/records")).unwrap();
        std::fs::rename(&core, volume.join("core.12")).unwrap();
        let crash = Crash { core: volume.join("core.12"), dir };
        let mut record = serde_json::json!({
            "time": "2026-03-10T10:30:00Z", "container_id": "4f3c9a1b2d5e6f708192", "pid": 12, "host_pid": 4711, "tid": 12, "host_tid": 4711,
            "signal": 11, "signal_name": "SIGSEGV", "comm": "program", "exe": program, "uid": 0, "gid": 0, "dump_mode": 1, "pattern": "/dump/core",
            "core_path": "/dump/core.12", "host_path": crash.core, "host_dir": volume, "location": "volume", "truncated": false, "outcome": "written",
            "size": crash.core.metadata().unwrap().len(), "disk_size": null, "reason": null
        });
        let write = |record: &serde_json::Value| {
            std::fs::write(crash.path("store/records/1.jsonl"), record.to_string()).unwrap()
        };
        write(&record);
        let told: serde_json::Value =
            serde_json::from_slice(&crash.run("info", &["--json"]).stdout).unwrap();
        for module in told["core"]["modules"].as_array().unwrap() {
            if let (Some(id), Some(path)) = (
                module["build_id"].as_str(),
                module["path"].as_str().filter(|p| p.starts_with('/')),
            ) {
                let name = format!("{id}-{:032x}", 0);
                std::fs::copy(path, kept.join(&name)).unwrap();
                record["binaries"][path] = name.into();
            }
        }
        write(&record);
        std::fs::remove_file(program).unwrap();
        crash
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oci-coredump"));
        command.arg(verb).arg("--store").arg(self.path("store")).args(args);
        command
    }

    fn run(&self, verb: &str, args: &[&str]) -> Output {
        succeed(&mut self.command(verb, args))
    }

    fn export(&self, name: &str, args: &[&str]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        self.run("export", &[args, &["-o", path.to_str().unwrap()]].concat());
        path
    }
}

const BACKTRACE: [&str; 6] = ["-A", "-batch", "-A", "-ex", "-A", "bt"];

fn has_stack(out: &Output) {
    let text = String::from_utf8_lossy(&out.stdout);
    let mut at = 0;
    for function in ["innermost (n=", "middle (n=", "main ("] {
        at += text[at..].find(function).unwrap_or_else(|| {
            panic!("{function}: {text}{}", String::from_utf8_lossy(&out.stderr))
        });
    }
}

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

    // Started by root, gdb is nobody: it may be led by what a container wrote. Its settings and its directory are its own.
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        let ids = [
            "-A",
            "-batch",
            "-A",
            "-ex",
            "-A",
            "python import os; print('IDS', os.getresuid(), os.getresgid(), os.getgroups(), os.environ['HOME'])",
        ];
        let told = |args: &[&str]| {
            String::from_utf8(crash.run("debug", &[&ids, args].concat()).stdout).unwrap()
        };
        let line = told(&[]);
        assert!(
            line.contains(
                "IDS (65534, 65534, 65534) (65534, 65534, 65534) [] /var/tmp/oci-coredump-"
            ),
            "{line}"
        );
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

    // Elsewhere, with nothing but gdb.
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
    assert!(String::from_utf8_lossy(&crash.run("info", &[]).stdout).contains("innermost at "));
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

/// A core can name any build-id. Its owner gets only the kept files that the crashed process could read itself, as its record has them.
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
