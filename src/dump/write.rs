//! Writing the core, in a child that has become the crasher: its root, working directory, umask, IDs, groups, capabilities, user namespace. What it can
//! touch is what the crashed process could have touched itself; the parent stays root, touches nothing of the container, and keeps the record.

use super::crash::Crash;
use super::facts::Facts;
use super::memory::Source;
use super::plan::File;
use super::stream::{self, Bounds, Release, Stop};
use crate::sys::cgroup::Groups;
use crate::sys::file::FsType;
use crate::sys::hold::Hold;
use crate::sys::memory::{Memory, is_shared};
use crate::sys::pagemap::Pagemap;
use crate::sys::process::Child;
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, cred, file, limit, process, robust};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};

/// What became of the file. The child tells it as a line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Whether the file was made.
    pub created: bool,
    /// Size in bytes, once it is known.
    pub size: Option<u64>,
    /// Bytes on disk, likewise.
    pub disk_size: Option<u64>,
    /// Device and inode number.
    pub id: Option<(u64, u64)>,
    /// Whether it is on a memory-backed file system.
    pub memory: bool,
    /// Why it is short, or was not made.
    pub reason: Option<String>,
    /// Whether the process has been let go.
    #[serde(default)]
    pub released: bool,
    /// Nothing was read yet: an early release is not for this target.
    #[serde(default)]
    pub again: bool,
    /// Whether this is the writer's last word.
    #[serde(default)]
    pub done: bool,
}

/// What the parent may do while the writer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The writer has started.
    Started,
    /// The process has been let go before its core is whole.
    Released,
}

/// Most bytes that the child is listened to.
const MAX_REPORT: u64 = 16 << 10;

/// Writes the core that comes on stdin. Returns what became of it, and the writer if it has still to be waited for: after its last word it only ends.
///
/// # Errors
/// The child could not be started. Everything that happens in it is in [`Written`].
pub fn write(crash: &Crash, facts: &Facts, plan: &File, mut on: impl FnMut(Event)) -> Result<(Written, Option<Child>)> {
    let (written, child) = attempt(crash, facts, plan, &mut on)?;
    match child {
        Some(child) if written.again => {
            child.wait()?;
            attempt(crash, facts, &File { early: false, ..plan.clone() }, &mut on)
        }
        child => Ok((written, child)),
    }
}

fn attempt(crash: &Crash, facts: &Facts, plan: &File, on: &mut impl FnMut(Event)) -> Result<(Written, Option<Child>)> {
    // A parent that shares the memory would go on changing it.
    let early = plan.early && !is_shared(crash.said.host_pid, facts.status.parent);
    let source = source(crash, facts, early);
    // The page cache of the core, and on a memory-backed volume the core itself, count as the container's, as in the kernel's file mode. Not after an early
    // release: an engine that cleans up the group of a container that has gone would kill us. A group that is gone already cannot be joined, and needs no limit.
    let groups = if early || plan.as_root { Groups::default() } else { Groups::open(&facts.cgroups) };
    let (read, report) = process::pipe()?;
    let (word, go) = process::pipe()?;
    let child = process::fork_into(groups.unified(), |_| {
        let mut report = Report(std::fs::File::from(report));
        groups.enter();
        // Without a hold the process just waits until its core is whole.
        let hold = if early { Hold::new().ok() } else { None };
        let mut keep = vec![report.0.as_fd(), word.as_fd()];
        keep.extend(source.iter().flat_map(|s| [s.memory.as_fd(), s.pagemap.as_fd()]));
        keep.extend(source.as_ref().and_then(|s| s.pidfd.as_ref()).map(|p| p.as_fd()));
        keep.extend(hold.as_ref().map(|h| h.as_fd()));
        let became = become_crasher(facts, plan, &keep);
        drop(keep);
        match became {
            // A parent that is killed before the record is there says nothing: then there is no file either.
            Ok(()) if process::read(&word, &mut [0]) != Ok(1) => {}
            Ok(()) => copy(facts, plan, source, hold, &mut report),
            Err(e) => report.say(&Written { reason: Some(format!("cannot become the crasher: {e:#}")), done: true, ..Written::default() }),
        }
        0
    })?;
    on(Event::Started);
    // If it has gone already, its report says so.
    let _ = process::write(&go, &[1]);
    let mut written = Written::default();
    let read = std::fs::File::from(read);
    for line in BufReader::new((&read).take(MAX_REPORT)).lines().map_while(std::io::Result::ok) {
        let before = written.released;
        written = serde_json::from_str(&line).unwrap_or(written);
        if written.released && !before {
            // The child has let go of its end already: with ours the process goes.
            on(Event::Released);
            process::replace_stdin(&read);
        }
        if written.done {
            return Ok((written, Some(child)));
        }
    }
    let ended = child.wait()?;
    // It may have made the file and not come to say so: then there is a short one, and else the record says too much.
    written.created = true;
    let limit = if plan.memory { ", as the container's memory limit does" } else { "" };
    written.reason = Some(format!("the writer was killed ({ended:?}){limit}"));
    Ok((written, None))
}

/// What the fast lane reads from: opened while we may, of the process that the pidfd names.
fn source(crash: &Crash, facts: &Facts, early: bool) -> Option<Source> {
    let pidfd = crash.pidfd.as_ref().and_then(|p| p.try_clone().ok());
    let memory = Memory::new(crash.said.host_tid, facts.task.open_file("mem").ok()?);
    let robust = if early { robust::heads(&facts.task.siblings().ok()?) } else { Vec::new() };
    Some(Source { memory, pagemap: Pagemap::new(facts.task.open_file("pagemap").ok()?), pidfd, robust })
}

struct Report(std::fs::File);

