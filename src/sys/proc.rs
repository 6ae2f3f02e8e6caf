//! /proc/PID by descriptor: all facts of one process are read below one
//! directory that was opened once.
//!
//! The parsers work on bytes: comm and cgroup names need not be UTF-8, and a container chooses them
//! (so the `procfs` crate, which reads text, cannot be used).

use super::cred::Credentials;
use super::file;
use super::filesystem;
use super::limit::SoftAndHard;
use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Most bytes that a file of /proc is read to.
const MAX: usize = 1 << 20;

/// An open /proc/PID or /proc/PID/task/TID. Reads fail with ESRCH once the task was reaped;
/// they never reach another one.
#[derive(Debug)]
pub struct Proc(OwnedFd);

impl Proc {
    /// Opens the directory /proc/PID. A descriptor of it never leads to another process.
    pub fn open(pid: i32) -> Result<Self> {
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
    pub fn task(&self, tid: i32) -> Result<Self> {
        self.open_at(&format!("task/{tid}"), OFlags::PATH | OFlags::DIRECTORY).map(Proc)
    }

    /// The IDs of all threads of this task's process.
    pub fn siblings(&self) -> Result<Vec<i32>> {
        let all = file::reopen_dir(self.directory("..")?)?;
        Ok(file::names(all)?.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    fn open_at(&self, name: &str, flags: OFlags) -> Result<OwnedFd> {
        rustix::fs::openat(&self.0, name, flags | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("openat(/proc/PID, {name:?})"))
    }

    /// Reads one of its files completely, 1 MiB at most.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        file::read_bounded(std::fs::File::from(self.open_at(name, OFlags::RDONLY)?), MAX, name)
    }

    /// Opens one of its files for reading.
    pub fn open_file(&self, name: &str) -> Result<OwnedFd> {
        self.open_at(name, OFlags::RDONLY)
    }

    /// Opens the directory that a magic link (`root`, `cwd`) refers to.
    pub fn directory(&self, name: &str) -> Result<OwnedFd> {
        self.open_at(name, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Opens a namespace: `mnt`, `pid`, `user`.
    pub fn namespace(&self, name: &str) -> Result<OwnedFd> {
        self.open_at(&format!("ns/{name}"), OFlags::RDONLY)
    }

    /// The text of a magic link (`exe`, `cwd`, `root`), as the kernel prints it.
    pub fn link(&self, name: &str) -> Result<Vec<u8>> {
        file::read_link(&self.0, OsStr::new(name))
    }

    /// Writes a value to one of its files (`coredump_filter`).
    pub fn write(&self, name: &str, value: &str) -> Result<()> {
        let fd = self.open_at(name, OFlags::WRONLY)?;
        rustix::io::write(&fd, value.as_bytes())
            .with_context(|| format!("write(/proc/PID/{name}, {value:?})"))?;
        Ok(())
    }

    /// Reads and parses /proc/PID/status.
    pub fn status(&self) -> Result<Status> {
        Status::parse(&self.read("status")?).context("/proc/PID/status is not understood")
    }

    /// Bytes of its anonymous memory, in use or swapped out, without pages of mapped files.
    pub fn memory_in_use(&self) -> Result<u64> {
        let status = self.read("status")?;
        let kilobytes = |key: &str| {
            field(&status, key).and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok())
        };
        let own = kilobytes("RssAnon").context("/proc/PID/status has no RssAnon")?;
        Ok((own + kilobytes("RssShmem").unwrap_or(0) + kilobytes("VmSwap").unwrap_or(0)) << 10)
    }

    /// Start time of the process, in clock ticks since boot. Together with the PID
    /// it identifies the process.
    pub fn start_time(&self) -> Result<u64> {
        start_time(&self.read("stat")?).context("/proc/PID/stat is not understood")
    }

    /// Whether the process that started at this time, in clock ticks since boot, is still there: it
    /// is this one, and has not ended (and is not only waiting to be waited for).
    pub fn is_alive_since(&self, time: u64) -> Result<bool> {
        let stat = self.read("stat")?;
        Ok(start_time(&stat) == Some(time) && is_zombie(&stat) == Some(false))
    }

    /// Whether it is stopped, by SIGSTOP or a tracer.
    pub fn is_stopped(&self) -> Result<bool> {
        let stat = self.read("stat")?;
        let state = after_name(&stat).and_then(|mut fields| fields.next());
        Ok(matches!(state.context("/proc/PID/stat is not understood")?, "T" | "t"))
    }

    /// How often it has left the processor, if it is not on one now and does not wait for one.
    /// Twice the same number: it has slept all the time between.
    pub fn sleep(&self) -> Result<Option<u64>> {
        sleep(&self.read("status")?).context("/proc/PID/status is not understood")
    }

    /// One of its resource limits, by its name in /proc/PID/limits.
    pub fn limit(&self, name: &str) -> Result<SoftAndHard> {
        limit(&self.read("limits")?, name)
            .with_context(|| format!("/proc/PID/limits has no {name:?}"))
    }

    /// The user and group ID on the host that are root in its user namespace.
    pub fn mapped_root(&self) -> Result<(u32, u32)> {
        let root = |name| {
            mapped_root(&self.read(name)?).with_context(|| format!("/proc/PID/{name} maps no root"))
        };
        Ok((root("uid_map")?, root("gid_map")?))
    }

    /// Its cgroups, one for each hierarchy, as the host sees them.
    pub fn cgroups(&self) -> Result<Vec<Cgroup>> {
        Ok(cgroups(&self.read("cgroup")?))
    }
}

impl AsFd for Proc {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The fields of /proc/PID/status that are used here, see proc_pid_status(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// File mode creation mask, see umask(2).
    pub umask: u32,
    /// PID of the parent in the reader's PID namespace; 0 if it is outside.
    pub parent: i32,
    /// User and group IDs, supplementary groups and capabilities.
    pub credentials: Credentials,
    /// The thread group's ID in each PID namespace, from the reader's to its own.
    pub ns_tgid: Vec<i32>,
    /// Whether the process is dumping core now; `None` before Linux 4.15.
    pub core_dumping: Option<bool>,
}

impl Status {
    /// Parses the text. The kernel escapes a newline in the name, so that every line but the
    /// first is the kernel's own.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let field = |key| field(text, key);
        let numbers = |key| -> Option<Vec<u32>> {
            field(key)?.split_whitespace().map(|n| n.parse().ok()).collect()
        };
        let mask = |key| u64::from_str_radix(field(key)?, 16).ok();
        Some(Status {
            // Absent before Linux 4.7.
            umask: field("Umask").map_or(Some(0o022), |v| u32::from_str_radix(v, 8).ok())?,
            parent: field("PPid")?.parse().ok()?,
            credentials: Credentials {
                uid: numbers("Uid")?.try_into().ok()?,
                gid: numbers("Gid")?.try_into().ok()?,
                groups: numbers("Groups")?,
                effective: mask("CapEff")?,
                permitted: mask("CapPrm")?,
            },
            ns_tgid: field("NStgid")
                .map_or(Some(vec![]), |v| v.split_whitespace().map(|n| n.parse().ok()).collect())?,
            core_dumping: field("CoreDumping").map(|v| v == "1"),
        })
    }
}

/// The value of a line of /proc/PID/status; the first line is the name.
fn field<'a>(status: &'a [u8], key: &str) -> Option<&'a str> {
    let line = status
        .split(|b| *b == b'\n')
        .skip(1)
        .find(|l| l.starts_with(key.as_bytes()) && l.get(key.len()) == Some(&b':'))?;
    std::str::from_utf8(&line[key.len() + 1..]).ok().map(str::trim)
}

/// Field 22 of /proc/PID/stat. The name before it may contain anything, even a `)`.
pub fn start_time(stat: &[u8]) -> Option<u64> {
    after_name(stat)?.nth(19)?.parse().ok()
}

/// Fields 3 and 20 of /proc/PID/stat. A leader that has ended before its other threads is a zombie
/// too, although the process lives.
pub fn is_zombie(stat: &[u8]) -> Option<bool> {
    let mut fields = after_name(stat)?;
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    let threads: u64 = fields.nth(16)?.parse().ok()?;
    Some(ended && threads <= 1)
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

/// One line of /proc/PID/cgroup: one hierarchy, see cgroups(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The controllers of the hierarchy; empty for cgroup v2.
    pub controllers: Vec<u8>,
    /// Path below the root of the hierarchy, as this process's cgroup namespace shows it.
    pub path: Vec<u8>,
}

/// Parses /proc/PID/cgroup, whose lines are `ID:controllers:path`. Other lines are skipped.
pub fn cgroups(text: &[u8]) -> Vec<Cgroup> {
    let mut out = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        let mut parts = line.splitn(3, |b| *b == b':');
        if let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        {
            out.push(Cgroup { controllers: controllers.to_vec(), path: path.to_vec() });
        }
    }
    out
}

