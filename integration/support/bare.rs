//! A container without a runtime: a process with a mount namespace of its own, registered by the
//! real hook. And victims in it, which are children of the test, so that it sees how they end.

use crate::crasher;
use crate::host::BINARY;
use crate::wait::{ends_within, wait_for};
use nix::time::{ClockId, clock_gettime};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A process with a mount namespace of its own, registered by the real hook: all that the
/// dispatcher needs of a container. No OCI runtime disturbs the measurements.
pub struct Container {
    init: Child,
    directory: PathBuf,
    _bundle: tempfile::TempDir,
}

impl Container {
    /// Cores go to `<directory>/core.PID`.
    pub fn new(name: &str, directory: &Path, annotations: &[(&str, &str)]) -> Self {
        let init = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sleep", "infinity"])
            .spawn()
            .expect("unshare");
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        wait_for("the container's mount namespace", Duration::from_secs(20), || {
            namespace(&init.id().to_string()) != namespace("self")
        });
        // A file, so that the host's store is not mounted over the directory and the test finds the
        // cores under the same path.
        std::fs::write(directory.join("not-empty"), "").unwrap();
        let bundle = tempfile::tempdir().unwrap();
        let mut wishes = serde_json::json!({
            "oci-coredump/pattern": format!("{}/core.%p", directory.display()),
            "oci-coredump/required": "true",
        });
        for (key, value) in annotations {
            wishes[*key] = (*value).into();
        }
        let config = serde_json::json!({
            "ociVersion": "1.0.2", "root": { "path": "/" }, "annotations": wishes,
        });
        std::fs::write(bundle.path().join("config.json"), config.to_string()).unwrap();
        let state = serde_json::json!({
            "ociVersion": "1.0.2", "id": name, "status": "creating", "pid": init.id(),
            "bundle": bundle.path(),
        });
        let mut hook = Command::new(BINARY)
            .args(["hook", "createRuntime"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        hook.stdin.take().unwrap().write_all(state.to_string().as_bytes()).unwrap();
        assert!(hook.wait().unwrap().success(), "the hook refused the container");
        Container { init, directory: directory.to_owned(), _bundle: bundle }
    }

    /// A command in the container: `nsenter`, to which the program is still to be added.
    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.init.id().to_string(), "--"]);
        command
    }

    /// A victim, ready to crash.
    pub fn victim(&self, program: &Path, kind: &str, size: usize) -> Victim {
        Victim::beside(self.init.id(), &self.directory, program, kind, size)
    }

    /// The PID of its first process.
    pub fn init(&self) -> u32 {
        self.init.id()
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

/// A process that waits to be told to crash.
pub struct Victim {
    child: Child,
    output: BufReader<ChildStdout>,
    core: PathBuf,
}

/// Nanoseconds of the monotonic clock.
pub fn now() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos() as u64
}

impl Victim {
    /// One in the mount namespace of another process, whose cores would go to `directory`.
    pub fn beside(process: u32, directory: &Path, program: &Path, kind: &str, size: usize) -> Self {
        let line = format!(
            "ulimit -c unlimited; exec nsenter --mount --target {process} -- {} {kind} {size}",
            program.display()
        );
        let mut child = Command::new("sh")
            .args(["-c", &line])
            // On AArch64 glibc 2.43 lets the heap end at a multiple of a huge page, so that its
            // size depends on where it begins. As on x86-64:
            .env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        output.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "the victim {kind} {size} did not get ready");
        let core = directory.join(format!("core.{}", child.id()));
        Victim { child, output, core }
    }

    /// Its PID, until it is waited for.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, in the middle of its dump or not, and waits: its PID is free then.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end, but not longer than `most`; whether it came.
    pub fn ends_within(&mut self, most: Duration) -> bool {
        ends_within(&mut self.child, most).is_some()
    }

    /// Its wait status, once it has ended.
    pub fn status(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// Tells it to crash.
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

    /// Where its core goes.
    pub fn core(&self) -> &Path {
        &self.core
    }
}

/// The program of the victims: it fills memory in one of several ways, and waits to be told to
/// crash. See `benches/victim.c`.
pub fn victim() -> PathBuf {
    let source = include_str!("../../benches/victim.c");
    crasher::compile("sized/victim", source, &["-O2", "-pthread"])
}
