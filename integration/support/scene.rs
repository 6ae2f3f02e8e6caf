//! The matrix itself: the product installed on the host, and the engines that start
//! containers with its hook.
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::bundle::Bundle;
use crate::crasher::compile;
use crate::host::{BINARY, Host};
use crate::podman::Podman;
use crate::rootfs::Rootfs;
use crate::runtime::{Container, Kind, Runtime};
use crate::terminal::Terminal;

/// ECI's annotation.
pub const ECI: &str = "k8s.aliyun.com/eci-core-pattern";
/// The value of ECI's documentation.
pub const ECI_PATTERN: &str = "/pod/data/dump/core-eci";

/// The program that dies; see `victim.c`.
pub fn victim() -> PathBuf {
    compile("victim", include_str!("../matrix/victim.c"), &["-O0"])
}

/// What every container of the matrix has in /bin.
pub fn fill(rootfs: &Rootfs) {
    rootfs.put(&victim(), "/bin/victim");
}

/// The host with the product installed and nothing set up: the first container does that.
pub fn host() -> Host {
    Host::installed("")
}

/// A bundle with the victim and the product's hooks.
pub fn bundle() -> Bundle {
    let mut bundle = Bundle::new();
    fill(bundle.rootfs());
    bundle.coredump_hooks(Path::new(BINARY));
    bundle
}

/// Gives podman the hooks.d file of the repository, as `make install` does.
pub fn hooks(podman: &Podman) {
    let file = crate::program::repository().join("hooks.d/oci-coredump.json");
    std::fs::copy(file, podman.hooks().join("oci-coredump.json")).unwrap();
}

/// The installed product, with arguments.
pub fn product(args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(args);
    command
}

/// `oci-coredump uninstall`, which must succeed.
pub fn uninstall() {
    let output = product(&["uninstall"]).output().unwrap();
    assert!(output.status.success(), "uninstall: {output:?}");
}

/// A runtime used directly, or podman over one.
pub enum Engine {
    Direct(Runtime),
    Podman(Podman),
}

impl Engine {
    /// A runtime by itself.
    pub fn direct(kind: Kind) -> Self {
        Self::Direct(Runtime::new(kind))
    }

    /// podman over a runtime, with the hooks of hooks.d.
    pub fn podman(kind: Kind) -> Self {
        let podman = Podman::new(kind, fill);
        hooks(&podman);
        Self::Podman(podman)
    }

    /// Starts a container with annotations and volumes (host directory, directory inside).
    pub fn start(
        &self,
        name: &str,
        annotations: &[(&str, &str)],
        volumes: &[(&Path, &str)],
        args: &[&str],
    ) -> Running<'_> {
        match self {
            Self::Direct(runtime) => {
                let mut bundle = bundle();
                bundle.args(args);
                for (key, value) in annotations {
                    bundle.annotation(key, value);
                }
                for (host, inside) in volumes {
                    bundle.bind(host, inside);
                }
                // The store keeps cores by container ID: no two runtimes' containers have the same.
                let container =
                    runtime.start(&bundle, &format!("{name}-{}", runtime.kind().name()));
                Running::Direct { container, _bundle: bundle }
            }
            Self::Podman(podman) => {
                let mut options: Vec<String> = Vec::new();
                for (key, value) in annotations {
                    options.extend(["--annotation".into(), format!("{key}={value}")]);
                }
                for (host, inside) in volumes {
                    options.extend(["--volume".into(), format!("{}:{inside}", host.display())]);
                }
                let options: Vec<_> = options.iter().map(String::as_str).collect();
                let id = podman.start(name, &options, args);
                Running::Podman { podman, name: name.to_owned(), id }
            }
        }
    }
}

/// A container that runs.
pub enum Running<'e> {
    Direct { container: Container<'e>, _bundle: Bundle },
    Podman { podman: &'e Podman, name: String, id: String },
}

impl Running<'_> {
    /// The ID that the runtime knows it by.
    pub fn id(&self) -> &str {
        match self {
            Self::Direct { container, .. } => container.id(),
            Self::Podman { id, .. } => id,
        }
    }

    /// Standard output of an exec'd `sh -c SCRIPT`, which must succeed.
    pub fn sh(&self, script: &str) -> String {
        match self {
            Self::Direct { container, .. } => container.sh(script),
            Self::Podman { podman, name, .. } => podman.sh(name, script),
        }
    }

    /// A shell by exec, on a terminal.
    pub fn shell(&self) -> Terminal {
        match self {
            Self::Direct { container, .. } => container.exec_terminal(&["/bin/sh"]),
            Self::Podman { podman, name, .. } => {
                Terminal::start(podman.command().args(["exec", "-it", name, "/bin/sh"]))
            }
        }
    }

    /// Kills and removes it; the poststop hooks run.
    pub fn remove(self) {
        match self {
            Self::Direct { container, .. } => container.remove(),
            Self::Podman { podman, name, .. } => {
                drop(podman.verb(&["rm", "--force", "--time", "0", &name]))
            }
        }
    }
}

/// Starts `/bin/victim HOW` by exec and returns its PID in the container and its raw wait status.
pub fn crash(sh: impl Fn(&str) -> String, how: &str) -> (i32, i32) {
    ended(&sh(&format!("/bin/victim wait {how}")))
}

/// What `victim wait` printed: `ended PID STATUS`.
pub fn ended(printed: &str) -> (i32, i32) {
    let line = printed
        .lines()
        .find_map(|line| line.strip_prefix("ended "))
        .unwrap_or_else(|| panic!("{printed:?}"));
    let (pid, status) = line.split_once(' ').unwrap();
    (pid.parse().unwrap(), status.trim().parse().unwrap())
}

/// The one record of a container; panics when there is none or are several.
pub fn only_record(host: &Host, container: &str) -> Value {
    let mut records = host.records_of(container);
    assert_eq!(
        records.len(),
        1,
        "records of {container}: {records:#?}; all: {:#?}",
        host.records()
    );
    records.remove(0)
}
