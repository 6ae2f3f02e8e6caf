//! What must hold after any fault.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, ProgramHeader};
use serde_json::Value;
use tempfile::TempDir;

use support::bare::{self, Container};
use support::host::{Host, STORE};

/// Upper bound for everything that a crash waits for.
pub const BOUND: Duration = Duration::from_secs(20);

/// Whether a core ends where its last segment does.
pub fn is_whole(core: &[u8]) -> bool {
    let Ok(header) = FileHeader64::<LittleEndian>::parse(core) else { return false };
    let Ok(segments) = header.program_headers(LittleEndian, core) else { return false };
    segments
        .iter()
        .map(|segment| segment.p_offset(LittleEndian) + segment.p_filesz(LittleEndian))
        .max()
        == Some(core.len() as u64)
}

/// The record of a crash by its PID on the host.
pub fn record(host: &Host, container: &str, pid: u32) -> Option<Value> {
    host.record_of(container, pid)
}

/// The record of a crash, once it no longer changes.
pub fn settled(host: &Host, container: &str, pid: u32) -> Value {
    host.complete_record(container, pid)
}

/// Every file in the directory has its record, and the record of an incomplete file says so.
pub fn assert_told(host: &Host, container: &str, directory: &Path, what: &str) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let Some(pid) = path.file_name().unwrap().to_str().unwrap().strip_prefix("core.") else {
            continue;
        };
        let record = record(host, container, pid.parse().unwrap())
            .unwrap_or_else(|| panic!("{what}: {path:?} has no record"));
        if !is_whole(&fs::read(&path).unwrap()) {
            assert_eq!(record["truncated"], true, "{what}: {path:?} is short: {record:#}");
        }
        if record["outcome"] == "written" {
            assert_eq!(
                (&record["truncated"], &record["size"]),
                (&false.into(), &path.metadata().unwrap().len().into()),
                "{what}: {record:#}"
            );
        }
    }
}

/// A container beside the one with the fault. Its program is named `calm`, so that a
/// script can distinguish it.
pub struct Calm {
    container: Container,
    directory: TempDir,
    program: PathBuf,
}

impl Calm {
    pub fn new() -> Self {
        let directory = TempDir::with_prefix("calm").unwrap();
        let program = directory.path().join("calm");
        fs::copy(bare::victim(), &program).unwrap();
        let container = Container::new("calm", directory.path(), &[]);
        Self { container, directory, program }
    }

    /// Its core, written now, is complete within the bound.
    pub fn crash(&self, host: &Host, what: &str) {
        let mut victim = self.container.victim(&self.program, "tiny", 0);
        victim.crash();
        assert!(victim.ends_within(BOUND), "{what}: another container's crash hangs");
        let core = self.directory.path().join(format!("core.{}", victim.pid()));
        assert!(
            is_whole(&fs::read(&core).unwrap_or_default()),
            "{what}: another container's core is not whole"
        );
        assert_eq!(settled(host, "calm", victim.pid())["outcome"], "written", "{what}");
        fs::remove_file(core).unwrap();
    }
}

/// Forgets all records, so that the next round's are the only ones.
pub fn forget(directory: &Path) {
    let _ = fs::remove_dir_all(Path::new(STORE).join("records"));
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("core.") {
            fs::remove_file(path).unwrap();
        }
    }
}
