//! The ways to write a core (the fast lane, early release, compressed) against the kernel's own
//! file mode: the same memory, byte for byte. Needs root. A process with its own mount namespace
//! stands for the container, registered by the real hook.

mod lanes {
    pub mod early;
    pub mod falls_back;
    pub mod identical;
    pub mod narrow;
    pub mod reduced;
    pub mod template;
}

use lanes::{narrow, template};
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, Object};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::bare::{self, Container};
use support::host::Host;
use tempfile::TempDir;

/// How long a core may take after its process is gone.
const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    victim: PathBuf,
    directory: TempDir,
    host: Host,
}

impl Scene {
    fn new(configuration: &str) -> Self {
        let host = Host::installed(configuration);
        Scene { victim: bare::victim(), directory: TempDir::with_prefix("lanes").unwrap(), host }
    }

    fn container(&self, name: &str, annotations: &[(&str, &str)]) -> Container {
        Container::new(name, self.directory.path(), annotations)
    }

    /// Crashes a victim of the container, and waits until the record says what became of its core.
    fn crash(
        &self,
        container: &Container,
        name: &str,
        kind: &str,
        size: usize,
    ) -> (PathBuf, Value) {
        let mut victim = container.victim(&self.victim, kind, size);
        victim.crash();
        victim.end();
        // As the record writes it: in UTC, to the millisecond.
        let ended = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        assert!(
            self.host.record_of(name, victim.pid()).is_some(),
            "the record is there before the process has gone"
        );
        let record = self.host.complete_record(name, victim.pid());
        assert_eq!(record["outcome"], "written", "{record}");
        let released = record["released_at"].as_str().unwrap_or_default();
        assert!(released <= ended.as_str(), "released at {released}, but gone by {ended}");
        (record["core_path"].as_str().unwrap().into(), record)
    }

    /// The core that the kernel itself writes of the same victim.
    fn kernels(&self, container: &Container, kind: &str, size: usize) -> PathBuf {
        let ours = self.host.sysctl("kernel/core_pattern");
        self.host
            .set("kernel/core_pattern", &format!("{}/core.%p", self.directory.path().display()));
        let mut victim = container.victim(&self.victim, kind, size);
        victim.crash();
        victim.end();
        self.host.set("kernel/core_pattern", &ours);
        victim.core().to_owned()
    }
}

/// The memory that the victim filled: the largest mapping of the core. Its address differs from run
/// to run, its content does not.
fn memory(core: &Path) -> Vec<u8> {
    let bytes = std::fs::read(core).unwrap();
    let elf = ElfFile64::<Endianness>::parse(bytes.as_slice())
        .unwrap_or_else(|e| panic!("{}: {e}", core.display()));
    let endian = elf.endianness();
    let largest = elf.elf_program_headers().iter().max_by_key(|p| p.p_filesz(endian)).unwrap();
    largest
        .data(endian, bytes.as_slice())
        .unwrap_or_else(|()| panic!("{} is short", core.display()))
        .to_vec()
}

fn assert_same(kernel: &Path, ours: &Path, what: &str) {
    let (theirs, ours_memory) = (memory(kernel), memory(ours));
    assert!(theirs.len() >= 16 << 20, "{what}: the victim's memory was not found");
    let differs = theirs.iter().zip(&ours_memory).position(|(a, b)| a != b);
    assert_eq!(
        (theirs.len(), differs),
        (ours_memory.len(), None),
        "{what}: size, and the first byte that differs"
    );
    assert_eq!(
        std::fs::metadata(kernel).unwrap().len(),
        std::fs::metadata(ours).unwrap().len(),
        "{what}: size of the core"
    );
}

support::cases!(the_fast_lane: random("random", 32), text("text", 32), scattered("scattered", 64));

fn the_fast_lane(kind: &str, size: usize) {
    let scene = Scene::new("");
    let container = scene.container("lane", &[]);
    let (core, record) = scene.crash(&container, "lane", kind, size);
    assert_eq!(record.get("released_at"), None, "nobody asked for that");
    assert_same(&scene.kernels(&container, kind, size), &core, kind);
}

support::cases!(early_release: random("random", 32), text("text", 32), scattered("scattered", 64));

fn early_release(kind: &str, size: usize) {
    let scene = Scene::new("allow_early_release = true\n");
    let container = scene.container("early", &[("oci-coredump/release", "early")]);
    let (core, record) = scene.crash(&container, "early", kind, size);
    let at = |key: &str| {
        record[key].as_str().unwrap_or_else(|| panic!("{kind}: no {key}: {record}")).to_owned()
    };
    assert!(at("released_at") <= at("completed_at"), "{record}");
    assert_same(&scene.kernels(&container, kind, size), &core, kind);
}

/// A core too small for the fast lane is whole before its process goes.
#[test]
fn early_release_of_a_small_core() {
    let scene = Scene::new("allow_early_release = true\n");
    let container = scene.container("early", &[("oci-coredump/release", "early")]);
    let (core, record) = scene.crash(&container, "early", "tiny", 0);
    assert_eq!(record.get("released_at"), None);
    assert!(core.exists());
}

#[test]
fn early_release_is_the_administrators_to_allow() {
    let scene = Scene::new("");
    let container = scene.container("early", &[("oci-coredump/release", "early")]);
    let (core, record) = scene.crash(&container, "early", "random", 32);
    assert_eq!(record.get("released_at"), None);
    assert_same(&scene.kernels(&container, "random", 32), &core, "random");
}

support::cases!(compressed: random("random", 32), text("text", 32), scattered("scattered", 64));

fn compressed(kind: &str, size: usize) {
    let scene = Scene::new("");
    let container = scene.container("zstd", &[("oci-coredump/compress", "zstd")]);
    let (core, _) = scene.crash(&container, "zstd", kind, size);
    assert_eq!(core.extension().and_then(|e| e.to_str()), Some("zst"));
    let plain = scene.directory.path().join("plain");
    let unpacked = Command::new("zstd")
        .args(["--decompress", "--force", "--quiet", "-o"])
        .arg(&plain)
        .arg(&core)
        .status()
        .expect("zstd");
    assert!(unpacked.success(), "zstd cannot read {}", core.display());
    assert_same(&scene.kernels(&container, kind, size), &plain, kind);
    if kind != "random" {
        assert!(
            core.metadata().unwrap().len() < plain.metadata().unwrap().len() / 2,
            "{kind} was not compressed"
        );
    }
}

/// The limit counts what goes in, and the frame can be read all the same.
#[test]
fn compressed_up_to_the_limit() {
    let scene = Scene::new("");
    let container = scene
        .container("zstd", &[("oci-coredump/compress", "zstd"), ("oci-coredump/limit", "4Mi")]);
    let mut victim = container.victim(&scene.victim, "random", 32);
    victim.crash();
    victim.end();
    let record = scene.host.records_of("zstd").pop().unwrap();
    assert_eq!(record["outcome"], "truncated", "{record}");
    let plain = scene.directory.path().join("plain");
    let core = record["core_path"].as_str().unwrap();
    assert!(
        Command::new("zstd")
            .args(["--decompress", "--force", "--quiet", "-o"])
            .arg(&plain)
            .arg(core)
            .status()
            .expect("zstd")
            .success()
    );
    let size = plain.metadata().unwrap().len();
    assert!(
        (3 << 20..=16 << 20).contains(&size),
        "{size} bytes of 4 MiB that may be emitted, and the holes among them"
    );
}
