//! The cores that a container has already, and removing some of them for a new one.
//!
//! Those on volumes and in layers are looked for by the writer, as the crashed process sees them,
//! and removed with its rights: what it may not remove stays. Those in the host's store are looked
//! for and removed by the host; the container's view of the store, which is read-only, is not
//! trusted.

use super::crasher::open_dir;
use super::create_file::split;
use crate::dump::policy::plan::Rights;
use crate::dump::policy::quota::KeptCore;
use crate::registry::check_id;
use crate::store::{Store, tree};
use crate::sys::file::FileIdentity;
use crate::sys::proc::os;
use crate::sys::{Errno, OwnedFd, file};
use std::ffi::OsStr;
use std::path::Path;

/// What the crashed process sees of its container's cores.
pub(crate) struct CrasherView<'a> {
    /// Its root directory, as a path.
    pub root: &'a [u8],
    /// It has the mounts of the container's first process. With others it does not see what is
    /// there.
    pub at_home: bool,
    /// Whose rights are used. With the container root's no core is removed.
    pub rights: Rights,
}

impl CrasherView<'_> {
    /// Which of the cores are there, and which have gone: removed, renamed, replaced by another
    /// file.
    pub(crate) fn look(&self, cores: &[KeptCore]) -> (Vec<KeptCore>, Vec<FileIdentity>) {
        let is_there =
            |core: &KeptCore| core.stored.is_some() || !matches!(self.find(core), OlderCore::Gone);
        let (there, gone): (Vec<_>, Vec<_>) = cores.iter().cloned().partition(is_there);
        (there, gone.iter().map(|core| core.identity).collect())
    }

    /// Removes a core that is not in the store, if what has its name is that very file.
    ///
    /// # Errors
    /// Why it stays.
    pub(crate) fn remove(&self, core: &KeptCore) -> Result<(), String> {
        match self.find(core) {
            OlderCore::Gone => Ok(()),
            OlderCore::There(..) if self.rights == Rights::ContainerRoot => {
                Err("in dump mode 2 none is removed".into())
            }
            OlderCore::There(dir, name) => {
                file::unlink(dir, os(name)).map_err(|e| format!("{e:#}"))
            }
            OlderCore::Unknown(why) => Err(why),
        }
    }

    fn find<'a>(&self, core: &'a KeptCore) -> OlderCore<'a> {
        let Some(path) = core.path.as_deref().map(str::as_bytes) else {
            return OlderCore::Unknown("its path is not known: it is not UTF-8".into());
        };
        if core.root.as_bytes() != self.root {
            return OlderCore::Unknown("it was written by a process with another root".into());
        }
        let (dir, name) = split(path);
        let found = open_dir(self.rights, dir)
            .and_then(|dir| file::identity_at(&dir, os(name)).map(|found| (dir, found)));
        match found {
            Ok((dir, found)) if found.is_same_file(&core.identity) => OlderCore::There(dir, name),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) if self.at_home => OlderCore::Gone,
            Ok(_) => OlderCore::Unknown("the process that crashes has other mounts".into()),
            Err(e) => OlderCore::Unknown(format!("{}: {e}", path.escape_ascii())),
        }
    }
}

enum OlderCore<'a> {
    There(OwnedFd, &'a [u8]),
    Gone,
    Unknown(String),
}

/// Cores in the host's store, looked at by the host.
pub(crate) struct Stored<'a>(pub &'a Store);

