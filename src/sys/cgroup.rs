//! Another process's control groups, so that what we write is charged to them.

use super::proc::Cgroup;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Where the hierarchies are mounted, by the convention that every distribution follows.
const ROOT: &str = "/sys/fs/cgroup";

/// The memory and block I/O groups of a process, open: cgroup v2's one group, or those two of v1. The root groups charge nobody and are left out.
///
/// The ordinary way in, a write to `cgroup.procs`, stops every fork and exit of the host for a grace period of RCU (milliseconds). A process that is started in its
/// group, or a single thread that moves itself, does not.
#[derive(Debug, Default)]
pub struct Groups {
    unified: Option<File>,
    tasks: Vec<File>,
}

impl Groups {
    /// Opens them; one that has gone charges nobody any more.
    pub fn open(groups: &[Cgroup]) -> Self {
        let open = |group: &Cgroup, file: &str| {
            places(group).into_iter().find_map(|dir| {
                File::options()
                    .write(!file.is_empty())
                    .read(file.is_empty())
                    .open(dir.join(file))
                    .ok()
            })
        };
        let charges = |g: &&Cgroup| {
            g.controllers.split(|b| *b == b',').any(|c| c == b"memory" || c == b"blkio")
        };
        let below = |g: &&Cgroup| g.path != b"/";
        // With memory in a hierarchy of its own, cgroup v2's group charges nothing.
        let unified = if groups.iter().any(|g| charges(&g)) {
            None
        } else {
            groups.iter().filter(below).find(|g| g.controllers.is_empty())
        };
        Groups {
            unified: unified.and_then(|g| open(g, "")),
            tasks: groups
                .iter()
                .filter(charges)
                .filter(below)
                .filter_map(|g| open(g, "tasks"))
                .collect(),
        }
    }

    /// The group of cgroup v2 that a child is to be started in, see [`super::child::fork_into`].
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|f| f.as_fd())
    }

    /// Moves this thread, the only one of its process, into the groups of v1. Returns whether it is in all of them.
    ///
    /// # References
    /// Documentation/admin-guide/cgroup-v1/cgroups.rst: `tasks`; 0 is the writer itself.
    pub fn enter(&self) -> bool {
        self.tasks.iter().all(|mut tasks| tasks.write_all(b"0").is_ok())
    }
}

fn places(group: &Cgroup) -> Vec<PathBuf> {
    let below = |top: &str| PathBuf::from(ROOT).join(top).join(OsStr::from_bytes(&group.path[1..]));
    if group.controllers.is_empty() {
        // The second is systemd's hybrid layout.
        return vec![below(""), below("unified")];
    }
    let all = String::from_utf8_lossy(&group.controllers);
    std::iter::once(all.as_ref()).chain(all.split(',')).map(below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_groups_are() {
        let of = |c: &[u8], p: &[u8]| places(&Cgroup { controllers: c.to_vec(), path: p.to_vec() });
        assert_eq!(
            of(b"", b"/pods/a"),
            [
                PathBuf::from("/sys/fs/cgroup/pods/a"),
                PathBuf::from("/sys/fs/cgroup/unified/pods/a")
            ]
        );
        assert_eq!(
            of(b"memory", b"/a"),
            [PathBuf::from("/sys/fs/cgroup/memory/a"), PathBuf::from("/sys/fs/cgroup/memory/a")]
        );
    }

    #[test]
    fn the_root_charges_nobody() {
        let groups = Groups::open(&[
            Cgroup { controllers: vec![], path: b"/".to_vec() },
            Cgroup { controllers: b"memory".to_vec(), path: b"/".to_vec() },
        ]);
        assert!(groups.unified.is_none() && groups.tasks.is_empty());
    }
}
