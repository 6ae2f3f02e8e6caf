//! /proc/PID by descriptor: all facts of one process are read below one
//! directory that was opened once.
//!
//! The parsers work on bytes: comm and cgroup names need not be UTF-8, and a container chooses them
//! (so the `procfs` crate, which reads text, cannot be used).

mod auxv;
mod cgroup;
mod mountinfo;
mod status;

pub(crate) use super::text::printable;
pub(crate) use auxv::{AT_SECURE, AT_SYSINFO_EHDR, auxiliary};
pub(crate) use cgroup::{Cgroup, cgroups, container_of};
pub(crate) use mountinfo::{MountPoint, mount_points, root_mount};
pub(crate) use status::Status;

use super::file;
use super::filesystem;
use super::rlimit::SoftAndHard;
use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use status::field;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Most bytes that a file of /proc is read to.
const MAX: usize = 1 << 20;

/// An open /proc/PID or /proc/PID/task/TID. Reads fail with ESRCH once the task was reaped;
/// they never reach another one.
#[derive(Debug)]
pub(crate) struct Proc(OwnedFd);

impl Proc {
    /// Opens the directory /proc/PID. A descriptor of it never leads to another process.
    pub(crate) fn open(pid: i32) -> Result<Self> {
        ensure!(pid > 0, "{pid} is no process ID");
        let dir = file::open_dir(format!("/proc/{pid}").as_ref())?;
        ensure!(
            filesystem::fs_type(&dir)? == filesystem::FsType::Proc,
            "/proc is not a proc file system"
        );
        Ok(Proc(dir))
    }

    /// Opens the task `tid` of this process. Unlike /proc/PID it stays complete when the
    /// thread-group leader is gone.
    pub(crate) fn task(&self, tid: i32) -> Result<Self> {
        self.open_at(&format!("task/{tid}"), OFlags::PATH | OFlags::DIRECTORY).map(Proc)
    }

