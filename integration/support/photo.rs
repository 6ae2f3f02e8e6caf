//! A snapshot of everything that installing and uninstalling must leave as it was: every file of
//! the directories that an installation may touch, and the sysctls.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::host::{RUN, STORE};

const DIRECTORIES: [&str; 7] = [
    "/etc",
    "/opt",
    "/usr/libexec/oci",
    "/usr/share/containers",
    RUN,
    STORE,
    "/usr/lib/systemd/system",
];
const SYSCTLS: [&str; 4] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/core_uses_pid",
    "/proc/sys/kernel/core_pipe_limit",
    "/proc/sys/fs/suid_dumpable",
];

/// Path, and what is there: mode, owner and content.
#[derive(Debug, PartialEq, Eq)]
pub struct Photo(BTreeMap<PathBuf, (u32, u32, Vec<u8>)>);

impl Photo {
    /// Of the host, and of further files.
    pub fn take(more: &[&Path]) -> Self {
        let mut all = BTreeMap::new();
        DIRECTORIES
            .iter()
            .chain(&SYSCTLS)
            .map(Path::new)
            .chain(more.iter().copied())
            .for_each(|path| look(path, &mut all));
        assert!(all.len() > 100, "only {} files", all.len());
        Self(all)
    }

    /// Panics with the names of what differs.
    pub fn assert_unchanged(&self, more: &[&Path]) {
        let now = Self::take(more);
        let paths = self.0.keys().chain(now.0.keys());
        let differ: std::collections::BTreeSet<_> =
            paths.filter(|path| self.0.get(*path) != now.0.get(*path)).collect();
        assert!(differ.is_empty(), "changed on the host: {differ:#?}");
    }
}

fn look(path: &Path, all: &mut BTreeMap<PathBuf, (u32, u32, Vec<u8>)>) {
    let Ok(meta) = path.symlink_metadata() else { return };
    let content = if meta.is_symlink() {
        fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
    } else if meta.is_file() {
        fs::read(path).unwrap_or_default()
    } else {
        Vec::new()
    };
    all.insert(path.to_owned(), (meta.mode(), meta.uid(), content));
    if meta.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            look(&entry.path(), all);
        }
    }
}
