//! The entry of a registered container, and the index keys under which it is found.

use crate::bytes::Limit;
use crate::config::KeptMemory;
use crate::limits::{DiskShare, Limits};
use crate::name_conflict::Existing;
use crate::pattern::Pattern;
use crate::record::{Location, Names};
use crate::sys::proc::{Cgroup, Proc};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Identity of the container's init process, complete enough that reused numbers do not match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InitProcess {
    /// PID of the init process in the initial PID namespace.
    pub pid: i32,
    /// Its start time, in clock ticks since boot.
    pub start_time: u64,
    /// Inode of its mount namespace.
    pub mount_ns: u64,
    /// Number of its mount namespace that is never reused, if the kernel has one.
    pub mount_ns_id: Option<u64>,
    /// Inode of its PID namespace, if it is PID 1 of that namespace.
    pub pid_ns: Option<u64>,
    /// Its cgroup as an index key, if the cgroup is the container's own.
    pub cgroup: Option<String>,
    /// The UID of its pod, if a kubelet placed it in that pod's cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

/// Where the cores of the container are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DumpPlace {
    /// Storage location of the directory in the pattern.
    pub location: Location,
    /// A directory inside the container and the host's directory that is mounted
    /// there, if both are known.
    pub mount: Option<(String, String)>,
    /// Whether its file system is memory, which counts as the container's.
    #[serde(default)]
    pub is_memory: bool,
}

/// A registered container, as /run/oci-coredump/containers/<id>.json has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Container ID and the other names.
    pub names: Names,
    /// Identity of the init process.
    pub init: InitProcess,
    /// The pattern. Only a refused entry has none, which is an empty text in the file.
    #[serde(with = "text_or_empty")]
    pub pattern: Option<Pattern>,
    /// Whether `.PID` is appended to a pattern without `%p`, as `kernel.core_uses_pid=1` does.
    pub append_pid: bool,
    /// Most bytes of one core, if the container gives a limit.
    #[serde(default)]
    pub limit: Limit,
    /// The soft RLIMIT_CORE that the hook set. poststart sets it again.
    pub soft_limit: Option<Limit>,
    /// Whether cores are compressed with zstd while they are written.
    #[serde(default)]
    pub compress: bool,
    /// Release the crashed process before its core is complete.
    #[serde(default, rename = "early")]
    pub early_release: bool,
    /// Its crashes are not to be uploaded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_upload: bool,
    /// What happens where a core's name exists already.
    #[serde(default)]
    pub existing: Existing,
    /// How much of the memory its cores keep.
    #[serde(default, skip_serializing_if = "KeptMemory::is_all")]
    pub keep: KeptMemory,
    /// Whether the writer makes the directories that a specifier of the pattern names.
    #[serde(default)]
    pub make_directories: bool,
    /// Bounds by the size of the file system that the cores are on.
    #[serde(default, skip_serializing_if = "DiskShare::is_none")]
    pub share: DiskShare,
    /// Limits of the container's own, lower than the host's.
    #[serde(default)]
    pub limits: Limits,
    /// What it gets by its pattern that it may not expect, for `doctor`, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// Where its cores are stored.
    pub place: DumpPlace,
    /// Where the container's termination log is, if not at /dev/termination-log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_log: Option<String>,
    /// Why the request was refused. A refused entry has no index keys.
    pub refused: Option<String>,
    /// The store of the user who registered the container, if that is not root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<PathBuf>,
    /// The user who registered the container, if that is not root. Taken from the owner of the
    /// entry's file, never from its content.
    #[serde(skip)]
    pub user: Option<u32>,
}

impl Entry {
    /// Applies to an entry that a user wrote the rules that root's hook follows by itself. What
    /// such an entry says of places on the host is an unverified claim.
    ///
    /// # Errors
    /// Names the rule that the entry breaks.
    pub(super) fn checked(mut self, uid: u32) -> Result<Self> {
        check_id(&self.names.container_id)?;
        ensure!(self.refused.is_none(), "it is a refusal");
        ensure!(
            self.store.as_ref().is_none_or(|s| s.is_absolute()),
            "store {:?} is not an absolute path",
            self.store
        );
        self.names = self.names.bounded();
        // The memory of a released process would be counted for no one.
        self.early_release = false;
        self.user = Some(uid);
        Ok(self)
    }

