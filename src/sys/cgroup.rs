//! The cgroups of another process, so that what this program writes is charged to them.

use super::proc::Cgroup;
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Where the hierarchies are mounted in every distribution.
const ROOT: &str = "/sys/fs/cgroup";

/// The accounting controllers of cgroup v1: work of a process in these groups is charged to the
/// container. Not `freezer`, in which a frozen writer could not be killed; not `pids`, whose limit
/// a container may have reached: the number of its writers is bounded by `concurrent`.
const CHARGING: [&[u8]; 5] = [b"cpu", b"cpuacct", b"cpuset", b"memory", b"blkio"];

/// The groups of a process in all accounting controllers, opened: cgroup v2's one group, or those
/// of v1. Root groups charge no one and are omitted.
///
/// The usual way in, a write to `cgroup.procs`, stops every fork and exit on the host for an
/// RCU grace period (milliseconds). A process that is started in its group, or a single thread
/// that moves itself, does not.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    unified: Option<File>,
    tasks: Vec<File>,
}

impl Groups {
    /// Opens them. A group that is gone charges no one any more.
    pub(crate) fn open(groups: &[Cgroup]) -> Self {
        let charges = |g: &&Cgroup| {
            g.controllers.split(|b| *b == b',').any(|c| CHARGING.contains(&c)) && g.path != b"/"
        };
        // With controllers in v1, the v2 group of a hybrid layout charges nothing.
        let has_v1 =
            groups.iter().any(|g| g.controllers.split(|b| *b == b',').any(|c| c == b"memory"));
        let unified = groups.iter().find(|g| g.controllers.is_empty() && g.path != b"/");
        let unified = unified.filter(|_| !has_v1).and_then(|g| {
            places(g).into_iter().find_map(|dir| File::options().read(true).open(dir).ok())
        });
        let tasks = |g| {
            let open = |dir: PathBuf| File::options().write(true).open(dir.join("tasks")).ok();
            places(g).into_iter().find_map(open)
        };
        Groups { unified, tasks: groups.iter().filter(charges).filter_map(tasks).collect() }
    }

    /// The group of cgroup v2 to start a child in, see [`super::child::fork_into`].
    pub(crate) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|f| f.as_fd())
    }

    /// Moves this process, which has one thread, into the groups. `started_there`: it is in the
    /// group of cgroup v2 already. If that group has no room for another process (`pids.max`), a
    /// process cannot be started there but may move there. Returns whether it is in all of them.
    ///
    /// # References
    /// Documentation/admin-guide/cgroup-v1/cgroups.rst: `tasks`; 0 is the writer
    /// itself. Documentation/admin-guide/cgroup-v2.rst: "Organisational operations are
    /// not blocked by PIDs limits".
    pub(crate) fn enter(&self, started_there: bool) -> bool {
        let v1 = self.tasks.iter().all(|mut tasks| tasks.write_all(b"0").is_ok());
        let move_to = |group: &File| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let procs = rustix::fs::openat(group, "cgroup.procs", flags, Mode::empty());
            procs.is_ok_and(|procs| rustix::io::write(procs, b"0").is_ok())
        };
        let v2 = started_there || self.unified.as_ref().is_none_or(move_to);
        v1 && v2
    }

    /// Whether fewer than `n` further processes and threads fit into the group
    /// of cgroup v2 (`pids.max`).
    pub(crate) fn is_short_of_processes(&self, n: u64) -> bool {
        let Some(group) = &self.unified else { return false };
        match (number(group, "pids.max"), number(group, "pids.current")) {
            (Some(most), Some(now)) => most.saturating_sub(now) < n,
            _ => false,
        }
    }
}

/// Moves a process, which has one thread, from such groups to the root of their hierarchies. The
/// groups of a container that is gone cannot be removed while a process is in them.
pub(crate) fn leave(groups: &[Cgroup], pid: i32) {
    for group in groups {
        let root = Cgroup { controllers: group.controllers.clone(), path: b"/".to_vec() };
        let name = if group.controllers.is_empty() { "cgroup.procs" } else { "tasks" };
        let file = places(&root)
            .into_iter()
            .find_map(|dir| File::options().write(true).open(dir.join(name)).ok());
        // Where it is at the root already, nothing changes.
        let _ = file.map(|mut file| file.write_all(pid.to_string().as_bytes()));
    }
}

/// Bytes of memory that a process in these groups may still take before it reaches a memory limit
/// of one of them or their ancestors. The page cache of files does not count, since it is
/// reclaimed. `None` without a limit.
pub(crate) fn headroom(groups: &[Cgroup]) -> Option<u64> {
    let v1 = groups.iter().find(|g| g.controllers.split(|b| *b == b',').any(|c| c == b"memory"));
    let group = v1.or_else(|| groups.iter().find(|g| g.controllers.is_empty()))?;
    let (limit, usage, files) = match group.controllers.is_empty() {
        true => ("memory.max", "memory.current", ["inactive_file", "active_file"]),
        false => (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            ["total_inactive_file", "total_active_file"],
        ),
    };
    let mut path = group.path.as_slice();
    let mut least = None;
    while path.len() > 1 {
        let here = Cgroup { controllers: group.controllers.clone(), path: path.to_vec() };
        let found = places(&here).into_iter().find_map(|dir| {
            let dir = File::options().read(true).open(dir).ok()?;
            text(&dir, limit).map(|limit| (dir, limit))
        });
        let left = found.and_then(|(dir, limit)| {
            // v1 expresses "unlimited" as a number beyond any machine's memory.
            let limit = limit.trim().parse::<u64>().ok().filter(|n| *n < 1 << 60)?;
            let cached = field(&dir, "memory.stat", &files);
            Some(limit.saturating_sub(number(&dir, usage)?.saturating_sub(cached)))
        });
        least = match (least, left) {
            (Some(a), Some(b)) => Some(u64::min(a, b)),
            (a, b) => a.or(b),
        };
        path = &path[..path.iter().rposition(|b| *b == b'/').unwrap_or(0)];
    }
    least
}

fn text(dir: &File, name: &str) -> Option<String> {
    let fd = rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(fd).take(64 << 10).read_to_string(&mut text).ok()?;
    Some(text)
}

fn number(dir: &File, name: &str) -> Option<u64> {
    text(dir, name)?.trim().parse().ok()
}

/// The sum of some fields in a file of `name value` lines.
fn field(dir: &File, name: &str, fields: &[&str]) -> u64 {
    let text = text(dir, name).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(n, _)| fields.contains(n)).filter_map(|(_, v)| v.parse::<u64>().ok()).sum()
}

fn places(group: &Cgroup) -> Vec<PathBuf> {
    let below = |top: &str| PathBuf::from(ROOT).join(top).join(OsStr::from_bytes(&group.path[1..]));
    if group.controllers.is_empty() {
        // The second is for systemd's hybrid layout.
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
