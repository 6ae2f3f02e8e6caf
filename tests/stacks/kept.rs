//! A crash whose program is gone by then, as `export` and `debug` find it.

use std::path::PathBuf;
use std::process::{Command, Output};
use support::stacks::{build, dump, succeed};

/// A store with one record, its core on a volume, its executable among the kept
/// binaries, and nowhere else.
pub struct Crash {
    pub dir: tempfile::TempDir,
    pub core: PathBuf,
}

impl Crash {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = build(dir.path(), "program", &["gcc", "-g", "-O1", "-pthread"], "crash.c");
        let core = dump(dir.path(), &program, &["a"], &[]);
        let volume = dir.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        let kept = dir.path().join("store/binaries");
        std::fs::create_dir_all(&kept).unwrap();
        std::fs::create_dir_all(dir.path().join("store/records")).unwrap();
        std::fs::rename(&core, volume.join("core.12")).unwrap();
        let crash = Crash { core: volume.join("core.12"), dir };
        let mut record = serde_json::json!({
            "time": "2026-03-10T10:30:00Z", "container_id": "4f3c9a1b2d5e6f708192", "pid": 12,
            "host_pid": 4711, "tid": 12, "host_tid": 4711,
            "signal": 11, "signal_name": "SIGSEGV", "comm": "program", "exe": program, "uid": 0,
            "gid": 0, "dump_mode": 1, "pattern": "/dump/core",
            "core_path": "/dump/core.12", "host_path": crash.core, "host_dir": volume,
            "location": "volume", "truncated": false, "outcome": "written",
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oci-coredump"));
        command.arg(verb).args(args);
        // A bundle is in no store.
        if verb == "export" || !args.iter().any(|arg| arg.ends_with(".tar.zst")) {
            command.arg("--store").arg(self.path("store"));
        }
        command
    }

    pub fn run(&self, verb: &str, args: &[&str]) -> Output {
        succeed(&mut self.command(verb, args))
    }

    pub fn export(&self, name: &str, args: &[&str]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        self.run("export", &[args, &["-o", path.to_str().unwrap()]].concat());
        path
    }
}

pub const BACKTRACE: [&str; 6] = ["-A", "-batch", "-A", "-ex", "-A", "bt"];

pub fn has_stack(out: &Output) {
    let text = String::from_utf8_lossy(&out.stdout);
    let mut at = 0;
    for function in ["innermost (n=", "middle (n=", "main ("] {
        at += text[at..].find(function).unwrap_or_else(|| {
            panic!("{function}: {text}{}", String::from_utf8_lossy(&out.stderr))
        });
    }
}
