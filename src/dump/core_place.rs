//! Where a core is: in the container, on the host, in the host's store; and whether it goes away
//! with its container.

use super::after::on_host::answers_at;
use super::crash::facts::Facts;
use super::policy::plan::{self, CorePlan};
use super::writer::parent::Written;
use super::writer::protocol::CreatedFile;
use crate::record::{Location, Record};
use crate::registry::Entry;
use crate::store::tree;
use crate::sys::proc::{self, printable};
use crate::sys::{self, OwnedFd};
use std::path::Path;

/// What the hook knows of the place of a container's cores, and what the crashed process sees.
#[derive(Debug)]
pub(super) struct CorePlace<'a> {
    facts: &'a Facts,
    entry: &'a Entry,
    /// Where in the container the volume is mounted, and its directory on the host.
    mount: Option<&'a (String, String)>,
    /// The container's directory in the host's store.
    pub store: Option<OwnedFd>,
}

impl<'a> CorePlace<'a> {
    /// What a user's registration says of paths on the host is not trusted: it is checked with his
    /// rights, at the end.
    pub(super) fn of(facts: &'a Facts, entry: &'a Entry) -> Self {
        let mount = entry.place.mount.as_ref().filter(|_| entry.user.is_none());
        let in_store = mount.filter(|_| entry.place.location == Location::Store);
        let store = in_store.and_then(|(_, source)| {
            let opened = sys::file::open_dir(source.as_ref());
            opened.inspect_err(|e| log::warn!("{e:#}, going on without it")).ok()
        });
        CorePlace { facts, entry, mount, store }
    }

    /// The path of a file in the container's mount namespace.
    pub(super) fn inside(&self, file: &CorePlan) -> Vec<u8> {
        let (root, cwd) = file.seen_from(self.facts);
        plan::inside_path(&file.path, root, cwd)
    }

    /// Puts both paths of a file into the record.
    pub(super) fn name_in(&self, record: &mut Record, file: &CorePlan) {
        let inside = self.inside(file);
        record.set_paths(Some(&inside), plan::host_path(&inside, self.mount).as_deref());
    }

    /// The directory on the host below which the path of a file is.
    pub(super) fn host_dir(&self, file: &CorePlan) -> Option<String> {
        plan::host_path(&self.inside(file), self.mount).and_then(|_| self.source())
    }

    fn source(&self) -> Option<String> {
        self.mount.map(|(_, source)| printable(source.as_ref()))
    }

    /// Where a core is in the store, if it is there: its container's ID and the path below that
    /// one's directory. Compared as a file: the container may have mounted something else at the
    /// path.
    pub(super) fn in_store(&self, file: &CorePlan, written: &Written) -> Option<String> {
        let (store, inside) = (self.store.as_ref()?, self.inside(file));
        let below = inside.strip_prefix(self.mount?.0.as_bytes())?;
        let (dir, name) = tree::parent(store, Path::new(proc::os(below)))?;
        let found = sys::file::identity_at(dir, name).ok()?;
        let is_it = found.is_same_file(&written.finished.identity?);
        let below = std::str::from_utf8(below).ok()?.trim_start_matches('/');
        is_it.then(|| format!("{}/{below}", self.entry.names.container_id))
    }

    /// Corrects where the record says that the core is, if that is not the file that was `made`.
    /// Returns the nested root that it is below, if it goes away with the container there.
    pub(super) fn correct(
        &self,
        record: &mut Record,
        file: &CorePlan,
        made: CreatedFile,
    ) -> Option<String> {
        let volume = self.mount.map(|(_, source)| source.as_str());
        let host = record.host_bytes();
        if self.mount.is_some() && answers_at(host.as_deref(), volume, made.id) {
            return None;
        }
        let (root, _) = file.seen_from(self.facts);
        let inside = self.inside(file);
        // Below another root the directory may still be the one that the hook knows.
        let is_below = !file.at_home || root != b"/";
        let same = plan::host_path(&plan::inside_path(&file.path, b"/", b"/"), self.mount)
            .filter(|path| is_below && answers_at(Some(path), volume, made.id));
        if let Some(path) = same {
            record.set_paths(Some(&inside), Some(&path));
            record.host_dir = self.source();
        } else if self.mount.is_some() {
            record.set_paths(Some(&inside), None);
            record.host_dir = None;
            record.location = if made.memory_backed { Location::Memory } else { Location::Layer };
        }
        (is_below && record.location.is_lost_with_container()).then(|| self.nested_root())
    }

    /// The root of a process that has another one than its container's first process: a container
    /// in the container, or chroot(2).
    fn nested_root(&self) -> String {
        match self.facts.root_path.as_slice() {
            b"/" => {
                let mounts = self.facts.task.read("mountinfo").ok();
                match mounts.and_then(|text| proc::root_mount(&text)) {
                    Some(path) => printable(&path),
                    None => "another file system".into(),
                }
            }
            path => printable(path),
        }
    }
}
