//! What is known of a registered container, and the names under which it is found.

use crate::limits::Limits;
use crate::pattern::Template;
use crate::record::{Location, Names};
use crate::sys::proc::{Cgroup, Proc};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Who the container's init process is, so that a reused number of any kind does not match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// PID on the host.
    pub pid: i32,
    /// Its start, clock ticks since boot.
    pub start_time: u64,
    /// Inode of its mount namespace.
    pub mount_ns: u64,
    /// Number of its mount namespace that is never reused, where the kernel has one.
    pub mount_ns_id: Option<u64>,
    /// Inode of its PID namespace, where it is the first process of it.
    pub pid_ns: Option<u64>,
    /// Its cgroup, where that is its own: the index key.
    pub cgroup: Option<String>,
    /// The UID of its pod, where a kubelet has put it into that pod's cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

/// What lies behind the pattern's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// On what cores land.
    pub location: Location,
    /// A directory inside the container and the host's directory that it
    /// shows, where both are known.
    pub mount: Option<(String, String)>,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// ID and names.
    pub names: Names,
    /// The init process.
    pub init: Init,
    /// The core(5) template.
    pub pattern: String,
    /// `kernel.core_uses_pid` for this container.
    pub append_pid: bool,
    /// Most bytes of one core, where the container says so.
    pub limit: Option<u64>,
    /// The soft RLIMIT_CORE that the hook set, in bytes, `u64::MAX` for
    /// unlimited; poststart sets it again.
    pub soft_limit: Option<u64>,
    /// Compress cores with zstd.
    #[serde(default)]
    pub compress: bool,
    /// Let the crashed process go before its core is whole.
    #[serde(default)]
    pub early: bool,
    /// Lower limits than the host's, where the container says so.
    #[serde(default)]
    pub limits: Limits,
    /// Where cores land.
    pub place: Place,
    /// Why the request was refused; such an entry is in no index.
    pub refused: Option<String>,
    /// The store of the user who registered this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<PathBuf>,
    /// That user, where it is not root. Nothing that stands in a file: it
    /// is who the file belongs to.
    #[serde(skip)]
    pub user: Option<u32>,
}

impl Entry {
    /// An entry that a user wrote, held to the rules that root's hook keeps by itself. What it says
    /// of places on the host is his word, and no more.
    pub(super) fn checked(mut self, uid: u32) -> Result<Self> {
        check_id(&self.names.container_id)?;
        Template::of_container(self.pattern.as_bytes())?;
        ensure!(self.refused.is_none(), "it is a refusal");
        ensure!(
            self.store.as_ref().is_none_or(|s| s.is_absolute()),
            "store {:?} is not an absolute path",
            self.store
        );
        self.names = self.names.bounded();
        // Its memory would count as nobody's.
        self.early = false;
        self.user = Some(uid);
        Ok(self)
    }

    /// Under which name limits, quotas and records of this container are counted: by what stays
    /// the same when it is started again under another ID. That is its user, where it is not
    /// root's; its pod and its name in that; the volume and the pattern, where its cores go to a
    /// volume; else its ID. The pod is known by its cgroup: annotations name any. All but IDs
    /// begin with a dot, which no ID does.
    pub fn account(&self) -> String {
        let hashed = |kind: &str, parts: &[&str]| {
            let hash = blake3::hash(parts.join("\0").as_bytes()).to_hex();
            format!(".{kind}-{}", &hash[..32])
        };
        let names = &self.names;
        if let Some(uid) = self.user {
            return format!(".user-{uid}");
        }
        if let (Some(uid), Some(name)) = (&self.init.pod_uid, &names.container_name) {
            return hashed("pod", &[uid, name]);
        }
        match &self.place {
            Place { location: Location::Volume, mount: Some((_, source)) } => {
                hashed("volume", &[source, &self.pattern])
            }
            _ => names.container_id.clone(),
        }
    }

    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys = vec![mount_key(self.init.mount_ns)];
        keys.extend(self.init.pid_ns.map(pid_key));
        keys.extend(self.init.cgroup.clone());
        keys
    }

    /// Whether the init process of the entry is the process that has its PID now.
    pub fn init_lives(&self) -> bool {
        let Ok(process) = Proc::open(self.init.pid) else { return false };
        process.start_time().is_ok_and(|t| t == self.init.start_time)
            && process.is_zombie().is_ok_and(|zombie| !zombie)
    }
}

/// Index key of a mount namespace.
pub fn mount_key(inode: u64) -> String {
    format!("mnt-{inode}")
}

/// Index key of a PID namespace.
pub fn pid_key(inode: u64) -> String {
    format!("pid-{inode}")
}

