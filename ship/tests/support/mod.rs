//! A store with crashes, the program, and real servers of object storage on this machine.

pub mod hostile;
pub mod http;
pub mod inside;
pub mod proxy;
#[path = "../../../integration/support/require.rs"]
pub mod require;
pub mod servers;
pub mod sigv4;
pub mod tls;
#[path = "../../../integration/support/wait.rs"]
pub mod wait;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Fills memory that does not compress, and dies.
const PROGRAM: &str = r#"
#include <stdint.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    size_t words = (size_t)atol(argv[1]) << 17;
    uint64_t *all = malloc(words * 8 + 8), x = 88172645463325252u;
    for (size_t i = 0; i < words; i++) {
        x ^= x << 13; x ^= x >> 7; x ^= x << 17;
        all[i] = x;
    }
    abort();
}
"#;

pub fn succeed(command: &mut Command) -> Output {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

/// A store with one crash whose core is in it.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub core: PathBuf,
    /// Path in the container and name in the store of each kept executable and library.
    binaries: Value,
}

/// The ID of the first crash.
pub const ID: &str = "20260310T103000Z-4711-4f3c9a1b2d5e";

impl Fixture {
    /// `mib`: memory of the process that does not compress.
    pub fn new(mib: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(dir.path().join("program.c"), PROGRAM).unwrap();
        succeed(
            Command::new("gcc").arg("-g").arg(dir.path().join("program.c")).arg("-o").arg(&program),
        );
        let cores = dir.path().join("store/containers/4f3c9a1b2d5e6f708192");
        std::fs::create_dir_all(&cores).unwrap();
        std::fs::create_dir_all(dir.path().join("store/records")).unwrap();
        let core = cores.join("core.12");
        let gdb = ["-nx", "-q", "-batch", "-iex", "set debuginfod enabled off", "-ex", "run"];
        succeed(
            Command::new("gdb")
                .args(gdb)
                .args(["-ex", &format!("generate-core-file {}", core.display())])
                .arg("--args")
                .arg(&program)
                .arg(mib.to_string()),
        );
        let mut fixture = Fixture { core, dir, binaries: json!({}) };
        fixture.add(ID, json!({}));
        fixture.keep_binaries();
        fixture.add(ID, json!({}));
        fixture
    }

    /// As the dispatcher does after a crash.
    fn keep_binaries(&mut self) {
        let kept = self.path("store/binaries");
        std::fs::create_dir(&kept).unwrap();
        let told = self.helper("info", &["--json"]).stdout;
        let told: Value = serde_json::from_slice(&told).unwrap();
        for module in told["core"]["modules"].as_array().unwrap() {
            let (id, path) = (module["build_id"].as_str(), module["path"].as_str().unwrap());
            if let Some(id) = id.filter(|_| path.starts_with('/')) {
                let name = format!("{id}-{:032x}", 0);
                std::fs::copy(path, kept.join(&name)).unwrap();
                self.binaries[path] = name.into();
            }
        }
    }

    /// Writes a record, with these members changed.
    pub fn add(&self, id: &str, changes: Value) {
        let mut record = json!({
            "time": "2026-03-10T10:30:00Z", "container_id": "4f3c9a1b2d5e6f708192",
            "container_name": "web", "pod_name": "shop-0", "pod_namespace": "prod", "pid": 12,
            "host_pid": 4711, "tid": 12, "host_tid": 4711, "signal": 6, "signal_name": "SIGABRT",
            "comm": "program", "exe": self.path("program"), "uid": 0, "gid": 0, "dump_mode": 1,
            "pattern": "/dump/core", "core_path": "/dump/core.12", "host_path": self.core,
            "host_dir": self.core.parent().unwrap(), "location": "store", "truncated": false,
            "outcome": "written", "size": self.core.metadata().map_or(0, |m| m.len()),
            "disk_size": null, "reason": null, "binaries": self.binaries
        });
        for (key, value) in changes.as_object().unwrap() {
            record[key] = value.clone();
        }
        std::fs::write(self.path(&format!("store/records/{id}.jsonl")), record.to_string() + "\n")
            .unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the configuration: `[upload]` with `text`.
    pub fn configure(&self, text: &str) {
        let text = format!(
            "store = {:?}\n[upload]\nstate = {:?}\n{text}\n",
            self.path("store"),
            self.path("state")
        );
        std::fs::write(self.path("config.toml"), text).unwrap();
    }

    /// The program; `key` is a server's.
    pub fn ship(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oci-coredump-ship"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("AWS_ACCESS_KEY_ID", servers::KEY)
            .env("AWS_SECRET_ACCESS_KEY", servers::SECRET)
            .arg("--config")
            .arg(self.path("config.toml"))
            .args(args);
        command
    }

    /// Runs it until the first part is there, and kills it.
    pub fn kill_after_a_part(&self, mut command: Command) {
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        let parts = self.path(&format!("state/{ID}.parts"));
        let is_there = || std::fs::read_to_string(&parts).is_ok_and(|t| t.contains("sha256"));
        wait::wait_for("a part", std::time::Duration::from_secs(300), || {
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
            is_there()
        });
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn once(&self) -> Output {
        self.ship(&["run", "--once", "--node", "n1"]).output().unwrap()
    }

    /// Runs until there is nothing to do.
    pub fn all(&self) -> Output {
        succeed(&mut self.ship(&["run", "--once", "--node", "n1"]))
    }

    /// The helper, as a person runs it.
    pub fn helper(&self, verb: &str, args: &[&str]) -> Output {
        succeed(Command::new(helper()).arg(verb).arg("--store").arg(self.path("store")).args(args))
    }

    /// The bundle as `export` writes it.
    pub fn bundle(&self) -> Vec<u8> {
        self.helper("export", &["-o", "-"]).stdout
    }

    pub fn state(&self) -> Value {
        let text = std::fs::read(self.path(&format!("state/{ID}.json"))).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// The helper beside the program: `make test-ship` makes both.
pub fn helper() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_oci-coredump-ship")).with_file_name("oci-coredump");
    assert!(path.is_file(), "{} is missing: make test-ship", path.display());
    path
}

pub fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