/// One line of /proc/PID/mountinfo: one mount, see proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// `major:minor` of the file system.
    pub device: String,
    /// The part of the file system that is mounted.
    pub root: PathBuf,
    /// The mount point, below the process's root.
    pub target: PathBuf,
    /// Whether this mount is read-only.
    pub read_only: bool,
}

/// Parses /proc/PID/mountinfo; later lines cover earlier ones.
pub fn mount_points(text: &[u8]) -> Vec<MountPoint> {
    let path = |word: &[u8]| PathBuf::from(os(&unescape(word)));
    let parse = |line: &[u8]| {
        let mut words = line.split(|b| *b == b' ').skip(2);
        let device = String::from_utf8(words.next()?.to_vec()).ok()?;
        let (root, target, options) = (path(words.next()?), path(words.next()?), words.next()?);
        Some(MountPoint {
            device,
            root,
            target,
            read_only: options.split(|b| *b == b',').any(|o| o == b"ro"),
        })
    };
    text.split(|b| *b == b'\n').filter_map(parse).collect()
}

/// Where the root directory of a process comes from, in the text of its mountinfo: the upper layer of
/// an overlay, else the directory of the file system that is mounted there.
///
/// # References
/// proc_pid_mountinfo(5); the options of an overlay end the line.
pub fn root_mount(text: &[u8]) -> Option<Vec<u8>> {
    let words = |line: &[u8]| line.split(|b| *b == b' ').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let last =
        text.split(|b| *b == b'\n').map(words).rfind(|w| w.get(4).is_some_and(|t| t == b"/"))?;
    let mut options = last.last()?.split(|b| *b == b',');
    let upper = options.find_map(|option| option.strip_prefix(b"upperdir="));
    Some(unescape(upper.unwrap_or(&last[3])))
}

