//! Reads a bundle's config.json, as far as the hook needs it. Unknown fields are ignored.

use crate::first_process::is_init;
use crate::pattern::Template;
use crate::sys::file;
use crate::sys::proc::MountPoint;
use crate::sys::resolve::{Below, Want, resolve};
use anyhow::{Context, Result};
use oci_spec::runtime::{Mount, Root};
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

/// Largest config.json that is read, in bytes.
pub(super) const MAX: usize = 16 << 20;

/// The parts of config.json that the hook needs.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Bundle {
    root: Option<Root>,
    mounts: Option<Vec<Mount>>,
    process: Option<SpecProcess>,
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct SpecProcess {
    args: Option<Vec<String>>,
    rlimits: Option<Vec<SpecRlimit>>,
}

/// `oci-spec`'s type is not used, since it fails on resources that it does not know.
#[derive(Debug, Deserialize, Serialize)]
struct SpecRlimit {
    r#type: String,
    #[serde(default)]
    soft: u64,
    #[serde(default)]
    hard: u64,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Option<Vec<Namespace>>,
    readonly_paths: Option<Vec<PathBuf>>,
    mount_label: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Namespace {
    r#type: String,
    path: Option<PathBuf>,
}

/// The source of a directory in the container, according to a mount of config.json.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Volume {
    /// Where it is mounted in the container.
    pub target: String,
    /// The directory on the host, for a bind mount.
    pub source: Option<String>,
    /// Whether the engine removes it with the container.
    pub is_own: bool,
}

/// The facts that decide whether a volume outlives the container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life<'a> {
    /// The container's ID, by which engines name what is its own.
    pub id: &'a str,
    /// Whether the engine removes it when it ends, and anonymous volumes with it.
    pub auto_remove: bool,
}

impl Life<'_> {
    /// Whether a directory of the host is removed with the container.
    fn takes(&self, path: &Path) -> bool {
        let anonymous = || {
            let name = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            let is_hash = |n: &str| n.len() == 64 && n.bytes().all(|b| b.is_ascii_hexdigit());
            path.ends_with("_data") && name.is_some_and(is_hash)
        };
        path.components().any(|part| part.as_os_str() == self.id) || self.auto_remove && anonymous()
    }
}

