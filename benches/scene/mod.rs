//! What both benchmarks stand on: a container for the dispatcher, victims in it, and the ways in which their cores are written.

use crate::support::host::{BINARY, Host};
use nix::time::{ClockId, clock_gettime};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// How a core is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The kernel's own file mode: 1.00 in every table.
    Kernel,
    /// The dispatcher.
    Ours,
    /// systemd-coredump, without compression, outside of systemd.
    Systemd,
}

/// A process with a mount namespace of its own, made known to the dispatcher by the real hook: what a container is to it. No OCI runtime is in the way of the
/// measurements.
pub struct Container {
    init: Child,
    directory: PathBuf,
    _bundle: tempfile::TempDir,
}

impl Container {
    /// Cores go to `<directory>/core.PID`.
    pub fn new(name: &str, directory: &Path, annotations: &[(&str, &str)]) -> Self {
        let init = Command::new("unshare").args(["--mount", "--propagation", "private", "sleep", "infinity"]).spawn().expect("unshare");
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        while namespace(&init.id().to_string()) == namespace("self") {
            std::thread::yield_now();
        }
        let bundle = tempfile::tempdir().unwrap();
        let mut wishes = serde_json::json!({ "oci-coredump/pattern": format!("{}/core.%p", directory.display()), "oci-coredump/required": "true" });
        for (key, value) in annotations {
            wishes[*key] = (*value).into();
        }
        let config = serde_json::json!({ "ociVersion": "1.0.2", "root": { "path": "/" }, "annotations": wishes });
        std::fs::write(bundle.path().join("config.json"), config.to_string()).unwrap();
        let state = serde_json::json!({ "ociVersion": "1.0.2", "id": name, "status": "creating", "pid": init.id(), "bundle": bundle.path() });
        let mut hook = Command::new(BINARY).args(["hook", "createRuntime"]).stdin(Stdio::piped()).spawn().unwrap();
        hook.stdin.take().unwrap().write_all(state.to_string().as_bytes()).unwrap();
        assert!(hook.wait().unwrap().success(), "the hook refused the benchmark's container");
        Container { init, directory: directory.to_owned(), _bundle: bundle }
    }

    /// A victim, ready to crash.
    pub fn victim(&self, program: &Path, kind: &str, size: usize) -> Victim {
        let line = format!("ulimit -c unlimited; exec nsenter --mount --target {} -- {} {kind} {size}", self.init.id(), program.display());
        let mut child = Command::new("sh").args(["-c", &line]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        output.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "the victim {kind} {size} did not get ready");
        let core = self.directory.join(format!("core.{}", child.id()));
        Victim { child, output, core }
    }

    /// Where its cores go.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

/// A process that waits for the word to crash.
pub struct Victim {
    child: Child,
    output: BufReader<ChildStdout>,
    core: PathBuf,
}

/// What one crash took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// From the fatal signal until the parent's wait returns.
    pub held: Duration,
    /// Size of the core.
    pub size: u64,
    /// Bytes on disk.
    pub disk: u64,
}

/// Nanoseconds of the monotonic clock.
pub fn now() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos() as u64
}

impl Victim {
    /// Gives the word.
    pub fn crash(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    }

    /// Waits for its end: when it died and when that was known, in nanoseconds.
    pub fn end(&mut self) -> (u64, u64) {
        let status = self.child.wait().unwrap();
        let end = now();
        assert!(!status.success());
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        (text.trim().parse().unwrap_or_else(|_| panic!("the victim said {text:?}")), end)
    }

    /// Crashes it and looks at the core, which is then removed unless it shall be kept.
    pub fn sample(mut self, method: Method) -> Sample {
        self.crash();
        let (start, end) = self.end();
        let held = Duration::from_nanos(end - start);
        if method == Method::Systemd {
            return Sample { held, ..Sample::default() };
        }
        let meta = std::fs::metadata(&self.core).unwrap_or_else(|e| panic!("{method:?} left no core {}: {e}", self.core.display()));
        std::fs::remove_file(&self.core).unwrap();
        Sample { held, size: meta.size(), disk: meta.blocks() * 512 }
    }

    /// Where its core goes.
    pub fn core(&self) -> &Path {
        &self.core
    }
}

/// Sets the kernel up for a method. `ours`: the pattern that the hook has set.
pub fn choose(host: &Host, method: Method, directory: &Path, ours: &str) {
    let pattern = match method {
        Method::Kernel => format!("{}/core.%p", directory.display()),
        Method::Ours => ours.to_owned(),
        Method::Systemd => "|/lib/systemd/systemd-coredump %P %u %g %s %t 9223372036854775808 %h".to_owned(),
    };
    host.set("kernel/core_pattern", &pattern);
}

/// Touches and frees memory, so that no method pays for what the machine has not given yet.
pub fn warm(bytes: usize) {
    let mut memory = vec![0u8; bytes + bytes / 8];
    memory.iter_mut().step_by(4096).for_each(|b| *b = 1);
    std::hint::black_box(&memory);
}

/// Median, least and most.
pub fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

/// Compiles `benches/<name>.c`.
pub fn compile(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(format!("{name}.c"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let status = Command::new("gcc").args(["-O2", "-static", "-pthread", "-o"]).args([&program, &source]).status().expect("gcc");
    assert!(status.success(), "gcc {}", source.display());
    program
}
