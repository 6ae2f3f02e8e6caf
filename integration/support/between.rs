//! A script between the kernel and the helper: for helpers that start slowly, are
//! killed, or get other arguments.
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::Mode;
use tempfile::TempDir;

use crate::host::{BINARY, Host};
use crate::processes::wait_gone;

/// What the kernel passes, as `sysctl::HANDLE_ARGUMENTS` has it.
const ARGUMENTS: &str = "handle v1 %P %p %I %i %u %g %d %s %t %c %C %F %h %e %f %E";

/// The helper as the kernel started it, in a shell: `"$@"` are its arguments, the
/// first of which is `handle`.
pub const AS_IT_IS: &str = "exec $helper \"$@\"";

/// The same from a kernel older than 6.16: no pidfd.
pub const WITHOUT_PIDFD: &str = "exec 3<&-\nexec $helper \"$1\" \"$2\" \"$3\" \"$4\" \"$5\" \"$6\" \
                                 \"$7\" \"$8\" \"$9\" \"${10}\" \"${11}\" \"${12}\" \"${13}\" \"\" \
                                 \"${15}\" \"${16}\" \"${17}\" \"${18}\"";

/// The script, in the kernel's `core_pattern` until drop.
pub struct Between<'h> {
    host: &'h Host,
    directory: TempDir,
    before: String,
}

impl<'h> Between<'h> {
    /// Containers must be registered by now: the hook would repair the pattern.
    pub fn new(host: &'h Host, script: &str) -> Self {
        let directory = TempDir::with_prefix("b").unwrap();
        let path = directory.path().join("w");
        let before = host.sysctl("kernel/core_pattern");
        fs::write(&path, format!("#!/bin/sh\nhelper={BINARY}\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        host.set("kernel/core_pattern", &format!("|{} {ARGUMENTS}", path.display()));
        Self { host, directory, before }
    }

    /// Where the script can put files: `${0%/*}`.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Between<'_> {
    fn drop(&mut self) {
        self.host.set("kernel/core_pattern", &self.before);
    }
}

/// A helper that is started, and waits before its first instruction.
pub struct Gate<'h> {
    _between: Between<'h>,
    arrived: BufReader<File>,
    go: File,
}

impl<'h> Gate<'h> {
    /// `exec`: how the helper is started then.
    pub fn new(host: &'h Host, exec: &str) -> Self {
        let between = Between::new(
            host,
            &format!("echo $$ >${{0%/*}}/arrived\nread go <${{0%/*}}/go\n{exec}"),
        );
        let fifo = |name: &str| {
            let path = between.path().join(name);
            nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
            // Opened at both ends, so that no open waits for the other end.
            OpenOptions::new().read(true).write(true).open(path).unwrap()
        };
        let (arrived, go) = (BufReader::new(fifo("arrived")), fifo("go"));
        Self { _between: between, arrived, go }
    }

    /// Waits for the next helper; its PID.
    pub fn arrived(&mut self) -> i32 {
        let mut line = String::new();
        self.arrived.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }

    /// Lets one helper go on, and waits until it has ended.
    pub fn pass(&mut self, helper: i32) {
        self.go.write_all(b"go\n").unwrap();
        wait_gone(helper, Duration::from_secs(20));
    }
}
