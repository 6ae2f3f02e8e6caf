//! An OCI bundle in a temporary directory: a root file system and a `config.json`
//! that the test edits as JSON.
//!
//! ```ignore
//! let mut bundle = Bundle::new();
//! bundle.rootfs().put(&crasher, "/bin/crasher");
//! bundle
//!     .args(&["/bin/crasher", "segv"])
//!     .annotation("oci-coredump/pattern", "/dump/core")
//!     .bind(volume, "/dump");
//! let output = Runtime::new(Kind::Runc).run(&bundle, "one");
//! ```
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rootfs::Rootfs;

/// First host ID of the user namespace that [`Bundle::user_namespace`] asks for.
pub const USERNS_BASE: u32 = 200_000;
/// How many IDs it maps.
pub const USERNS_SIZE: u32 = 65_536;

/// The capabilities that Docker and podman give by default.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A bundle. The directory, root file system included, goes away with it.
pub struct Bundle {
    directory: TempDir,
    rootfs: Rootfs,
    /// config.json as it will be written; every test may edit it freely.
    pub config: Value,
}

impl Bundle {
    /// A bundle as `runc spec` would make it (no terminal, `sleep 1000` as the program, an absolute
    /// `root.path`, no rlimits, Docker's capabilities, root user), without any hook or annotation.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("bundle").tempdir().unwrap();
        // A container in a user namespace must be able to reach its root.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let rootfs = Rootfs::make(&directory.path().join("rootfs"));
        let mut config = default_config(rootfs.path());
        // A name of its own, so that two tests on one machine never share a cgroup.
        config["linux"]["cgroupsPath"] =
            json!(format!("/{}", directory.path().file_name().unwrap().display()));
        Self { directory, rootfs, config }
    }

    /// The bundle's directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The container's root file system on the host.
    pub fn rootfs(&self) -> &Rootfs {
        &self.rootfs
    }

    /// The program that the container runs.
    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.config["process"]["args"] = json!(args);
        self
    }

    /// `sh -c SCRIPT` as the program that the container runs.
    pub fn shell(&mut self, script: &str) -> &mut Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// Puts a program and the libraries that it is linked with into the root file system, the
    /// libraries under the paths that they have here.
    pub fn put_dynamic(&self, program: &Path, inside: &str) {
        self.rootfs.put_dynamic(program, inside);
    }

    /// Adds `NAME=value` to the environment.
    pub fn env(&mut self, assignment: &str) -> &mut Self {
        self.push("/process/env", json!(assignment))
    }

    /// The working directory (an absolute path in the container).
    pub fn cwd(&mut self, inside: &str) -> &mut Self {
        self.config["process"]["cwd"] = json!(inside);
        self
    }

    /// User and group of the program, as they are in the container.
    pub fn user(&mut self, uid: u32, gid: u32) -> &mut Self {
        self.config["process"]["user"] = json!({ "uid": uid, "gid": gid });
        self
    }

    /// Replaces the capabilities (`CAP_...`) in all sets but the ambient one.
    pub fn capabilities(&mut self, names: &[&str]) -> &mut Self {
        self.config["process"]["capabilities"] = capabilities(names);
        self
    }

    /// Adds a resource limit, e.g. `RLIMIT_CORE`.
    pub fn rlimit(&mut self, kind: &str, soft: u64, hard: u64) -> &mut Self {
        if self.config["process"]["rlimits"].is_null() {
            self.config["process"]["rlimits"] = json!([]);
        }
        self.push("/process/rlimits", json!({ "type": kind, "soft": soft, "hard": hard }))
    }

    /// Bind-mounts a directory of the host, writable: the container's volume.
    pub fn bind(&mut self, host: &Path, inside: &str) -> &mut Self {
        self.mount("bind", &host.to_string_lossy(), inside, &["rbind", "rw"])
    }

    /// Mounts a tmpfs of `bytes` bytes, mode 1777.
    pub fn tmpfs(&mut self, inside: &str, bytes: u64) -> &mut Self {
        self.mount(
            "tmpfs",
            "tmpfs",
            inside,
            &["nosuid", "nodev", "mode=1777", &format!("size={bytes}")],
        )
    }

    /// Adds any mount.
    pub fn mount(&mut self, kind: &str, source: &str, inside: &str, options: &[&str]) -> &mut Self {
        self.push(
            "/mounts",
            json!({ "destination": inside, "type": kind, "source": source, "options": options }),
        )
    }

    /// Adds an annotation.
    pub fn annotation(&mut self, key: &str, value: &str) -> &mut Self {
        self.config["annotations"][key] = json!(value);
        self
    }

    /// Adds a hook to a stage (`createRuntime`, `poststart`, ...): `args` includes
    /// argv\[0\]. Timeout ten seconds.
    pub fn hook(&mut self, stage: &str, path: &Path, args: &[&str]) -> &mut Self {
        if self.config["hooks"][stage].is_null() {
            self.config["hooks"][stage] = json!([]);
        }
        self.push(&format!("/hooks/{stage}"), json!({ "path": path, "args": args, "timeout": 10 }))
    }

    /// Adds the project's hook, installed at `binary`, to its three stages.
    pub fn coredump_hooks(&mut self, binary: &Path) -> &mut Self {
        for stage in ["createRuntime", "poststart", "poststop"] {
            self.hook(stage, binary, &["oci-coredump", "hook", stage]);
        }
        self
    }

    /// A user namespace that maps 0.. to [`USERNS_BASE`]..; the files of the root file system are
    /// given to those IDs, so call it after everything has been put there.
    pub fn user_namespace(&mut self) -> &mut Self {
        self.rootfs.shift_owners(USERNS_BASE);
        let map = json!([{ "containerID": 0, "hostID": USERNS_BASE, "size": USERNS_SIZE }]);
        self.config["linux"]["uidMappings"] = map.clone();
        self.config["linux"]["gidMappings"] = map;
        self.push("/linux/namespaces", json!({ "type": "user" }))
    }

    /// Makes the container's root read-only.
    pub fn readonly_root(&mut self) -> &mut Self {
        self.config["root"]["readonly"] = json!(true);
        self
    }

    /// `root.path` as containerd and Docker write it: relative to the bundle.
    pub fn relative_root(&mut self) -> &mut Self {
        self.config["root"]["path"] = json!("rootfs");
        self
    }

    /// A terminal for the program (`run` and `exec` of the runtime then need one too).
    pub fn terminal(&mut self) -> &mut Self {
        self.config["process"]["terminal"] = json!(true);
        self
    }

    /// Writes config.json; the runtime's methods do it before `create` and `run`.
    pub fn write(&self) -> PathBuf {
        let path = self.path().join("config.json");
        fs::write(&path, serde_json::to_vec_pretty(&self.config).unwrap()).unwrap();
        path
    }

    fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        let list = self.config.pointer_mut(pointer).and_then(Value::as_array_mut);
        list.unwrap_or_else(|| panic!("{pointer} is no list in config.json")).push(value);
        self
    }
}

fn capabilities(names: &[&str]) -> Value {
    json!({ "bounding": names, "effective": names, "permitted": names })
}

fn default_config(root: &Path) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": root, "readonly": false },
        "hostname": "container",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sleep", "1000"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb"],
            "cwd": "/",
            "capabilities": capabilities(&DEFAULT_CAPABILITIES),
            "noNewPrivileges": false,
        },
        "annotations": {},
        "hooks": {},
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" },
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}