    /// The text of the pattern, empty if there is none.
    pub(crate) fn pattern_text(&self) -> String {
        self.pattern.as_ref().map(Pattern::to_string).unwrap_or_default()
    }

    /// The account that limits, quotas and records of this container count for: something that
    /// stays the same when it is started again under another ID. That is its user, if not root;
    /// else its pod and its name in the pod; else the volume and the pattern, if its cores go to a
    /// volume; else its ID. The pod is taken from the cgroup, since annotations can name any pod.
    /// All accounts but IDs begin with a dot, which no ID does.
    pub(crate) fn account(&self) -> String {
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
            DumpPlace { location: Location::Volume, mount: Some((_, source)), .. } => {
                hashed("volume", &[source, &self.pattern_text()])
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

    /// Whether its container lives, and was not refused.
    pub(crate) fn is_in_force(&self) -> bool {
        self.refused.is_none() && self.init_lives()
    }

    /// Whether the process with the init's PID now is still the init process of the entry.
    pub(crate) fn init_lives(&self) -> bool {
        let Ok(process) = Proc::open(self.init.pid) else { return false };
        process.is_alive_since(self.init.start_time).unwrap_or(false)
    }
}

mod text_or_empty {
    use crate::pattern::Pattern;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(p: &Option<Pattern>, to: S) -> Result<S::Ok, S::Error> {
        p.as_ref().map(Pattern::to_string).unwrap_or_default().serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        from: D,
    ) -> Result<Option<Pattern>, D::Error> {
        let text = String::deserialize(from)?;
        (!text.is_empty()).then(|| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// Index key of a mount namespace.
pub(crate) fn mount_key(inode: u64) -> String {
    format!("mnt-{inode}")
}

/// Index key of a PID namespace.
pub(crate) fn pid_key(inode: u64) -> String {
    format!("pid-{inode}")
}

/// Index keys of a cgroup and its ancestors, the nearest first. The root has none.
pub(crate) fn cgroup_keys(group: &Cgroup) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = group.path.as_slice();
    while path.len() > 1 {
        let name = format!("cgroup-{}-{}", group.controllers.escape_ascii(), path.escape_ascii())
            .replace('/', "!");
        // A longer key cannot be a file name, so it was never registered either.
        if name.len() <= 255 {
            keys.push(name);
        }
        path = &path[..path.iter().rposition(|b| *b == b'/').unwrap_or(0)];
    }
    keys
}

/// The UID of the pod that a process belongs to, from the cgroups that a kubelet makes: `pod<UID>`
/// below `kubepods`, with `_` for `-` where systemd names are used. The innermost one counts.
pub(crate) fn pod_uid(groups: &[Cgroup]) -> Option<String> {
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

/// Checks that a container ID can be a file name: the characters that runc
/// accepts, and no leading dot.
///
/// # Errors
/// Names the ID.
pub(crate) fn check_id(id: &str) -> Result<()> {
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
        // A static pod's UID is a hash of its manifest.
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

    /// A name alone selects no account, since any annotation may give it.
    #[test]
    fn accounts() {
        let mut entry = Entry::default();
        entry.names.container_id = "8f3b".into();
        entry.names.container_name = Some("app".into());
        entry.names.pod_name = Some("web-0".into());
        entry.names.pod_namespace = Some("prod".into());
        assert_eq!(entry.account(), "8f3b");
        entry.place = DumpPlace {
            location: Location::Volume,
            mount: Some(("/dump".into(), "/srv/volume".into())),
            is_memory: false,
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

    /// The file is as it was when the pattern was a text: programs before and after an upgrade
    /// read each other's.
    #[test]
    fn patterns_in_the_file() {
        let with = |pattern: &str| {
            let mut entry = serde_json::to_value(Entry::default()).unwrap();
            assert_eq!(entry["pattern"], "");
            entry["pattern"] = pattern.into();
            let entry: Entry = serde_json::from_value(entry)?;
            assert_eq!(serde_json::to_value(&entry).unwrap()["pattern"], pattern);
            anyhow::Ok(entry.pattern)
        };
        assert_eq!(with("").unwrap(), None);
        assert_eq!(with("/d/core.%p").unwrap(), Some("/d/core.%p".parse().unwrap()));
        let e = with("|/bin/sh").unwrap_err().to_string();
        assert!(e.contains("may not name a program"), "{e}");
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
