//! A journal of systemd's, with a journald that systemd does not run, and systemd's programs that
//! read it.

use crate::require;
use crate::wait::within;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const JOURNALD: &str = "/usr/lib/systemd/systemd-journald";
const SOCKETS: &str = "/run/systemd/journal";
const CONFIGURATION: &str = "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n\
    ForwardToSyslog=no\nForwardToWall=no\nRateLimitBurst=0\n";
/// Its sockets are the machine's, its configuration and its files are its own.
const START: &str = "mkdir -p /run/log /etc/systemd
    mount --bind \"$DIR/log\" /run/log; mount --bind \"$DIR/etc\" /etc/systemd; exec \"$JOURNALD\"";

/// The journal of the machine until this is dropped. Where systemd runs it is systemd's.
pub struct Journal {
    own: Option<(Child, TempDir)>,
}

impl Journal {
    /// `None` if systemd's programs are not on this machine; `make deps` installs them.
    pub fn start() -> Option<Self> {
        if !require::programs(&["journalctl", "coredumpctl", "unshare"]) {
            return None;
        }
        let socket = Path::new(SOCKETS).join("socket");
        if socket.exists() {
            return Some(Journal { own: None });
        }
        let dir = TempDir::new().unwrap();
        for name in ["log", "etc"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("etc/journald.conf"), CONFIGURATION).unwrap();
        fs::create_dir_all(SOCKETS).unwrap();
        let mut start = Command::new("unshare");
        start.args(["--mount", "--propagation", "private", "sh", "-euc", START]);
        start.env("DIR", dir.path()).env("JOURNALD", JOURNALD).stdin(Stdio::null());
        let child = start.spawn().unwrap();
        // Dropped, it cleans up: also where this fails.
        let journal = Journal { own: Some((child, dir)) };
        within(Duration::from_secs(60), || socket.exists().then_some(())).expect("journald");
        Some(journal)
    }

    /// One of the programs, told where the journal is.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(require::find(name).unwrap());
        if let Some((_, dir)) = &self.own {
            command.arg("-D").arg(dir.path().join("log/journal"));
        }
        command.arg("--no-pager");
        command
    }

    /// The first entry with this field, once it is there.
    pub fn entry(&self, field: &str) -> Value {
        let read = || {
            let out = self.program("journalctl").args(["-o", "json", field]).output().unwrap();
            serde_json::from_slice(out.stdout.split(|b| *b == b'\n').next()?).ok()
        };
        within(Duration::from_secs(60), read).unwrap_or_else(|| panic!("no entry has {field}"))
    }

    /// What coredumpctl prints.
    pub fn coredumpctl(&self, arguments: &[&str]) -> String {
        let out = self.program("coredumpctl").args(arguments).output().unwrap();
        assert!(out.status.success(), "coredumpctl {arguments:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// The core as coredumpctl gives it.
    pub fn core(&self, pid: &str) -> Vec<u8> {
        let dir = TempDir::new().unwrap();
        let file: PathBuf = dir.path().join("core");
        self.coredumpctl(&["dump", pid, "-o", file.to_str().unwrap()]);
        fs::read(file).unwrap()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.own {
            let _ = child.kill();
            let _ = child.wait();
            let _ = fs::remove_dir_all(SOCKETS);
        }
    }
}
