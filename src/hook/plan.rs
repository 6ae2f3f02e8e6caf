//! Plans what the hook does for a container. Pure; a plan prints as the list of its steps.

use super::config_json::{Life, Volume};
use super::remarks;
use super::request::Request;
use super::subpath;
use crate::bytes::Limit;
use crate::config::{Config, Mode};
use crate::limits;
use crate::record::Location;
use crate::registry::DumpPlace;
use std::fmt;

/// A step in the container's file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ContainerStep {
    /// Ensure that the pattern's directory exists, and that cores in it outlive
    /// the container if possible.
    Directory {
        /// Path of the directory in the container.
        path_in_container: String,
        /// The mount of config.json that covers it, by name.
        volume: Option<Volume>,
    },
    /// Show the container its own pattern in `/proc/sys/kernel/core_pattern`.
    View,
}

/// A step on the container's processes, the registry or the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostStep {
    /// Set the soft RLIMIT_CORE; the hard one is raised for it only if the second value says so.
    Limit(Limit, bool),
    /// Set `coredump_filter`, 0 to 0x1ff.
    Filter(u32),
    /// Register the container for the dispatcher.
    Register,
    /// Ensure that the kernel pipes crashes to the dispatcher.
    Dispatch,
    /// Write the pattern itself to the kernel.
    Kernel,
}

impl fmt::Display for ContainerStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path_in_container: path, volume: None } => {
                write!(f, "dump directory {path}, on the host's store if it is missing or empty")
            }
            Self::Directory { path_in_container: path, volume: Some(v) } => {
                write!(
                    f,
                    "dump directory {path}, on the volume {} ({}{})",
                    v.target,
                    v.source.as_deref().unwrap_or("no directory of the host"),
                    if v.is_own { ", removed with the container" } else { "" }
                )
            }
            Self::View => {
                write!(f, "show the pattern in /proc/sys/kernel/core_pattern and core_uses_pid")
            }
        }
    }
}

impl fmt::Display for HostStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(Limit::Unlimited, _) => write!(f, "RLIMIT_CORE unlimited"),
            Self::Limit(Limit::Finite(n), _) => write!(f, "RLIMIT_CORE {n}"),
            Self::Filter(m) => write!(f, "coredump_filter {m:#x}"),
            Self::Register => write!(f, "register"),
            Self::Dispatch => write!(f, "kernel.core_pattern to the dispatcher"),
            Self::Kernel => write!(f, "kernel.core_pattern to the pattern"),
        }
    }
}

/// The steps for one container, in the order in which they are applied: first those in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HookPlan {
    pub in_container: Vec<ContainerStep>,
    pub on_host: Vec<HostStep>,
    /// What is wrong with the request, for the log, one line each.
    pub warnings: Vec<String>,
    /// What the container gets by its pattern that it may not expect, one line each.
    pub remarks: Vec<String>,
}

impl HookPlan {
    /// A line for each step.
    pub(super) fn lines(&self) -> Vec<String> {
        let in_container = self.in_container.iter().map(ToString::to_string);
        in_container.chain(self.on_host.iter().map(ToString::to_string)).collect()
    }
}

impl fmt::Display for HookPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("; "))
    }
}

/// Plans the steps for a request.
pub(super) fn plan(request: &Request, config: &Config) -> HookPlan {
    let directory = request.wishes.pattern.directory().filter(|d| d != "/");
    let life = Life { id: &request.names.container_id, auto_remove: request.auto_remove };
    let wishes = &request.wishes;
    let shown = wishes.pattern.to_string();
    let is_mount = request.bundle.volume_at(&shown, life).is_some_and(|v| v.target == shown);
    let volume = directory.as_deref().and_then(|at| request.bundle.volume_at(at, life));
    let mut remarks = remarks::of(
        &wishes.pattern,
        wishes.existing,
        wishes.keep.unwrap_or(config.keep),
        volume.as_ref(),
        config,
    );
    if is_mount {
        remarks.push(remarks::names_directory(&wishes.pattern, config.core_uses_pid));
    }
    let directory =
        directory.map(|path| ContainerStep::Directory { volume, path_in_container: path });
    let mut warnings = request.wishes.notes.clone();
    if request.wishes.early_release && !config.allow_early_release {
        warnings.push(
            "oci-coredump/release: early is not allowed here (allow_early_release in the \
             configuration), ignoring"
                .into(),
        );
    }
    let view = request.bundle.hides_sysctls().then_some(ContainerStep::View);
    let in_container = directory.into_iter().chain(view).collect();
    let mut on_host = Vec::from_iter(limit(request, &mut warnings));
    on_host.extend(request.wishes.filter.map(HostStep::Filter));
    on_host.push(HostStep::Register);
    on_host.push(match config.mode {
        Mode::Dispatch => HostStep::Dispatch,
        Mode::Kernel => HostStep::Kernel,
    });
    HookPlan { in_container, on_host, warnings, remarks }
}

