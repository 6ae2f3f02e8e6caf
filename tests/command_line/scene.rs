//! What the tests of the command line name: a store, files of every kind.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_oci-coredump");

/// Things that a person may name, in one directory.
pub struct Scene(pub tempfile::TempDir);

impl Scene {
    pub fn new() -> Self {
        let scene = Scene(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(scene.path("store/records")).unwrap();
        std::fs::create_dir_all(scene.path("empty-store/records")).unwrap();
        std::fs::create_dir(scene.path("directory")).unwrap();
        for (name, text) in [("empty", ""), ("text", "no core"), ("text.tar.zst", "no bundle")] {
            std::fs::write(scene.path(name), text).unwrap();
        }
        std::fs::copy("/bin/true", scene.path("program")).unwrap();
        assert!(Command::new("mkfifo").arg(scene.path("fifo")).status().unwrap().success());
        symlink("/nowhere", scene.path("dangling")).unwrap();
        let record = serde_json::json!({
            "time": "2026-03-10T10:30:00Z", "container_id": "4f3c9a1b2d5e6f708192", "pid": 12,
            "container_name": "web",
            "host_pid": 4711, "tid": 12, "host_tid": 4711,
            "signal": 11, "signal_name": "SIGSEGV", "comm": "nginx", "exe": "/usr/sbin/nginx",
            "uid": 0, "gid": 0, "dump_mode": 1, "pattern": "core",
            "core_path": "/dump/core", "host_path": scene.path("text"), "location": "volume",
            "size": 7, "disk_size": 4096, "truncated": false, "outcome": "written", "reason": null
        });
        let records = scene.path("store/records");
        std::fs::write(records.join("1.jsonl"), serde_json::to_vec(&record).unwrap()).unwrap();
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A command line; `@name` is that path in the scene.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env("TZ", "UTC").stdin(Stdio::null());
        for word in line.split(' ') {
            let scene = format!("{}/", self.0.path().display());
            command.arg(word.replace('@', &scene));
        }
        command
    }

    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
