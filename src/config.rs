//! The keys of the configuration file, /etc/oci-coredump/config.toml, and their defaults. [`read`]
//! reads the file.

mod age;
mod debuginfod;
mod glob;
mod kept_memory;
mod read;

pub use debuginfod::Debuginfod;
pub use glob::matches;
pub use kept_memory::KeptMemory;

use crate::bytes::Limit;
use crate::limits::Limits;
use crate::name_conflict::Existing;
use crate::pattern::Pattern;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Path of the configuration file, which may be absent.
pub const PATH: &str = "/etc/oci-coredump/config.toml";

/// The state that the hook and the dispatcher share. On tmpfs: it is gone after a
/// reboot, as the containers are.
pub const RUN_DIR: &str = "/run/oci-coredump";

/// How the kernel's one `core_pattern` is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The kernel pipes every crash to `oci-coredump handle`: a pattern for each container.
    #[default]
    Dispatch,
    /// The kernel writes the file itself, by the pattern of the container. One pattern for the
    /// whole kernel: for VMs that run one pod, and Kata guests.
    Kernel,
}

/// How the kernel hands crashes to this program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum KernelInterface {
    /// It starts `oci-coredump handle` for each.
    #[default]
    Pipe,
    /// It connects to the socket of `oci-coredump serve` where that runs, from Linux 6.17 on; else
    /// it starts `oci-coredump handle`.
    Socket,
    /// The same as [`KernelInterface::Socket`], which falls back to the pipe too.
    Auto,
}

/// How a container's own directory of the store is mounted into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum StoreView {
    /// Read-only: the container can read its cores.
    #[default]
    Ro,
    /// Writable: it can also remove them, and create files of any size.
    Rw,
}

/// Which process's core is reported in the container's /dev/termination-log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TerminationLog {
    /// No process's.
    Off,
    /// The init process's, with which the container ends.
    #[default]
    Init,
    /// Any process's.
    Any,
}

/// Where the writer makes directories that a specifier of the pattern names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum MakeDirectories {
    /// In the host's store.
    #[default]
    Store,
    /// Wherever the crashed process may.
    Anywhere,
    /// Nowhere, as the kernel: then there is no core.
    Nowhere,
}

impl MakeDirectories {
    /// Whether they are made for a core. `in_store`: it goes to the host's store.
    pub(crate) fn applies(self, in_store: bool) -> bool {
        match self {
            MakeDirectories::Store => in_store,
            MakeDirectories::Anywhere => true,
            MakeDirectories::Nowhere => false,
        }
    }
}