impl Report {
    /// A report that cannot be delivered has nobody left to read it.
    fn say(&mut self, written: &Written) {
        let mut line = serde_json::to_vec(written).unwrap_or_default();
        line.push(b'\n');
        let _ = self.0.write_all(&line);
    }
}

/// Gives up everything that the crasher does not have, all descriptors but the standard three and `keep`. The order is the defence: what needs rights first, the
/// rights themselves last.
pub fn become_crasher(facts: &Facts, plan: &File, keep: &[BorrowedFd<'_>]) -> Result<()> {
    process::not_dumpable()?;
    process::ignore_file_size_signal()?;
    if plan.memory {
        process::first_to_go()?;
    }
    file::set_umask(facts.status.umask);
    limit::set_own_file_size(facts.file_size)?;
    let mut credentials = facts.status.credentials.clone();
    if plan.as_root {
        credentials.uid[3] = 0;
        file::change_dir(file::open_dir("/".as_ref())?)?;
    } else {
        file::change_root(&facts.root).context("the crasher's root")?;
        file::change_dir(&facts.cwd).context("the crasher's working directory")?;
    }
    let mut keep = keep.to_vec();
    keep.extend(facts.user_ns.as_ref().map(|n| n.as_fd()));
    process::close_all_but(&keep)?;
    cred::assume(&credentials, facts.user_ns.as_ref())
}

/// As the crasher: makes the file and copies the stream.
fn copy(facts: &Facts, plan: &File, source: Option<Source>, hold: Option<Hold>, report: &mut Report) {
    let file = match create(&plan.path, plan.unlink_first, facts.status.credentials.uid[3], facts.user_ns.is_some()) {
        Ok(file) => file,
        Err(reason) => return report.say(&Written { reason: Some(reason), done: true, ..Written::default() }),
    };
    // If this process is killed from now on, the parent knows at least that there is a file.
    let memory = file::fs_type(&file).is_ok_and(|kind| kind == FsType::Memory);
    // It would count as nobody's memory: a writer of an early release is in no group.
    if memory && plan.early {
        return report.say(&Written { again: true, done: true, ..Written::default() });
    }
    let made = Written { created: true, id: file::stat(&file).ok().map(|s| s.id), memory, ..Written::default() };
    let begun = |released| Written { reason: Some("the writer was interrupted".into()), released, ..made.clone() };
    report.say(&begun(false));
    let bounds = Bounds { limit: plan.limit, file_size: facts.file_size };
    let mut released = false;
    let mut go = || {
        process::replace_stdin(&report.0);
        report.say(&begun(true));
        released = true;
    };
    let release = hold.map(|hold| Release { hold, go: &mut go });
    let result = match plan.compress {
        true => stream::compress(process::stdin(), &file, &bounds, source),
        false => stream::copy(process::stdin(), &file, &bounds, source, release),
    };
    let stat = file::stat(&file).ok();
    let reason = result.err().map(|stop| match stop {
        Stop::Limit => format!("RLIMIT_CORE of {} bytes was reached", plan.limit.unwrap_or(0)),
        Stop::Write(Errno::FBIG) => format!("RLIMIT_FSIZE of the process was reached ({} bytes)", facts.file_size.unwrap_or(0)),
        Stop::Write(e) => format!("write: {e}"),
        Stop::Read(e) => format!("read from the kernel: {e}"),
        Stop::Memory(e) => format!("read of the process's memory after its release: {e}"),
        Stop::Ended => "the kernel stopped sending: the process was killed or frozen while it dumped".into(),
    });
    // The end of this process is not waited for.
    process::replace_stdin(&report.0);
    report.say(&Written { size: stat.map(|s| s.size), disk_size: stat.map(|s| s.allocated), reason, released, done: true, ..made });
}

/// The directory of a path, and the name in it.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(i) => (&path[..=i], &path[i + 1..]),
        None => (b".", path),
    }
}

/// Makes the file as the kernel's `coredump_file()` does: unlink, open with O_EXCL and O_NOFOLLOW, then look at what was opened. The directory is
/// opened once, for both; symbolic links in it are followed as the crasher would, magic links (`/proc/self/root`) are not.
fn create(path: &[u8], unlink_first: bool, fs_uid: u32, mapped: bool) -> Result<OwnedFd, String> {
    let shown = path.escape_ascii().to_string();
    let fail = |call: &str, e: Errno| format!("{call} {shown:?}: {e}");
    if path.is_empty() {
        return Err(fail("open", Errno::NOENT));
    }
    if path.len() >= 4096 {
        return Err(fail("open", Errno::NAMETOOLONG));
    }
    let (dir, name) = split(path);
    if matches!(name, b"" | b"." | b"..") {
        return Err(fail("open", Errno::ISDIR));
    }
    let dir = file::open_dir_as_process(dir).map_err(|e| fail("open the directory of", e))?;
    if unlink_first {
        // What is wrong with the old one shows when the new one is made.
        let _ = file::unlink(&dir, crate::sys::proc::os(name));
    }
    let fd = file::create_exclusive(&dir, crate::sys::proc::os(name), 0o600).map_err(|e| fail("open", e))?;
    let stat = file::stat(&fd).map_err(|e| format!("{shown:?}: {e:#}"))?;
    // In a user namespace fstat shows the mapped ID, and the effective one is the same: the plan lets no process through whose IDs differ.
    let owner = if mapped { process::effective_uid() } else { fs_uid };
    let rule = match stat {
        s if !s.regular => "it is not a regular file",
        s if s.links != 1 => "it has more than one link",
        s if s.uid != owner => "the file system gives new files another owner",
        s if s.mode & 0o677 != 0o600 => "umask or file system take away the owner's right to read and write it",
        _ => return Ok(fd),
    };
    Err(format!("{shown:?} was made, but {rule}"))
}
