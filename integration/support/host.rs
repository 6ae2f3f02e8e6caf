//! The host's global state: the lock that serializes every test on the machine, the sysctls, the
//! files that the project installs, and the records that it leaves behind. Whatever a test
//! changes here is put back on drop, after a panic too; values that a killed test left changed
//! are put back by the next one.
//!
//! ```ignore
//! let host = Host::take();        // the lock is held and the machine is clean until it is dropped
//! let binary = host.install();    // copied to /usr/libexec/oci/hooks.d/oci-coredump
//! host.configure("core_uses_pid = false\n");
//! host.set("kernel/core_uses_pid", "1");
//! ```
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use crate::processes::dispatchers;
use crate::wait::{becomes, within};

/// Where `make install` puts the binary; the kernel is given this path, so it must be
/// short and the host's own.
pub const BINARY: &str = "/usr/libexec/oci/hooks.d/oci-coredump";
/// The administrator's configuration.
pub const CONFIG: &str = "/etc/oci-coredump/config.toml";
/// Registrations of running containers.
pub const RUN: &str = "/run/oci-coredump";
/// Cores and records.
pub const STORE: &str = "/var/lib/oci-coredump";

const LOCK: &str = "/run/lock/oci-coredump-test.lock";
const ASIDE: &str = "before-test";

/// The sysctls that a test, the binary under test or a kubelet may change.
const SYSCTLS: [&str; 14] = [
    "kernel/core_pattern",
    "kernel/core_uses_pid",
    "kernel/core_pipe_limit",
    "kernel/core_sort_vma",
    "kernel/core_file_note_size_limit",
    "fs/suid_dumpable",
    "vm/max_map_count",
    "vm/nr_hugepages",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// The machine, which no other test uses until this is dropped.
pub struct Host {
    lock: Flock<File>,
    /// The machine's own values; they stand in the lock file too, for whoever comes
    /// after a test that was killed.
    saved: String,
    installed: RefCell<Vec<PathBuf>>,
}

impl Host {
    /// Waits for the lock, and makes the machine as if the project had never been installed on it:
    /// its binary, configuration, registrations and store are moved aside until drop.
    pub fn take() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "the integration tests need root");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(LOCK)
            .unwrap();
        let mut lock =
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, cause)| cause).unwrap();
        // Not empty: the test that held the lock was killed before it could put these back.
        let mut left = String::new();
        lock.read_to_string(&mut left).unwrap();
        restore(&left);
        lock.rewind().unwrap();
        lock.set_len(0).unwrap();
        let saved = current();
        lock.write_all(saved.as_bytes()).unwrap();

        let host = Self { lock, saved, installed: RefCell::default() };
        for path in [BINARY, CONFIG, RUN, STORE] {
            move_aside(Path::new(path));
        }
        host
    }

    /// The value of a sysctl by its path below /proc/sys, without the newline.
    pub fn sysctl(&self, name: &str) -> String {
        read_sysctl(name).unwrap_or_else(|| panic!("no sysctl {name}"))
    }

    /// Sets a sysctl and proves that the kernel took it. Put back on drop, like all of them.
    pub fn set(&self, name: &str, value: &str) {
        assert!(SYSCTLS.contains(&name), "{name} would not be put back: add it to SYSCTLS");
        // An empty write changes nothing: an empty core_pattern is set by its newline.
        fs::write(Path::new("/proc/sys").join(name), format!("{value}\n"))
            .unwrap_or_else(|cause| panic!("{name}={value:?}: {cause}"));
        assert_eq!(self.sysctl(name), value, "the kernel did not take {name}");
    }

    /// Puts some sysctls back to what they were when the lock was taken.
    pub fn restore(&self, names: &[&str]) {
        let wanted =
            |line: &&str| line.split_once('=').is_some_and(|(name, _)| names.contains(&name));
        restore(&self.saved.lines().filter(wanted).collect::<Vec<_>>().join("\n"));
    }

    /// Puts all sysctls back to what they were when the lock was taken.
    pub fn restore_sysctls(&self) {
        restore(&self.saved);
    }

    /// [`Host::take`] and [`Host::install`], with this configuration where it is not empty.
    pub fn installed(configuration: &str) -> Self {
        let host = Self::take();
        host.install();
        if !configuration.is_empty() {
            host.configure(configuration);
        }
        host
    }

    /// Copies the binary under test to [`BINARY`].
    pub fn install(&self) -> PathBuf {
        self.place(Path::new(BINARY), &fs::read(crate::program::program()).unwrap(), 0o755)
    }

    /// Writes the administrator's configuration.
    pub fn configure(&self, toml: &str) -> PathBuf {
        self.place(Path::new(CONFIG), toml.as_bytes(), 0o644)
    }

    /// The records of all crashes so far, oldest first by file name.
    pub fn records(&self) -> Vec<Value> {
        let Ok(entries) = fs::read_dir(Path::new(STORE).join("records")) else { return Vec::new() };
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .filter_map(|path| last_line(&path))
            .collect()
    }

    /// The records of one container.
    pub fn records_of(&self, container: &str) -> Vec<Value> {
        let mut records = self.records();
        records.retain(|record| record["container_id"] == container);
        records
    }

    /// The newest record of a container.
    pub fn record(&self, container: &str) -> Value {
        self.records_of(container).pop().unwrap_or_else(|| panic!("{container} has no record"))
    }

    /// The record of a crash, by the PID of the process on the host.
    pub fn record_of(&self, container: &str, pid: u32) -> Option<Value> {
        self.records_of(container).into_iter().find(|record| record["host_pid"] == pid)
    }

    /// The record of a crash once its core is complete, or it is known that there is none. It is
    /// there before the crashed process has gone.
    pub fn complete_record(&self, container: &str, pid: u32) -> Value {
        let complete =
            || self.record_of(container, pid).filter(|record| record["outcome"] != "started");
        within(Duration::from_secs(60), complete).unwrap_or_else(|| {
            panic!("the crash of {pid} has no complete record: {:#?}", self.records_of(container))
        })
    }

    /// Waits until nothing of the dispatcher runs any more: it goes on after it has
    /// let the crashed process go.
    pub fn settle(&self) {
        let ended = || dispatchers().is_empty();
        assert!(
            becomes(Duration::from_secs(60), ended),
            "the dispatchers {:?} do not end",
            dispatchers()
        );
    }

    /// `uninstall --purge` by the installed binary, if there is one.
    fn uninstall(&self) {
        if Path::new(BINARY).exists() {
            match Command::new(BINARY).args(["uninstall", "--purge"]).output() {
                Ok(output) if output.status.success() => {}
                other => eprintln!("uninstall --purge: {other:?}"),
            }
        }
    }

    fn place(&self, path: &Path, bytes: &[u8], mode: u32) -> PathBuf {
        let missing: Vec<_> = path
            .ancestors()
            .skip(1)
            .take_while(|above| !above.exists())
            .map(Path::to_owned)
            .collect();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Never written in place: the kernel may be running the old one.
        let fresh = path.with_extension("new");
        fs::write(&fresh, bytes).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&fresh, path).unwrap();
        let mut installed = self.installed.borrow_mut();
        installed.extend(missing.into_iter().rev());
        if !installed.iter().any(|known| known == path) {
            installed.push(path.to_owned());
        }
        path.to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.settle();
        self.uninstall();
        // Above all the sysctls: nothing below may keep them from being put back.
        restore(&self.saved);
        for path in self.installed.borrow().iter().rev() {
            // A directory that is not empty is not ours alone any more.
            let _ = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
        for path in [BINARY, CONFIG, RUN, STORE] {
            put_back(Path::new(path));
        }
        if let Err(cause) = self.lock.set_len(0) {
            eprintln!("{LOCK}: {cause}");
        }
    }
}