/// Index keys of a cgroup and everything above it, the nearest first; none for the root.
pub fn cgroup_keys(group: &Cgroup) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = group.path.as_slice();
    while path.len() > 1 {
        let name = format!("cgroup-{}-{}", group.controllers.escape_ascii(), path.escape_ascii())
            .replace('/', "!");
        // A longer one cannot be a file name: it was never registered either.
        if name.len() <= 255 {
            keys.push(name);
        }
        path = &path[..path.iter().rposition(|b| *b == b'/').unwrap_or(0)];
    }
    keys
}

/// The UID of the pod to which a process belongs, by the cgroups that a kubelet makes: `pod<UID>`
/// below a `kubepods`, with `_` for `-` where systemd's names are used. The inmost counts.
pub fn pod_uid(groups: &[Cgroup]) -> Option<String> {
    let of = |group: &Cgroup| {
        let path = String::from_utf8(group.path.clone()).ok()?;
        let (_, below) = path.split_once("kubepods")?;
        below.rsplit('/').find_map(|part| {
            let part = part.strip_suffix(".slice").unwrap_or(part);
            let (before, uid) = part.rsplit_once("pod")?;
            let uid = uid.replace('_', "-");
            let is_uid = uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
            (is_uid && (before.is_empty() || before.ends_with('-'))).then_some(uid)
        })
    };
    groups.iter().find_map(of)
}

/// Whether a container ID may be a file name: what runc accepts, and no dot file.
pub fn check_id(id: &str) -> Result<()> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
    ensure!(
        !id.is_empty() && id.len() <= 200 && !id.starts_with('.') && id.bytes().all(legal),
        "container ID {id:?}: expected 1 to 200 letters, digits, _ + - or ."
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_keys_walk_up() {
        let keys =
            |c: &[u8], p: &[u8]| cgroup_keys(&Cgroup { controllers: c.to_vec(), path: p.to_vec() });
        assert_eq!(
            keys(b"", b"/pods/a/b"),
            ["cgroup--!pods!a!b", "cgroup--!pods!a", "cgroup--!pods"]
        );
        assert_eq!(keys(b"memory", b"/x"), ["cgroup-memory-!x"]);
        assert!(keys(b"", b"/").is_empty());
        assert!(keys(b"", &b"/x".repeat(200)).len() < 200);
    }

    #[test]
    fn pods_are_known_by_their_cgroups() {
        let of = |path: &str| {
            pod_uid(&[
                Cgroup { controllers: b"cpu".to_vec(), path: b"/".to_vec() },
                Cgroup { controllers: vec![], path: path.as_bytes().to_vec() },
            ])
        };
        const UID: &str = "0f3c8a1e-77aa-4c6e-9f3d-2b1f5a6e7d80";
        let with_lines = UID.replace('-', "_");
        for path in [
            format!("/kubepods/besteffort/pod{UID}/8f3b"),
            format!("/kubepods/pod{UID}/crio-8f3b"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/\
                 kubepods-burstable-pod{with_lines}.slice/x.scope"
            ),
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{with_lines}.slice/y"
            ),
        ] {
            assert_eq!(of(&path).as_deref(), Some(UID), "{path}");
        }
        // A static pod's is a hash of its manifest.
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(of(&format!("/kubepods/pod{hash}/x")).as_deref(), Some(hash));
        for path in [
            "/".to_owned(),
            format!("/machine.slice/pod{UID}"),
            "/kubepods/burstable/podshort/x".into(),
            format!("/kubepods/tripod{UID}/x"),
        ] {
            assert_eq!(of(&path), None, "{path}");
        }
    }

    /// A name alone is nobody's: any annotation may say it.
    #[test]
    fn accounts() {
        let mut entry = Entry::default();
        entry.names.container_id = "8f3b".into();
        entry.names.container_name = Some("app".into());
        entry.names.pod_name = Some("web-0".into());
        entry.names.pod_namespace = Some("prod".into());
        assert_eq!(entry.account(), "8f3b");
        entry.place = Place {
            location: Location::Volume,
            mount: Some(("/dump".into(), "/srv/volume".into())),
        };
        assert!(entry.account().starts_with(".volume-"));
        entry.init.pod_uid = Some("0f3c8a1e".into());
        let pod = entry.account();
        assert!(pod.starts_with(".pod-"));
        entry.names.container_name = Some("sidecar".into());
        assert_ne!(entry.account(), pod);
        entry.user = Some(1000);
        assert_eq!(entry.account(), ".user-1000");
    }

    #[test]
    fn ids_are_plain_names() {
        for good in ["a", "8f3b", "pod_1.x+y-z"] {
            check_id(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", ".hidden", "a b", "a\n", &"x".repeat(201)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }
}