    /// The IDs of all threads of this task's process.
    pub(crate) fn siblings(&self) -> Result<Vec<i32>> {
        let all = file::reopen_dir(self.directory("..")?)?;
        Ok(file::names(all)?.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    /// The IDs of all threads of this process.
    pub(crate) fn threads(&self) -> Result<Vec<i32>> {
        let all = file::reopen_dir(self.directory("task")?)?;
        Ok(file::names(all)?.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    fn open_at(&self, name: &str, flags: OFlags) -> Result<OwnedFd> {
        rustix::fs::openat(&self.0, name, flags | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("openat(/proc/PID, {name:?})"))
    }

    /// Reads one of its files completely, 1 MiB at most.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        file::read_bounded(std::fs::File::from(self.open_at(name, OFlags::RDONLY)?), MAX, name)
    }

    /// Opens one of its files for reading.
    pub(crate) fn open_file(&self, name: &str) -> Result<OwnedFd> {
        self.open_at(name, OFlags::RDONLY)
    }

    /// Opens the directory that a magic link (`root`, `cwd`) refers to.
    pub(crate) fn directory(&self, name: &str) -> Result<OwnedFd> {
        self.open_at(name, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Opens a namespace: `mnt`, `pid`, `user`.
    pub(crate) fn namespace(&self, name: &str) -> Result<OwnedFd> {
        self.open_at(&format!("ns/{name}"), OFlags::RDONLY)
    }

    /// The file that is mapped at these addresses, of a process or one of its tasks, pinned by
    /// `O_PATH`, whether it still has a name or not.
    ///
    /// # References
    /// proc_pid_map_files(5): CAP_SYS_ADMIN, or since Linux 5.9 CAP_CHECKPOINT_RESTORE, in the
    /// initial user namespace.
    pub(crate) fn mapped_file(&self, start: u64, end: u64) -> Result<OwnedFd> {
        let name = format!("map_files/{start:x}-{end:x}");
        let of_process = self.open_at(&name, OFlags::PATH);
        of_process.or_else(|_| self.open_at(&format!("../../{name}"), OFlags::PATH))
    }

    /// The text of a magic link (`exe`, `cwd`, `root`), as the kernel prints it.
    pub(crate) fn link(&self, name: &str) -> Result<Vec<u8>> {
        file::read_link(&self.0, OsStr::new(name))
    }

    /// Writes a value to one of its files (`coredump_filter`).
    pub(crate) fn write(&self, name: &str, value: &str) -> Result<()> {
        let fd = self.open_at(name, OFlags::WRONLY)?;
        rustix::io::write(&fd, value.as_bytes())
            .with_context(|| format!("write(/proc/PID/{name}, {value:?})"))?;
        Ok(())
    }

    /// Reads and parses /proc/PID/status.
    pub(crate) fn status(&self) -> Result<Status> {
        Status::parse(&self.read("status")?).context("/proc/PID/status is not understood")
    }

    /// Bytes of its anonymous memory, in use or swapped out, without pages of mapped files.
    pub(crate) fn memory_in_use(&self) -> Result<u64> {
        let status = self.read("status")?;
        let kilobytes = |key: &str| {
            field(&status, key).and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok())
        };
        let own = kilobytes("RssAnon").context("/proc/PID/status has no RssAnon")?;
        Ok((own + kilobytes("RssShmem").unwrap_or(0) + kilobytes("VmSwap").unwrap_or(0)) << 10)
    }

    /// Start time of the process, in clock ticks since boot. Together with the PID
    /// it identifies the process.
    pub(crate) fn start_time(&self) -> Result<u64> {
        start_time(&self.read("stat")?).context("/proc/PID/stat is not understood")
    }

    /// Whether the process that started at this time, in clock ticks since boot, is still there: it
    /// is this one, and has not ended (and is not only waiting to be waited for).
    pub(crate) fn is_alive_since(&self, time: u64) -> Result<bool> {
        let stat = self.read("stat")?;
        Ok(start_time(&stat) == Some(time) && is_zombie(&stat) == Some(false))
    }

    /// Whether it is stopped, by SIGSTOP or a tracer.
    pub(crate) fn is_stopped(&self) -> Result<bool> {
        let stat = self.read("stat")?;
        let state = after_name(&stat).and_then(|mut fields| fields.next());
        Ok(matches!(state.context("/proc/PID/stat is not understood")?, "T" | "t"))
    }

    /// How often it has left the processor, if it is not on one now and does not wait for one.
    /// Twice the same number: it has slept all the time between.
    pub(crate) fn sleep(&self) -> Result<Option<u64>> {
        sleep(&self.read("status")?).context("/proc/PID/status is not understood")
    }

    /// Its RLIMIT_CORE.
    pub(crate) fn core_limit(&self) -> Result<SoftAndHard> {
        self.limit(CORE_LIMIT)
    }

    /// One of its resource limits, by its name in /proc/PID/limits.
    fn limit(&self, name: &str) -> Result<SoftAndHard> {
        limit(&self.read("limits")?, name)
            .with_context(|| format!("/proc/PID/limits has no {name:?}"))
    }

    /// The user and group ID on the host that are root in its user namespace.
    pub(crate) fn mapped_root(&self) -> Result<(u32, u32)> {
        let root = |name| {
            mapped_root(&self.read(name)?).with_context(|| format!("/proc/PID/{name} maps no root"))
        };
        Ok((root("uid_map")?, root("gid_map")?))
    }

    /// Its cgroups, one for each hierarchy, as the host sees them.
    pub(crate) fn cgroups(&self) -> Result<Vec<Cgroup>> {
        Ok(cgroups(&self.read("cgroup")?))
    }
}

impl AsFd for Proc {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Field 22 of /proc/PID/stat. The name before it may contain anything, even a `)`.
pub(crate) fn start_time(stat: &[u8]) -> Option<u64> {
    after_name(stat)?.nth(19)?.parse().ok()
}

/// Whether the first thread has ended; others may hang in a system call.
pub(crate) fn has_leader_ended(stat: &[u8]) -> Option<bool> {
    Some(matches!(after_name(stat)?.next()?, "Z" | "X"))
}

/// Fields 3 and 20 of /proc/PID/stat. A leader that has ended before its other threads is a zombie
/// too, although the process lives.
pub(crate) fn is_zombie(stat: &[u8]) -> Option<bool> {
    let mut fields = after_name(stat)?;
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    let threads: u64 = fields.nth(16)?.parse().ok()?;
    Some(ended && threads <= 1)
}

/// Field 9 of a thread's stat: whether it is the one that dumps its process's core. The others have
/// ended, but for the last step.
///
/// # References
/// `PF_DUMPCORE`, include/linux/sched.h; set by `zap_threads` in fs/coredump.c.
pub(crate) fn is_dumping(stat: &[u8]) -> Option<bool> {
    const PF_DUMPCORE: u64 = 0x200;
    Some(after_name(stat)?.nth(6)?.parse::<u64>().ok()? & PF_DUMPCORE != 0)
}

/// Field 39 of a thread's stat: the processor that it ran on last.
pub(crate) fn processor(stat: &[u8]) -> Option<i32> {
    after_name(stat)?.nth(36)?.parse().ok()
}

/// Field 52 of a process's stat, as wait(2) gives it: of one that dumps core, the signal.
///
/// # References
/// proc_pid_stat(5): needs the right to trace it; of the whole process since Linux 6.8.
pub(crate) fn exit_code(stat: &[u8]) -> Option<i32> {
    after_name(stat)?.nth(49)?.parse().ok()
}

/// See [`Proc::sleep`].
fn sleep(status: &[u8]) -> Option<Option<u64>> {
    let count = |key: &str| field(status, key)?.parse::<u64>().ok();
    let switches = count("voluntary_ctxt_switches")? + count("nonvoluntary_ctxt_switches")?;
    Some((!field(status, "State")?.starts_with('R')).then_some(switches))
}

/// The fields from the third on, after the name.
fn after_name(stat: &[u8]) -> Option<std::str::SplitWhitespace<'_>> {
    let after = stat.iter().rposition(|b| *b == b')')? + 1;
    Some(std::str::from_utf8(stat.get(after..)?).ok()?.split_whitespace())
}

/// The inode number of a process's mount namespace.
pub(crate) fn mount_ns_of(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/ns/mnt");
    Ok(rustix::fs::stat(&path).with_context(|| format!("stat({path:?})"))?.st_ino)
}

/// The PIDs of all processes that can be seen.
pub(crate) fn all() -> Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc").context("open /proc")?;
    Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
}

/// The outside ID of inside ID 0 in /proc/PID/uid_map or gid_map.
pub(crate) fn mapped_root(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "0").then(|| words.next()?.parse().ok())?
    })
}