/// The soft limit to set. Where config.json has no limit, the hard one may be raised for it.
fn limit(request: &Request, warnings: &mut Vec<String>) -> Option<HostStep> {
    let (asked, there) = (request.wishes.limit, request.bundle.core_limit());
    let soft = limits::soft_core_limit(asked, there)?;
    if there.is_some_and(|(_, hard)| hard == 0) && asked != Some(Limit::Finite(0)) {
        warnings.push(
            "the container's own hard RLIMIT_CORE is 0, there will be no core: remove it, or start \
             the container with `--ulimit core=-1`"
                .into(),
        );
    }
    Some(HostStep::Limit(soft, there.is_none()))
}

/// What the hook finds at the pattern's directory in the container's mount namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DumpDirectory {
    /// Whether it is on another mount than the root file system.
    pub mounted: bool,
    /// Whether its file system is memory-backed.
    pub memory: bool,
    /// Whether the directory has no entries.
    pub empty: bool,
}

/// The storage location of cores, which determines whether the host's store is mounted there.
/// Existing files are never hidden.
pub(super) fn place(
    found: DumpDirectory,
    directory: &str,
    volume: Option<&Volume>,
    store: &str,
) -> DumpPlace {
    let known = |v: &Volume| v.source.clone().map(|s| (v.target.clone(), s));
    let is_memory = found.memory && found.mounted;
    let at = |location, mount| DumpPlace { location, mount, is_memory };
    if !found.mounted {
        return match found.empty {
            true => at(Location::Store, Some((directory.to_owned(), store.to_owned()))),
            false => at(Location::Layer, None),
        };
    }
    let mount = volume.and_then(known);
    let location = match &mount {
        _ if volume.is_some_and(|v| v.is_own) => Location::OwnVolume,
        // A tmpfs that is mounted from nowhere is the container's own.
        None if is_memory => Location::Memory,
        Some((_, source)) if is_memory && subpath::is_of_pod(source) => Location::PodMemory,
        _ => Location::Volume,
    };
    at(location, mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let volume = Volume { target: "/d".into(), source: Some("/srv".into()), is_own: false };
        let at = |mounted, memory, empty, v| {
            place(DumpDirectory { mounted, memory, empty }, "/d/x", v, "/store/c")
        };
        let is = |location, mount: Option<(&str, &str)>, is_memory| DumpPlace {
            location,
            mount: mount.map(|(target, source)| (target.to_owned(), source.to_owned())),
            is_memory,
        };
        let srv = Some(("/d", "/srv"));
        assert_eq!(at(true, false, true, Some(&volume)), is(Location::Volume, srv, false));
        assert_eq!(at(true, false, false, None), is(Location::Volume, None, false));
        assert_eq!(
            at(false, false, true, None),
            is(Location::Store, Some(("/d/x", "/store/c")), false)
        );
        // The container's own tmpfs, one of the host's, and an emptyDir.
        assert_eq!(at(true, true, true, None), is(Location::Memory, None, true));
        assert_eq!(at(true, true, true, Some(&volume)), is(Location::Volume, srv, true));
        let pods = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/tmp";
        let empty = Volume { source: Some(pods.into()), ..volume.clone() };
        assert_eq!(
            at(true, true, true, Some(&empty)),
            is(Location::PodMemory, Some(("/d", pods)), true)
        );
        let own = Volume { is_own: true, ..volume.clone() };
        assert_eq!(at(true, false, true, Some(&own)), is(Location::OwnVolume, srv, false));
        assert_eq!(at(false, false, false, None).location, Location::Layer);
        // A container whose whole root is in memory can still use the store.
        assert_eq!(at(false, true, true, None).location, Location::Store);
    }
}