/// Decodes the kernel's escapes, such as `\040` for a blank.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = word;
    while let Some((first, more)) = rest.split_first() {
        let code = more
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() { &more[3..] } else { more };
    }
    out
}

/// The PIDs of all processes that can be seen.
pub fn all() -> Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc").context("open /proc")?;
    Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
}

/// The outside ID of inside ID 0 in /proc/PID/uid_map or gid_map.
pub fn mapped_root(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "0").then(|| words.next()?.parse().ok())?
    })
}

/// A soft and hard limit of /proc/PID/limits. `None`: no such line.
pub fn limit(text: &[u8], name: &str) -> Option<SoftAndHard> {
    let line = text.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(name.as_bytes()))?;
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    let mut value = || match words.next()? {
        "unlimited" => Some(None),
        n => n.parse().ok().map(Some),
    };
    Some(SoftAndHard { soft: value()?, hard: value()? })
}

/// Not 0 if a program was started set-user-ID, set-group-ID or with file capabilities.
pub const AT_SECURE: u64 = libc::AT_SECURE;

/// Address at which the vDSO is mapped.
pub const AT_SYSINFO_EHDR: u64 = libc::AT_SYSINFO_EHDR;

/// A value of /proc/PID/auxv, which consists of pairs of 64-bit words, or of 32-bit words for a
/// 32-bit program. `None` if there is no such entry.
///
/// # References
/// getauxval(3), proc_pid_auxv(5).
pub fn auxiliary(auxv: &[u8], key: u64) -> Option<u64> {
    const AT_NULL: u64 = 0;
    // Keys are smaller than this. In 32-bit pairs misread as 64-bit ones, the upper half of a key
    // is the value of the first pair.
    const KEYS: u64 = 1 << 16;
    let find = |width: usize| {
        let word = |b: &[u8]| match b.len() {
            8 => u64::from_ne_bytes(b.try_into().expect("eight bytes")),
            _ => u64::from(u32::from_ne_bytes(b.try_into().expect("four bytes"))),
        };
        let pairs = auxv.chunks_exact(2 * width).map(|p| (word(&p[..width]), word(&p[width..])));
        let live: Vec<_> = pairs.take_while(|(k, _)| *k != AT_NULL).collect();
        live.iter()
            .all(|(k, _)| *k < KEYS)
            .then(|| live.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
            .flatten()
    };
    find(8).or_else(|| find(4))
}

pub use super::text::printable;

/// Views bytes as the `OsStr` that the system calls take.
pub fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &[u8] = b"Name:\ta)\\nUid:\t0 0 0 0 \xff\nUmask:\t0077\nState:\tS\nPPid:\t7\n\
                            Uid:\t1000\t1001\t1002\t1003\nGid:\t1\t2\t3\t4\nGroups:\t4 24 \n\
                            NStgid:\t900\t12\nCapPrm:\t00000000a80425ff\n\
                            CapEff:\t00000000a80425fb\nCoreDumping:\t1\n";

    #[test]
    fn status_survives_a_hostile_name() {
        let s = Status::parse(STATUS).unwrap();
        assert_eq!((s.umask, s.parent, s.core_dumping), (0o077, 7, Some(true)));
        assert_eq!(s.credentials.uid, [1000, 1001, 1002, 1003]);
        assert_eq!(s.credentials.groups, [4, 24]);
        assert_eq!(s.ns_tgid, [900, 12]);
        assert!(s.credentials.mixed());
        assert_eq!(Status::parse(b""), None);
        assert_eq!(Status::parse(b"Name:\tx\nUid:\t1 2\n"), None);
    }

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
    fn cgroup_lines() {
        let c = cgroups(b"4:memory:/a:b/\xffc\n0::/x\n");
        assert_eq!(c[0], Cgroup { controllers: b"memory".to_vec(), path: b"/a:b/\xffc".to_vec() });
        assert_eq!(c[1], Cgroup { controllers: vec![], path: b"/x".to_vec() });
        assert_eq!(c.len(), 2);
    }

    #[test]
    fn mounts() {
        let text = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
                     90 80 0:5 /sys /proc/sys ro,nosuid - proc proc rw\n\
                     91 80 254:0 /srv/a\\040b /data/\\134x rw - ext4 /dev/root rw\nshort\n";
        let m = mount_points(text);
        assert_eq!(
            (m.len(), m[0].target.as_path(), m[0].read_only),
            (3, std::path::Path::new("/"), false)
        );
        assert_eq!(
            (m[1].root.to_str(), m[1].target.to_str(), m[1].read_only),
            (Some("/sys"), Some("/proc/sys"), true)
        );
        assert_eq!(
            (m[2].root.to_str(), m[2].target.to_str(), m[2].device.as_str()),
            (Some("/srv/a b"), Some("/data/\\x"), "254:0")
        );
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

    #[test]
    fn auxiliary_values_in_both_widths() {
        let wide = |v: &[(u64, u64)]| {
            v.iter()
                .flat_map(|(k, v)| [k.to_ne_bytes(), v.to_ne_bytes()].concat())
                .collect::<Vec<u8>>()
        };
        let narrow = |v: &[(u32, u32)]| {
            v.iter()
                .flat_map(|(k, v)| [k.to_ne_bytes(), v.to_ne_bytes()].concat())
                .collect::<Vec<u8>>()
        };
        assert_eq!(auxiliary(&wide(&[(33, 0x7fff_0000), (23, 1), (0, 0)]), AT_SECURE), Some(1));
        assert_eq!(auxiliary(&wide(&[(33, 0x7fff_0000), (23, 0), (0, 0)]), AT_SECURE), Some(0));
        assert_eq!(auxiliary(&narrow(&[(32, 0xf7f0_0000), (23, 1), (0, 0)]), AT_SECURE), Some(1));
        assert_eq!(auxiliary(&wide(&[(33, 1), (0, 0)]), AT_SECURE), None);
        assert_eq!(
            auxiliary(&wide(&[(23, 1), (33, 0x7fff_0000), (0, 0)]), AT_SYSINFO_EHDR),
            Some(0x7fff_0000)
        );
        assert_eq!(auxiliary(b"", AT_SECURE), None);
    }
}