impl Bundle {
    /// Parses the text of a config.json.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).context("config.json")
    }

    /// Builds the equivalent of config.json for a running container, as far as its mounts show it.
    /// `mounts` are its own; `source` finds the host's directory of one.
    pub(super) fn of_running(
        mounts: &[MountPoint],
        source: impl Fn(&MountPoint) -> Option<PathBuf>,
    ) -> Self {
        let sysctls = mounts
            .iter()
            .filter(|m| Path::new("/proc/sys").starts_with(&m.target))
            .max_by_key(|m| m.target.as_os_str().len());
        let hidden = sysctls.filter(|m| m.read_only).map(|_| vec![PathBuf::from("/proc/sys")]);
        let known = |m: &MountPoint| {
            let mut mount = Mount::default();
            mount.set_destination(m.target.clone());
            mount.set_options(None);
            mount.set_typ(None);
            mount.set_source(None);
            if let Some(host) = source(m) {
                mount.set_typ(Some("bind".into()));
                mount.set_source(Some(host));
            }
            mount
        };
        Bundle {
            mounts: Some(mounts.iter().map(known).collect()),
            linux: Some(Linux { readonly_paths: hidden, ..Linux::default() }),
            ..Bundle::default()
        }
    }

    /// Absolute path of the root file system: `root.path` may be relative to the bundle.
    pub(super) fn rootfs(&self, bundle: &Path) -> PathBuf {
        bundle.join(self.root.as_ref().map_or(Path::new("rootfs"), |r| r.path()))
    }

    /// The mount that covers `directory`: the nearest at or above it, and the last of equal ones.
    /// By name only; the hook checks in the container's mount namespace what is really there.
    pub(super) fn volume_at(&self, directory: &str, life: Life<'_>) -> Option<Volume> {
        let wanted = Path::new(directory);
        let mut best: Option<(usize, &Mount)> = None;
        for mount in self.mounts.iter().flatten() {
            let target = normal(mount.destination());
            let depth = target.components().count();
            if depth > 1 && wanted.starts_with(&target) && best.is_none_or(|(d, _)| depth >= d) {
                best = Some((depth, mount));
            }
        }
        let mount = best?.1;
        let source = host_source(mount);
        // What is written to an overlay is in its upper layer.
        let upper = mount.options().iter().flatten().find_map(|o| o.strip_prefix("upperdir="));
        Some(Volume {
            target: normal(mount.destination()).to_string_lossy().into_owned(),
            is_own: source.or(upper.map(Path::new)).is_some_and(|path| life.takes(path)),
            source: source.map(|s| s.to_string_lossy().into_owned()),
        })
    }

    /// Whether a pattern's path is a directory of the bundle's root file system.
    pub(super) fn has_directory(&self, bundle: &Path, pattern: &Template) -> bool {
        let path = pattern.to_string();
        let found = || {
            let root = file::open_dir(&self.rootfs(bundle)).ok()?;
            resolve(root, path.trim_start_matches('/').as_ref(), Below::InRoot, Want::Directory)
                .ok()
        };
        !pattern.is_relative() && !path.contains('%') && found().is_some()
    }

    /// Where the kubelet reads what the container says at its end: it mounts
    /// `<root>/pods/<UID>/containers/<name>/<number>` there.
    pub(super) fn termination_log(&self) -> Option<String> {
        let is_it = |source: &Path| {
            let parts: Vec<_> = source.iter().rev().take(5).collect();
            matches!(parts.as_slice(), [_, _, c, _, p] if *c == "containers" && *p == "pods")
        };
        let mut mounts = self.mounts.iter().flatten();
        let mount = mounts.find(|mount| host_source(mount).is_some_and(is_it))?;
        normal(mount.destination()).to_str().map(str::to_owned)
    }

    /// The RLIMIT_CORE in config.json, soft and hard, in bytes.
    pub(super) fn core_limit(&self) -> Option<(u64, u64)> {
        let limits = self.process.as_ref()?.rlimits.as_ref()?;
        limits.iter().find(|l| l.r#type == "RLIMIT_CORE").map(|l| (l.soft, l.hard))
    }

    /// The SELinux label of the container's files, which it may write to, if there is one.
    pub(super) fn mount_label(&self) -> Option<&str> {
        self.linux.as_ref()?.mount_label.as_deref().filter(|label| !label.is_empty())
    }

    /// The program that is the first process of a PID namespace of its own without being an init.
    pub(super) fn first_program(&self) -> Option<&str> {
        let own = |n: &Namespace| n.r#type == "pid" && n.path.is_none();
        let namespaces = self.linux.as_ref()?.namespaces.as_ref()?;
        let program = self.process.as_ref()?.args.as_ref()?.first()?;
        let name = program.rsplit('/').next()?;
        (namespaces.iter().any(own) && !is_init(name)).then_some(name)
    }

    /// Whether the container cannot write the host's sysctls. Only then may its own pattern be
    /// shown in place of the host's.
    pub(super) fn hides_sysctls(&self) -> bool {
        let paths = self.linux.iter().filter_map(|l| l.readonly_paths.as_ref()).flatten();
        paths.into_iter().any(|p| Path::new("/proc/sys/kernel/core_pattern").starts_with(p))
    }
}

/// The source of a bind mount.
fn host_source(mount: &Mount) -> Option<&Path> {
    let bind = mount.typ().as_deref() == Some("bind")
        || mount.options().iter().flatten().any(|o| o == "bind" || o == "rbind");
    mount.source().as_deref().filter(|source| bind && source.is_absolute())
}

fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_as_the_first_process() {
        let of = |namespaces: &str, program: &str| {
            let process = format!(r#""process":{{"args":["{program}","x"]}}"#);
            let text = format!(r#"{{{process},"linux":{{"namespaces":[{namespaces}]}}}}"#);
            let bundle = Bundle::parse(text.as_bytes()).unwrap();
            bundle.first_program().map(str::to_owned)
        };
        let own = r#"{"type":"mount"},{"type":"pid"}"#;
        assert_eq!(of(own, "/usr/bin/java").as_deref(), Some("java"));
        assert_eq!(of(own, "/run/podman-init"), None);
        assert_eq!(of(r#"{"type":"pid","path":"/proc/7/ns/pid"}"#, "java"), None);
        assert_eq!(of("", "java"), None);
    }

    const CONFIG: &[u8] = br#"{"root":{"path":"rootfs","readonly":true},
        "annotations":{"a":"b"},"future":{"x":1},
        "process":{"rlimits":[{"type":"RLIMIT_NEW","soft":1,"hard":1},
                              {"type":"RLIMIT_CORE","soft":0,"hard":5}]},
        "linux":{"readonlyPaths":["/proc/bus","/proc/sys"],
                 "mountLabel":"system_u:object_r:container_file_t:s0:c1,c2"},
        "mounts":[{"destination":"/proc","type":"proc","source":"proc"},
                  {"destination":"/data","type":"bind","source":"/srv/a","options":["rbind"]},
                  {"destination":"/data/./dump/","source":"/srv/b","options":["bind","ro"]},
                  {"destination":"/tmp","type":"tmpfs","source":"tmpfs"}]}"#;

    const LIFE: Life<'_> = Life { id: "c1", auto_remove: false };

    /// podman's anonymous volume, its overlay volume, and containerd's volume of an image.
    #[test]
    fn volumes_that_go_with_the_container() {
        let hash = "0123456789abcdef".repeat(4);
        let text = format!(
            r#"{{"mounts":[
            {{"destination":"/a","type":"bind","source":"/v/{hash}/_data"}},
            {{"destination":"/named","type":"bind","source":"/v/cores/_data"}},
            {{"destination":"/o","type":"overlay","source":"/s/c1/merge",
              "options":["lowerdir=/x","upperdir=/s/c1/upper","workdir=/s/c1/work"]}},
            {{"destination":"/p","type":"overlay","source":"overlay",
              "options":["lowerdir=/x","upperdir=/srv/upper","workdir=/srv/work"]}},
            {{"destination":"/i","type":"bind","source":"/ctd/containers/c1/volumes/7f"}}]}}"#
        );
        let b = Bundle::parse(text.as_bytes()).unwrap();
        let own = |auto_remove| {
            ["/a", "/named", "/o", "/p", "/i"]
                .map(|d| b.volume_at(d, Life { id: "c1", auto_remove }).unwrap().is_own)
        };
        assert_eq!(own(false), [false, false, true, false, true]);
        assert_eq!(own(true), [true, false, true, false, true]);
    }

    #[test]
    fn the_kubelets_termination_log() {
        let of = |source: &str| {
            let mount = format!(r#""destination":"/run/./last","type":"bind","source":"{source}""#);
            let text = format!(r#"{{"mounts":[{{{mount}}}]}}"#);
            Bundle::parse(text.as_bytes()).unwrap().termination_log()
        };
        let kubelets = "/var/lib/kubelet/pods/u-1/containers/app/0a1b2c3d";
        assert_eq!(of(kubelets).as_deref(), Some("/run/last"));
        assert_eq!((of("/pods/u/etc-hosts"), of("/srv/containers/app/0a1b2c3d")), (None, None));
    }

    #[test]
    fn reads_what_it_needs() {
        let b = Bundle::parse(CONFIG).unwrap();
        assert_eq!(b.rootfs(Path::new("/run/b")), PathBuf::from("/run/b/rootfs"));
        assert_eq!(b.core_limit(), Some((0, 5)));
        assert!(b.hides_sysctls());
        assert_eq!(b.mount_label(), Some("system_u:object_r:container_file_t:s0:c1,c2"));
        assert_eq!(crate::annotation::of_config_json(CONFIG).unwrap()["a"], "b");
        let nulls =
            br#"{"root":null,"mounts":null,"process":null,"linux":null,"annotations":null}"#;
        assert!(
            !Bundle::parse(nulls).unwrap().hides_sysctls()
                && crate::annotation::of_config_json(nulls).unwrap().is_empty()
        );
        assert_eq!(Bundle::parse(br#"{"linux":{"mountLabel":""}}"#).unwrap().mount_label(), None);
        assert!(Bundle::parse(b"[").is_err());
    }

    #[test]
    fn of_a_container_that_runs() {
        let point = |target: &str, read_only| MountPoint {
            device: "8:1".into(),
            root: "/".into(),
            target: target.into(),
            read_only,
        };
        let mounts = |sysctls_closed| {
            [
                point("/", true),
                point("/proc", false),
                point("/proc/sys", sysctls_closed),
                point("/data", false),
                point("/tmp", false),
            ]
        };
        let source =
            |m: &MountPoint| (m.target == Path::new("/data")).then(|| PathBuf::from("/srv/a"));
        let b = Bundle::of_running(&mounts(true), source);
        assert!(b.hides_sysctls() && !Bundle::of_running(&mounts(false), source).hides_sysctls());
        assert!(
            !Bundle::of_running(&[point("/", true), point("/proc", false)], source).hides_sysctls()
        );
        let at = |d| b.volume_at(d, LIFE).map(|v| (v.target, v.source));
        assert_eq!(at("/data/x"), Some(("/data".into(), Some("/srv/a".into()))));
        assert_eq!((at("/tmp/x"), at("/var")), (Some(("/tmp".into(), None)), None));
        assert_eq!(b.core_limit(), None);
    }

    #[test]
    fn the_nearest_mount() {
        let b = Bundle::parse(CONFIG).unwrap();
        let at = |d| b.volume_at(d, LIFE).map(|v| (v.target, v.source));
        assert_eq!(at("/data/dump/x"), Some(("/data/dump".into(), Some("/srv/b".into()))));
        assert_eq!(at("/data"), Some(("/data".into(), Some("/srv/a".into()))));
        assert_eq!(at("/tmp/cores"), Some(("/tmp".into(), None)));
        assert_eq!(at("/database"), None);
        assert_eq!(at("/"), None);
    }
}