/// The inodes of the files that somebody has locked by flock(2). Not by trying:
/// that would take the lock.
pub fn locked() -> BTreeSet<u64> {
    let locks = fs::read_to_string("/proc/locks").unwrap();
    // "1: FLOCK  ADVISORY  WRITE 712 00:1a:4711 0 EOF"; those with an arrow wait.
    let held = locks.lines().filter(|line| !line.contains("->"));
    held.filter_map(|line| line.split_whitespace().nth(5)?.rsplit(':').next()?.parse().ok())
        .collect()
}

fn read_sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    Some(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

/// `name=value` lines. No value of these holds a newline.
fn current() -> String {
    SYSCTLS.iter().filter_map(|name| Some(format!("{name}={}\n", read_sysctl(name)?))).collect()
}

fn restore(saved: &str) {
    for (name, value) in saved.lines().filter_map(|line| line.split_once('=')) {
        // An empty write changes nothing: an empty core_pattern is set by its newline.
        if let Err(cause) = fs::write(Path::new("/proc/sys").join(name), format!("{value}\n")) {
            eprintln!("put back {name}={value:?}: {cause}");
        }
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ASIDE);
    name.into()
}

fn move_aside(path: &Path) {
    let aside = aside(path);
    // A killed test left its own things behind: the machine's are those that stand aside.
    if aside.exists() {
        remove(path);
    } else if path.exists() {
        fs::rename(path, &aside).unwrap_or_else(|e| {
            panic!("{path:?} cannot be moved aside (is it a mount point?): {e}")
        });
    }
}

fn put_back(path: &Path) {
    remove(path);
    let aside = aside(path);
    if aside.exists()
        && let Err(cause) = fs::rename(&aside, path)
    {
        eprintln!("put back {path:?}: {cause}");
    }
}

fn remove(path: &Path) {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            eprintln!("remove {path:?}: {cause}")
        }
        _ => {}
    }
}

/// What the file of a crash says: its last line.
pub fn last_line(path: &Path) -> Option<Value> {
    let text = fs::read_to_string(path).unwrap();
    let whole = text.strip_suffix('\n').or(Some("")).filter(|t| !t.is_empty())?;
    Some(serde_json::from_str(whole.lines().last()?).unwrap_or_else(|e| panic!("{path:?}: {e}")))
}
