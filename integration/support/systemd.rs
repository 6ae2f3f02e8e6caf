//! systemd's handler of core dumps, as Debian has it in core_pattern, with the receiving side of
//! its socket as systemd would start it.

use crate::require;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const SOCKET: &str = "/run/systemd/coredump";

/// What systemd-coredump.socket and its service are where systemd runs. Ended with the test. Where
/// systemd itself listens, nothing is started.
pub struct Systemd {
    /// What belongs into core_pattern.
    pub pattern: String,
    receiver: Option<Child>,
    _directory: TempDir,
}

impl Systemd {
    /// `None` if there is no systemd-coredump on this machine; `make deps` unpacks it
    /// where it is not installed.
    pub fn start() -> Option<Self> {
        let installed = Path::new("/usr/lib/systemd/systemd-coredump");
        let found = if installed.exists() {
            installed.to_owned()
        } else {
            require::find("systemd-coredump")?
        };
        // core_pattern has room for 127 bytes.
        let directory = TempDir::with_prefix("s").unwrap();
        let program = directory.path().join("systemd-coredump");
        fs::copy(found, &program).unwrap();
        // What a test left that was killed has nobody behind it.
        let refused = |e: std::io::Error| e.kind() == std::io::ErrorKind::ConnectionRefused;
        if UnixStream::connect(SOCKET).is_err_and(refused) {
            fs::remove_file(SOCKET).unwrap();
        }
        let receiver = (!Path::new(SOCKET).exists()).then(|| listen(&program));
        // The arguments of Debian's /usr/lib/sysctl.d/50-coredump.conf.
        let pattern = format!("|{} %P %u %g %s %t %c %h", program.display());
        Some(Systemd { pattern, receiver, _directory: directory })
    }

    /// The cores that systemd keeps of a process: `core.COMM.UID.BOOT.PID.TIME` and a suffix.
    pub fn cores(pid: i64) -> Vec<PathBuf> {
        let part = format!(".{pid}.");
        find(|name| name.starts_with("core.") && name.contains(&part))
    }

    /// Those of all processes that had this comm.
    #[allow(dead_code, reason = "for the benchmarks")]
    pub fn cores_of(comm: &str) -> Vec<PathBuf> {
        let start = format!("core.{comm}.");
        find(|name| name.starts_with(&start))
    }
}

fn find(wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir("/var/lib/systemd/coredump").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(&wanted))
        .map(|entry| entry.path())
        .collect()
}

fn listen(program: &Path) -> Child {
    fs::create_dir_all("/run/systemd").unwrap();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--accept", "--seqpacket", "--listen", SOCKET]).arg(program);
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("systemd-socket-activate");
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    // It goes on writing there.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    assert!(line.starts_with("Listening on"), "systemd-socket-activate: {line}");
    child
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if let Some(child) = &mut self.receiver {
            let _ = child.kill();
            let _ = child.wait();
            let _ = fs::remove_file(SOCKET);
        }
    }
}
