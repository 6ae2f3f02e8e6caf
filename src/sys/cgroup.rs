//! Joining another process's control groups, so that what we write is charged to them.

use super::proc::Cgroup;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Where the hierarchies are mounted, by the convention that every distribution follows.
const ROOT: &str = "/sys/fs/cgroup";

/// Moves this process into the memory and block I/O groups of `groups`: cgroup v2's one hierarchy, or those two of v1. Returns whether it is charged there now.
///
/// # References
/// cgroups(7): `cgroup.procs`; 0 is the writer itself.
pub fn join(groups: &[Cgroup]) -> bool {
    let mut joined = false;
    for group in groups.iter().filter(|g| g.path != b"/") {
        let charges = group.controllers.is_empty() || group.controllers.split(|b| *b == b',').any(|c| c == b"memory" || c == b"blkio");
        joined |= charges && places(group).into_iter().any(|dir| std::fs::write(dir.join("cgroup.procs"), "0").is_ok());
    }
    joined
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
        assert_eq!(of(b"", b"/pods/a"), [PathBuf::from("/sys/fs/cgroup/pods/a"), PathBuf::from("/sys/fs/cgroup/unified/pods/a")]);
        assert_eq!(of(b"memory", b"/a"), [PathBuf::from("/sys/fs/cgroup/memory/a"), PathBuf::from("/sys/fs/cgroup/memory/a")]);
    }

    #[test]
    fn the_root_charges_nobody() {
        assert!(!join(&[Cgroup { controllers: vec![], path: b"/".to_vec() }]));
        assert!(!join(&[]));
    }
}