/// The administrator's settings. The comments on the keys are also their documentation for users:
/// `documents.rs` makes the tables of docs/configuration.md and docs/config.toml from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `dispatch`: the kernel hands every crash to this program; many containers, many patterns.
    /// `kernel`: the container's pattern goes into the kernel itself, for virtual machines with one
    /// pod; a second container with another pattern is refused.
    pub mode: Mode,
    /// With `mode = "dispatch"`: the kernel starts this program for each crash (`pipe`), or
    /// connects to the socket of `oci-coredump serve` (`socket` or `auto`, which mean the same),
    /// from Linux 6.17 on and while that server runs. When it does not run, the next hook, or
    /// `watch`, switches back to the pipe; crashes until then have no core.
    pub kernel_interface: KernelInterface,
    /// Append `.PID` to a pattern that has no `%p`, as `kernel.core_uses_pid=1` does, and as
    /// Alibaba ECI does.
    pub core_uses_pid: bool,
    /// What happens where a core's name exists already: the new core takes it, as with the kernel
    /// (`replace`); the first one stays, and the new one is not written (`keep`); the new one gets
    /// a number, `core.1.2` after `core.1`, up to 1,024 (`number`). A container may choose by
    /// `oci-coredump/existing`.
    pub existing: Existing,
    /// How much of its memory the core of a crashed process keeps: all that the kernel dumps
    /// (`all`); stacks, global variables and what registers and stacks point to, within bounds
    /// (`stacks`); nothing of the heap (`stacks-only`). A container may choose by
    /// `oci-coredump/keep`.
    pub keep: KeptMemory,
    /// Where the writer makes the directories of a pattern that a specifier names
    /// (`/cores/%e/core`), as the crashed process: in the store; also on volumes and in the
    /// container's own layer (`anywhere`); nowhere, as the kernel.
    pub make_directories: MakeDirectories,
    /// Do not start a container whose request cannot be honoured.
    pub strict: bool,
    /// The pattern of containers that ask for none, by the rules for annotations.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub default_pattern: Option<Pattern>,
    /// The containers that `default_pattern` is for: all whose named annotations match a glob
    /// (`*`, `?`). The words `namespace`, `pod`, `container`, `image` and `engine` (`containerd`,
    /// `cri-o`, `docker`, `podman`) stand for what each engine calls otherwise; one that is not
    /// known matches nothing. Without this table: all containers.
    pub select: BTreeMap<String, String>,
    /// Containers may ask for `oci-coredump/release: early`. The memory of a crashed process then
    /// stays in use until its core is complete, although the process is no longer visible.
    pub allow_early_release: bool,
    /// Limits for the cores of one container. Absent keys have their own defaults.
    pub limits: Limits,
    /// An absolute path: the host's store of cores and records. It and every directory above it
    /// must be root's. The store of a user's containers is in the user's home directory.
    pub store: PathBuf,
    /// How a container of root's sees its own directory of the store: read-only or writable. With
    /// `rw` it can remove cores, create files of its own, and fill the disk that the store is on.
    /// `mode = "kernel"` implies `rw`.
    pub store_view: StoreView,
    /// The processes whose crash is reported in the container's termination log, if that file is
    /// there and empty: the first process, any process, or none.
    pub termination_log: TerminationLog,
    /// After a crash, when the process is gone, read its core once: the record, the journal and the
    /// termination log then name the function that crashed.
    pub summary: bool,
    /// Globs of names (`*`, `?`, in any case): `info --full` and `report --full` do not show the
    /// values of variables and members that are called so.
    pub hide: Vec<String>,
    /// The executables and libraries that are kept with their cores.
    pub binaries: Binaries,
    /// The servers of debug information, and what is kept of their answers.
    pub debuginfod: Debuginfod,
    /// What may stay in the store. The rules are applied from time to time.
    pub vacuum: Vacuum,
    /// Whether and how `oci-coredump-ship` uploads crashes. Its other keys are that program's.
    pub upload: Upload,
    /// An absolute path: the OCI runtime that `oci-coredump-runtime` executes. Without it: runc,
    /// else crun, from /usr/bin, /usr/sbin, /usr/local/bin or /usr/local/sbin.
    pub runtime: Option<PathBuf>,
    /// What was left out of the file and why, one line each.
    #[serde(skip)]
    pub problems: Vec<String>,
}

/// `[binaries]`: the executable and libraries of a crash, kept in the store for use
/// after the container is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Binaries {
    /// Keep the executable and the libraries of a crash with its core. None are kept of rootless
    /// containers.
    pub keep: bool,
    /// Most bytes of one file; a larger file is not kept.
    pub max_file: Limit,
    /// Most bytes of all of them. One account may have a quarter. To make room for a newer file,
    /// the oldest file of the account that has most is removed.
    pub max_total: Limit,
}

impl Default for Binaries {
    fn default() -> Self {
        Binaries { keep: true, max_file: Limit::Finite(1 << 30), max_total: Limit::Finite(4 << 30) }
    }
}

/// `[vacuum]`: the rules of `oci-coredump vacuum`, which the program also applies by itself after
/// crashes and when containers end. Without a rule, only binaries that no core needs are removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Vacuum {
    /// Most bytes on disk of the cores in the store, the binaries, and what debuginfod servers
    /// gave, which goes first.
    pub max_size: Limit,
    /// Greatest age of a crash, such as `30d`, `2 weeks` or `12h`; a day has 24 hours.
    #[serde(deserialize_with = "age::read")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub max_age: Option<u64>,
    /// Most crashes that are kept; the oldest of the account that has most go first.
    pub keep: Option<usize>,
}

/// `[upload]`, as far as this program needs it. The other keys are those of `oci-coredump-ship`:
/// docs/upload.md has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Upload {
    /// Where crashes are uploaded to, such as `s3://BUCKET/PREFIX`. Without it: nowhere.
    pub url: Option<String>,
    /// An absolute path: the directory in which `oci-coredump-ship` keeps what it has uploaded.
    pub state: PathBuf,
    /// How long `[vacuum]` keeps a crash that is not uploaded yet, such as `7d`; only `max_size`
    /// removes it earlier, and last of all.
    #[serde(deserialize_with = "age::read")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub keep_until_uploaded: Option<u64>,
    /// `vacuum` removes what has been uploaded.
    pub delete_after_upload: bool,
}

impl Default for Upload {
    fn default() -> Self {
        Upload {
            url: None,
            state: PathBuf::from("/var/lib/oci-coredump-ship"),
            keep_until_uploaded: None,
            delete_after_upload: false,
        }
    }
}

