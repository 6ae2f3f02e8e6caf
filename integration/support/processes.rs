//! The processes of the machine, as /proc shows them.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::BINARY;
use crate::wait;

/// The PIDs of all processes. One of them may end at any time.
pub fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Bytes of a page of this kernel.
pub fn page_size() -> u64 {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let line = smaps.lines().find_map(|line| line.strip_prefix("KernelPageSize:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// The processes of the installed program, those of a program that was replaced too.
pub fn helpers() -> Vec<i32> {
    all().filter(|pid| exe(*pid).is_some_and(|exe| is_binary(&exe))).collect()
}

/// The processes of the installed program that handle a crash.
pub fn dispatchers() -> Vec<i32> {
    let handles = |pid: &i32| {
        argument(*pid, 1).as_deref() == Some(b"handle")
            || field(*pid, "Name").as_deref() == Some(OF_THE_SERVER)
    };
    helpers().into_iter().filter(handles).collect()
}

/// The name of a process that `serve` has started for a crash.
const OF_THE_SERVER: &str = "oci-crash";

/// The kernel writes " (deleted)" behind the path of a program that was removed.
fn is_binary(exe: &Path) -> bool {
    let name = exe.to_string_lossy();
    name.strip_suffix(" (deleted)").unwrap_or(&name) == BINARY
}

/// The executable file.
pub fn exe(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// An argument of the command line, from 0.
pub fn argument(pid: i32, index: usize) -> Option<Vec<u8>> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    line.split(|b| *b == 0).nth(index).map(<[u8]>::to_vec)
}

/// A field of /proc/PID/status: of a process, or of `PID/task/TID`.
pub fn field(pid: impl std::fmt::Display, name: &str) -> Option<String> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Some(line?.trim().to_owned())
}

/// The PID of the parent.
pub fn parent(pid: i32) -> Option<i32> {
    field(pid, "PPid")?.parse().ok()
}

/// A child of the process.
pub fn child(pid: i32) -> Option<i32> {
    all().find(|child| parent(*child) == Some(pid))
}

/// The processes of a user.
pub fn of_user(uid: u32) -> impl Iterator<Item = i32> {
    all().filter(move |pid| fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == uid))
}

/// Whether there is a process of this number.
pub fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits until a process that is no child of the test has gone.
pub fn wait_gone(pid: i32, most: Duration) {
    wait::wait_for(&format!("the end of process {pid}"), most, || !exists(pid));
}