/// The name of RLIMIT_CORE in /proc/PID/limits.
pub(crate) const CORE_LIMIT: &str = "Max core file size";

/// A soft and hard limit of /proc/PID/limits. `None`: no such line.
pub(crate) fn limit(text: &[u8], name: &str) -> Option<SoftAndHard> {
    let line = text.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(name.as_bytes()))?;
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    let mut value = || match words.next()? {
        "unlimited" => Some(None),
        n => n.parse().ok().map(Some),
    };
    Some(SoftAndHard { soft: value()?, hard: value()? })
}

/// Views bytes as the `OsStr` that the system calls take.
pub(crate) fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_after_the_last_parenthesis() {
        let stat =
            b"12 (a) R 1 (\xff\n) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21\n";
        assert_eq!(start_time(stat), Some(4242));
        assert_eq!(start_time(b"12 no name"), None);
        assert_eq!(start_time(b"1 (x) S 1"), None);
    }

    #[test]
    fn a_zombie_has_no_threads_left() {
        let stat = |state: &str, threads: u32| {
            format!("7 (a) Z) {state} 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 4242 0 0\n")
                .into_bytes()
        };
        assert_eq!(is_zombie(&stat("Z", 1)), Some(true));
        assert_eq!(is_zombie(&stat("X", 0)), Some(true));
        assert_eq!(is_zombie(&stat("Z", 3)), Some(false));
        assert_eq!(has_leader_ended(&stat("Z", 3)), Some(true));
        assert_eq!(has_leader_ended(&stat("S", 3)), Some(false));
        assert_eq!(is_zombie(&stat("S", 1)), Some(false));
        assert_eq!(is_zombie(b"7 (a) Z"), None);
        assert_eq!(start_time(&stat("Z", 1)), Some(4242));
    }

    #[test]
    fn how_often_a_sleeper_has_slept() {
        let status = |state: &str| {
            format!(
                "Name:\tR (running)\nState:\t{state}\nvoluntary_ctxt_switches:\t40\n\
                 nonvoluntary_ctxt_switches:\t2\n"
            )
        };
        assert_eq!(sleep(status("D (disk sleep)").as_bytes()), Some(Some(42)));
        assert_eq!(sleep(status("S (sleeping)").as_bytes()), Some(Some(42)));
        assert_eq!(sleep(status("R (running)").as_bytes()), Some(None));
        assert_eq!(sleep(b"Name:\ta\nState:\tS (sleeping)\n"), None);
    }

    #[test]
    fn limits() {
        let text = b"Limit  Soft  Hard  Units\n\
                     Max file size             4096       unlimited   bytes     \n\
                     Max core file size        0  18446744073709551614 bytes\n";
        assert_eq!(
            limit(text, "Max file size"),
            Some(SoftAndHard { soft: Some(4096), hard: None })
        );
        assert_eq!(
            limit(text, "Max core file size"),
            Some(SoftAndHard { soft: Some(0), hard: Some(u64::MAX - 1) })
        );
        assert_eq!(limit(text, "Max nothing"), None);
    }

    #[test]
    fn root_of_a_map() {
        assert_eq!(mapped_root(b"         0     100000      65536\n"), Some(100_000));
        assert_eq!(
            mapped_root(b"         1     100001      65536\n         0       1000          1\n"),
            Some(1000)
        );
        assert_eq!(mapped_root(b"         1     100001      65536\n"), None);
    }
}