impl Stored<'_> {
    /// Those that have gone.
    pub(crate) fn gone(&self, cores: &[KeptCore]) -> Vec<FileIdentity> {
        let is_gone = |core: &&KeptCore| core.stored.is_some() && self.find(core).is_none();
        cores.iter().filter(is_gone).map(|core| core.identity).collect()
    }

    /// Removes one. That it has gone is no error.
    ///
    /// # Errors
    /// It stays.
    pub(crate) fn remove(&self, core: &KeptCore) -> anyhow::Result<()> {
        self.find(core).map_or(Ok(()), |(dir, name)| file::unlink(dir, name))
    }

    fn find<'a>(&self, core: &'a KeptCore) -> Option<(OwnedFd, &'a OsStr)> {
        let (id, below) = core.stored.as_deref()?.split_once('/')?;
        check_id(id).ok()?;
        let (dir, name) =
            tree::parent(&file::open_dir(&self.0.container_path(id)).ok()?, Path::new(below))?;
        let found = file::identity_at(&dir, name).ok()?;
        found.is_same_file(&core.identity).then_some((dir, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let core = |name: &str| {
            std::fs::write(path(name), name).unwrap();
            let identity =
                file::identity_at(file::open_dir(dir.path()).unwrap(), name.as_ref()).unwrap();
            KeptCore {
                path: Some(path(name).to_str().unwrap().into()),
                root: "/".into(),
                identity,
                size: 4,
                stored: None,
            }
        };
        let cores = ["kept", "replaced", "renamed", "linked", "elsewhere", "again"].map(core);
        // Very likely under the same number.
        std::fs::remove_file(path("again")).unwrap();
        std::fs::write(path("again"), "mine").unwrap();
        std::fs::write(path("other"), "").unwrap();
        std::fs::rename(path("other"), path("replaced")).unwrap();
        std::fs::rename(path("renamed"), path("mine")).unwrap();
        std::fs::rename(path("linked"), path("target")).unwrap();
        std::os::unix::fs::symlink("target", path("linked")).unwrap();
        let elsewhere = KeptCore { root: "/jail".into(), ..cores[4].clone() };
        let cores = [&cores[..4], &[elsewhere], &cores[5..]].concat();

        let view = |root, at_home| CrasherView { root, at_home, rights: Rights::Crasher };
        let (there, gone) = view(b"/", true).look(&cores);
        assert_eq!(there, [cores[0].clone(), cores[4].clone()]);
        assert_eq!(gone, [1, 2, 3, 5].map(|i| cores[i].identity));
        // A process with other mounts knows of none that it has gone.
        assert_eq!(view(b"/", false).look(&cores).1, []);
        assert!(view(b"/", true).remove(&cores[4]).is_err());
        for i in [0, 1, 2, 3, 5] {
            view(b"/", true).remove(&cores[i]).unwrap();
        }
        let left: Vec<_> = ["kept", "replaced", "mine", "linked", "target", "elsewhere", "again"]
            .iter()
            .filter(|n| path(n).symlink_metadata().is_ok())
            .copied()
            .collect();
        assert_eq!(left, ["replaced", "mine", "linked", "target", "elsewhere", "again"]);
    }

    /// In dump mode 2.
    #[test]
    fn root_removes_nobodys_core() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core.7");
        std::fs::write(&path, "core").unwrap();
        let opened = file::open_dir(dir.path()).unwrap();
        let core = KeptCore {
            path: Some(path.to_str().unwrap().into()),
            root: "/".into(),
            identity: file::identity_at(opened, "core.7".as_ref()).unwrap(),
            size: 4,
            stored: None,
        };
        let of = |rights| CrasherView { root: b"/", at_home: true, rights };
        assert_eq!(of(Rights::ContainerRoot).look(std::slice::from_ref(&core)).1, []);
        of(Rights::ContainerRoot).remove(&core).unwrap_err();
        assert!(path.exists());
        of(Rights::Crasher).remove(&core).unwrap();
        assert!(!path.exists());
    }

    /// What the container sees does not count.
    #[test]
    fn in_the_store_by_the_hosts_side() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at(&dir.path().join("store")).unwrap();
        let of = |id: &str| {
            let dir = store.container_dir(id, (0, 0)).unwrap();
            std::fs::write(store.container_path(id).join("core.7"), id).unwrap();
            let identity = file::identity_at(dir, "core.7".as_ref()).unwrap();
            let path = Some("/nowhere/core.7".into());
            let stored = Some(format!("{id}/core.7"));
            KeptCore { path, root: "/".into(), identity, size: 4, stored }
        };
        let cores = ["first", "second", "third"].map(of);
        std::fs::remove_file(store.container_path("second").join("core.7")).unwrap();
        let view = CrasherView { root: b"/jail", at_home: true, rights: Rights::Crasher };
        assert_eq!(view.look(&cores).1, [], "not the container's to say");
        assert_eq!(Stored(&store).gone(&cores), [cores[1].identity]);
        let led_away = KeptCore { stored: Some("../records/core.7".into()), ..cores[2].clone() };
        for core in [&cores[0], &cores[1], &led_away] {
            Stored(&store).remove(core).unwrap();
        }
        assert!(!store.container_path("first").join("core.7").exists());
        assert!(store.container_path("third").join("core.7").exists());
    }
}
