//! A daemon in a scratch directory: started, waited for by its socket, stopped on drop with
//! everything that it left running or mounted there.
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::processes;
use crate::wait::{becomes, ends_within};

/// No daemon takes this long to start or to stop.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running daemon.
pub struct Daemon {
    child: Child,
    log: PathBuf,
    scratch: PathBuf,
}

impl Daemon {
    /// Starts `command`, whose files are all below `scratch`, and waits
    /// until it listens at `socket`.
    pub fn start(command: Command, scratch: &Path, socket: &Path) -> Self {
        let _ = fs::remove_file(socket);
        Self::start_until(command, scratch, || UnixStream::connect(socket).is_ok())
    }

    /// The same, and waits until `serves` finds that it does.
    pub fn start_until(
        mut command: Command,
        scratch: &Path,
        mut serves: impl FnMut() -> bool,
    ) -> Self {
        let log = scratch.join(format!(
            "{}.log",
            Path::new(command.get_program()).file_name().unwrap().display()
        ));
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut daemon = Self { child, log, scratch: scratch.to_owned() };
        let ready = becomes(DEADLINE, || serves() || daemon.child.try_wait().unwrap().is_some());
        let ended = daemon.child.try_wait().unwrap();
        assert!(ready && ended.is_none(), "{command:?}: {ended:?}\n{}", daemon.log());
        daemon
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its PID.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Ends it, and it alone: its containers go on.
    pub fn stop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::SIGTERM);
            if ends_within(&mut self.child, DEADLINE).is_none() {
                eprintln!("{} does not end", self.log.display());
                self.signal(Signal::SIGKILL);
                self.child.wait().unwrap();
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), tail(&self.log()));
        }
        self.stop();
        clean(&self.scratch);
    }
}

/// The lines that say what went wrong.
fn tail(log: &str) -> String {
    let lines: Vec<_> =
        log.lines().filter(|l| !l.contains("level=info") && !l.contains("level=debug")).collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Kills what still runs with a path of the directory on its command line (shims), and takes off
/// what is still mounted below it.
fn clean(scratch: &Path) {
    let name = scratch.to_str().unwrap();
    for pid in processes::all().filter(|pid| *pid != std::process::id() as i32) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains("containerd-shim") && line.contains(name) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    // Of this thread: a test may have a mount namespace of its own.
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    for line in mounts.lines().rev() {
        if let Some(point) = line.split(' ').nth(1).filter(|p| p.starts_with(name)) {
            let _ = Command::new("umount").args(["--lazy", point]).output();
        }
    }
}