/// Names of what is often secret.
const HIDE: [&str; 11] = [
    "pass",
    "*passw*",
    "*passphrase*",
    "*pwd*",
    "*auth*",
    "*cookie*",
    "*secret*",
    "*token*",
    "*credential*",
    "*api*key*",
    "*private*key*",
];

impl Default for Config {
    fn default() -> Self {
        Config {
            mode: Mode::Dispatch,
            kernel_interface: KernelInterface::Pipe,
            core_uses_pid: true,
            existing: Existing::Replace,
            keep: KeptMemory::All,
            make_directories: MakeDirectories::Store,
            strict: false,
            default_pattern: None,
            select: BTreeMap::new(),
            allow_early_release: false,
            limits: Limits::defaults(),
            store: PathBuf::from("/var/lib/oci-coredump"),
            store_view: StoreView::Ro,
            termination_log: TerminationLog::Init,
            summary: true,
            hide: HIDE.map(str::to_owned).to_vec(),
            binaries: Binaries::default(),
            debuginfod: Debuginfod::default(),
            vacuum: Vacuum::default(),
            upload: Upload::default(),
            runtime: None,
            problems: Vec::new(),
        }
    }
}

impl Config {
    fn rules(&self) -> Result<()> {
        ensure!(self.store.is_absolute(), "the path must be absolute");
        ensure!(self.upload.state.is_absolute(), "the path must be absolute");
        ensure!(self.runtime.as_ref().is_none_or(|p| p.is_absolute()), "the path must be absolute");
        Ok(())
    }

    /// Whether containers may write to their directories of the store. With `mode = "kernel"` they
    /// must, since the kernel creates the core as the crashed process.
    pub fn container_writes_store(&self) -> bool {
        self.store_view == StoreView::Rw || self.mode == Mode::Kernel
    }

    /// The default pattern, if it applies to a container with these annotations, which have the
    /// words of `[select]` among them.
    pub fn default_for(&self, annotations: &BTreeMap<String, String>) -> Option<&Pattern> {
        let selected = self
            .select
            .iter()
            .all(|(key, glob)| annotations.get(key).is_some_and(|v| matches(glob, v)));
        self.default_pattern.as_ref().filter(|_| selected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_eci() {
        let c = Config::parse("").unwrap();
        assert_eq!(c, Config::default());
        assert!(c.core_uses_pid && !c.strict && c.mode == Mode::Dispatch);
    }

    #[test]
    fn limits_that_are_absent_have_their_defaults() {
        let c = Config::parse("[limits]\ncores = 5\nkeep = \"first-and-newest\"\nconcurrent = 0")
            .unwrap();
        assert_eq!(
            (c.limits.cores, c.limits.concurrent, c.limits.stall),
            (Some(5), Some(0), Limits::defaults().stall)
        );
    }

    #[test]
    fn sizes() {
        let c = Config::parse("[binaries]\nmax_file = \"512Mi\"\nmax_total = \"unlimited\"")
            .unwrap()
            .binaries;
        assert_eq!(
            (c.keep, c.max_file, c.max_total),
            (true, Limit::Finite(512 << 20), Limit::Unlimited)
        );
        let v = Config::parse("[vacuum]\nmax_size = \"10G\"\nmax_age = \"2 weeks\"\nkeep = 100")
            .unwrap()
            .vacuum;
        assert_eq!(
            v,
            Vacuum {
                max_size: Limit::Finite(10 << 30),
                max_age: Some(14 * 86400),
                keep: Some(100)
            }
        );
        assert_eq!(
            Config::parse("[binaries]\nkeep = false\nmax_file = 7").unwrap().binaries,
            Binaries { keep: false, max_file: Limit::Finite(7), ..Binaries::default() }
        );
    }

    #[test]
    fn selection() {
        let c = Config::parse(
            "default_pattern = \"core\"\n[select]\n\
             \"io.kubernetes.cri.sandbox-namespace\" = \"prod-*\"",
        )
        .unwrap();
        let with = |v: &str| {
            BTreeMap::from([("io.kubernetes.cri.sandbox-namespace".to_owned(), v.to_owned())])
        };
        assert_eq!(c.default_for(&with("prod-eu")), Some(&"core".parse().unwrap()));
        assert_eq!(c.default_for(&with("test")), None);
        assert_eq!(c.default_for(&BTreeMap::new()), None);
        assert_eq!(
            Config::parse("default_pattern = \"core\"").unwrap().default_for(&BTreeMap::new()),
            Some(&"core".parse().unwrap())
        );
    }
}
