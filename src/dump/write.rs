//! Writing the core, in a child that has become the crasher: its root, working directory, umask, IDs, groups, capabilities, user namespace. What it can
//! touch is what the crashed process could have touched itself; the parent stays root, touches nothing of the container, and keeps the record.

use super::crash::Crash;
use super::facts::Facts;
use super::label::{Labeller, Ready};
use super::listen::{Ear, Heard};
use super::memory::Source;
use super::output::Target;
use super::plan::File;
use super::quota::{self, Kept, Refusal};
use super::rotate;
use super::stream::{self, Bounds, Release, Stop};
use super::turn::Turn;
use crate::sys::cgroup::Groups;
use crate::sys::counter::Counter;
use crate::sys::file::{FsType, Identity, Space};
use crate::sys::hold::Hold;
use crate::sys::memory::{Memory, is_shared};
use crate::sys::pagemap::Pagemap;
use crate::sys::process::Child;
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, cred, file, filter, limit, proc, process, robust};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

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
    /// Which limit acted, and its value.
    #[serde(default)]
    pub limit: Option<String>,
    /// Cores of the container that are not there any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Identity>,
    /// What tells the file from others, where that is to be remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// What went wrong and does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The target was given up: it must not be touched again.
    #[serde(skip)]
    pub given_up: bool,
    /// The writer could not even be killed: it hangs in the target, with the kernel's pipe.
    #[serde(skip)]
    pub stuck: bool,
}

/// What the parent may do while the writer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The writer has started, and will make the file when this has been dealt with.
    Started,
    /// The process has been let go before its core is whole.
    Released,
}

impl Written {
    fn refused(refusal: Refusal) -> Self {
        Written { reason: Some(refusal.reason), limit: Some(refusal.limit), done: true, ..Written::default() }
    }
}

/// How long a writer that was killed has to end. One that sleeps in the target cannot.
const LAST: Duration = Duration::from_secs(1);

/// A writer that has said its last word. It ends when it is told to: the end of a process takes time, which on a busy processor would come before what the crashed
/// process waits for.
#[derive(Debug)]
pub struct Writer {
    child: Child,
    go: OwnedFd,
}

impl Writer {
    /// Ends it.
    pub fn end(self) -> Result<process::Ended> {
        drop(self.go);
        self.child.wait()
    }
}

/// Writes the core that comes on stdin. Returns what became of it, and the writer if it has not ended.
///
/// # Errors
/// The child could not be started. Everything that happens in it is in [`Written`].
pub fn write(crash: &Crash, facts: &Facts, plan: &File, turn: Option<&Turn>, mut on: impl FnMut(Event)) -> Result<(Written, Option<Writer>)> {
    let (written, writer) = attempt(crash, facts, plan, turn, &mut on)?;
    match writer {
        Some(writer) if written.again => {
            writer.end()?;
            attempt(crash, facts, &File { early: false, ..plan.clone() }, turn, &mut on)
        }
        writer => Ok((written, writer)),
    }
}

fn attempt(crash: &Crash, facts: &Facts, plan: &File, turn: Option<&Turn>, on: &mut impl FnMut(Event)) -> Result<(Written, Option<Writer>)> {
    // A parent that shares the memory would go on changing it.
    let early = plan.early && !is_shared(crash.said.host_pid, facts.status.parent);
    let source = source(crash, facts, early);
    // The page cache of the core, and on a memory-backed volume the core itself, count as the container's, as in the kernel's file mode. Not after an early
    // release: an engine that cleans up the group of a container that has gone would kill us. A group that is gone already cannot be joined, and needs no limit.
    let groups = if early || plan.as_root { Groups::default() } else { Groups::open(&facts.cgroups) };
    let moved = Counter::shared()?;
    let (read, report) = process::pipe()?;
    let (word, go) = process::pipe()?;
    let child = process::fork_into(groups.unified(), |_| {
        groups.enter();
        // Without a hold the process just waits until its core is whole.
        let hold = if early { Hold::new().ok() } else { None };
        let mut opened = Opened { source, hold, label: Labeller::new(facts), moved, report: Report(std::fs::File::from(report)) };
        let keep = opened.files().chain([word.as_fd()]).chain(turn.iter().flat_map(|t| t.fds())).collect();
        match become_crasher(facts, plan, keep) {
            // A parent that is killed before the record is there says nothing: then there is no file either.
            Ok(()) if process::read(&word, &mut [0]) != Ok(1) => {}
            Ok(()) => {
                copy(facts, plan, turn, opened);
                // Until the parent lets go of its end, or is gone.
                let _ = process::read(&word, &mut [0]);
            }
            Err(e) => opened.report.say(&Written { reason: Some(format!("cannot become the crasher: {e:#}")), done: true, ..Written::default() }),
        }
        0
    })?;
    on(Event::Started);
    // If it has gone already, its report says so.
    let _ = process::write(&go, &[1]);
    let mut written = Written::default();
    let mut ear = Ear::new(&read, moved, plan.patience);
    loop {
        let line = match ear.next() {
            Heard::Line(line) => line,
            Heard::End => break,
            Heard::Nothing => return give_up(written, child, plan),
        };
        let before = written.released;
        written = serde_json::from_slice(&line).unwrap_or(written);
        if written.released && !before {
            // The child has let go of its end already: with ours the process goes.
            on(Event::Released);
            process::replace_stdin(&read);
        }
        if written.done {
            if let Some(note) = &written.note {
                log::warn!("process {}: {note}, ignoring", crash.said.host_pid);
            }
            return Ok((written, Some(Writer { child, go })));
        }
    }
    let ended = child.wait()?;
    // It may have made the file and not come to say so: then there is a short one, and else the record says too much.
    written.created = true;
    let limit = if plan.memory { ", as the container's memory limit does" } else { "" };
    written.reason = Some(match ended {
        process::Ended::Signal(process::FORBIDDEN) => "the writer was killed: it tried a system call that its filter does not allow".into(),
        other => format!("the writer was killed ({other:?}){limit}"),
    });
    Ok((written, None))
}

/// Nothing moves: the writer is killed. If it was only waiting for its own end, its last word holds.
fn give_up(mut written: Written, child: Child, plan: &File) -> Result<(Written, Option<Writer>)> {
    child.kill()?;
    written.stuck = child.wait_briefly(LAST)?.is_none();
    written.given_up = true;
    if !written.done {
        let seconds = plan.patience.unwrap_or_default().as_secs();
        written.reason = Some(format!("the target took nothing for {seconds} seconds (limits.stall) and was given up"));
        written.limit = Some(format!("stall = {seconds}"));
    }
    Ok((written, None))
}

/// What the fast lane reads from: opened while we may, of the process that the pidfd names.
fn source(crash: &Crash, facts: &Facts, early: bool) -> Option<Source> {
    let pidfd = crash.pidfd.as_ref().and_then(|p| p.try_clone().ok());
    let memory = Memory::new(crash.said.host_tid, facts.task.open_file("mem").ok()?);
    let robust = if early { robust::heads(&facts.task.siblings().ok()?) } else { Vec::new() };
    Some(Source { memory, pagemap: Pagemap::new(facts.task.open_file("pagemap").ok()?), vdso: facts.vdso, pidfd, robust })
}

/// What the writer opens while it still can.
struct Opened<'a> {
    /// What the fast lane reads from.
    source: Option<Source>,
    /// For an early release.
    hold: Option<Hold>,
    label: Option<Labeller<'a>>,
    /// Counts what moves.
    moved: Counter,
    report: Report,
}

impl Opened<'_> {
    fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let source = self.source.iter().flat_map(|s| [Some(s.memory.as_fd()), Some(s.pagemap.as_fd()), s.pidfd.as_ref().map(|p| p.as_fd())]).flatten();
        source.chain(self.hold.as_ref().map(|h| h.as_fd())).chain(self.label.iter().flat_map(Labeller::files)).chain([self.report.0.as_fd()])
    }
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
pub fn become_crasher<'a>(facts: &'a Facts, plan: &File, mut keep: Vec<BorrowedFd<'a>>) -> Result<()> {
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
    keep.extend(facts.user_ns.as_ref().map(|n| n.as_fd()));
    process::close_all_but(&keep)?;
    cred::assume(&credentials, facts.user_ns.as_ref())?;
    facts.user_ns.as_ref().map_or(Ok(()), process::close).context("close")
}

/// As the crasher: makes the file and copies the stream.
fn copy(facts: &Facts, plan: &File, turn: Option<&Turn>, opened: Opened<'_>) {
    let Opened { source, hold, label, moved, mut report } = opened;
    let place = match Place::of(&plan.path) {
        Ok(place) => place,
        Err(reason) => return report.say(&Written { reason: Some(reason), done: true, ..Written::default() }),
    };
    let space = file::space(&place.dir).unwrap_or(Space { kind: FsType::Other, total: 0, available: 0 });
    // It would count as nobody's memory: a writer of an early release is in no group.
    if space.kind == FsType::Memory && plan.early {
        return report.say(&Written { again: true, done: true, ..Written::default() });
    }
    let (there, mut gone) = turn.map(|t| rotate::look(t.cores(), &facts.root_path)).unwrap_or_default();
    let (room, old) = match room(plan, turn, &there, &space) {
        Ok(room) => room,
        Err(refusal) => return report.say(&Written { gone, ..Written::refused(refusal) }),
    };
    let ready = match label.as_ref().map_or(Ok(Ready::default()), |l| l.prepare(&place.dir, place.name)) {
        Ok(ready) => ready,
        Err(why) => return report.say(&Written { reason: Some(format!("open {:?}: {why}", place.shown)), done: true, gone, ..Written::default() }),
    };
    let file = match create(&place, plan.unlink_first && !ready.keep_old, facts.status.credentials.uid[3], facts.user_ns.is_some()) {
        Ok(file) => file,
        Err(reason) => return report.say(&Written { reason: Some(reason), done: true, gone, ..Written::default() }),
    };
    for core in old.iter().map(|i| &there[*i]) {
        if let Err(why) = rotate::remove(core, &facts.root_path) {
            let _ = file::unlink(&place.dir, proc::os(place.name));
            let refusal = Refusal::new("keep", "newest", format_args!("an older core has to go, but {why}"));
            return report.say(&Written { gone, ..Written::refused(refusal) });
        }
        gone.push(core.identity);
    }
    let dir = Some(place.dir).filter(|_| turn.is_some_and(|t| t.remembers()));
    // If this process is killed from now on, the parent knows at least that there is a file.
    let id = file::stat(&file).ok().map(|s| s.id);
    let made = Written { created: true, id, memory: space.kind == FsType::Memory, note: ready.note, ..Written::default() };
    let begun = |released| Written { reason: Some("the writer was interrupted".into()), released, ..made.clone() };
    report.say(&begun(false));
    if let Err(e) = filter::enter(&filter::COPY) {
        return report.say(&Written { reason: Some(format!("{e:#}")), done: true, ..made });
    }
    let target = Arc::new(Target::new(file, moved, room.as_ref().map(|r| r.0), space.kind));
    // It is closed by hand, below, also where a thread was left behind with it.
    std::mem::forget(target.clone());
    let bounds = Bounds { limit: plan.limit, file_size: facts.file_size };
    let mut released = false;
    let mut go = || {
        process::replace_stdin(&report.0);
        report.say(&begun(true));
        released = true;
    };
    let release = hold.map(|hold| Release { hold, go: &mut go });
    let result = match plan.compress {
        true => stream::compress(process::stdin(), &target, &bounds, source),
        false => stream::copy(process::stdin(), &target, &bounds, source, release),
    };
    let stat = file::stat(&*target).ok();
    // A file system may refuse only now what it has taken before.
    let closed = process::close(&*target).map_err(Stop::Write);
    // By its name, and last: some file systems know only now when it was written to.
    let identity = dir.and_then(|dir| file::identity_at(dir, proc::os(place.name)).ok()).filter(|i| Some(i.id) == made.id);
    let stop = result.and(closed).err();
    let cut = room.map(|r| r.1).filter(|_| stop == Some(Stop::Full));
    let limit = cut.as_ref().map(|r| r.limit.clone());
    let reason = stop.map(|stop| match stop {
        Stop::Limit => format!("RLIMIT_CORE of {} bytes was reached", plan.limit.unwrap_or(0)),
        Stop::Write(Errno::FBIG) => format!("RLIMIT_FSIZE of the process was reached ({} bytes)", facts.file_size.unwrap_or(0)),
        Stop::Write(e) => format!("write: {e}"),
        Stop::Full => cut.map(|r| r.reason).unwrap_or_default(),
        Stop::Read(e) => format!("read from the kernel: {e}"),
        Stop::Memory(e) => format!("read of the process's memory after its release: {e}"),
        Stop::Ended => "the kernel stopped sending: the process was killed or frozen while it dumped".into(),
    });
    // The end of this process is not waited for.
    process::replace_stdin(&report.0);
    report.say(&Written { size: stat.map(|s| s.size), disk_size: stat.map(|s| s.allocated), reason, limit, gone, identity, released, done: true, ..made });
}

/// How many bytes the core may have on disk, with what is to be said if it has more; and which of the cores that are there have to go for it.
type Room = (Option<(u64, Refusal)>, Vec<usize>);

fn room(plan: &File, turn: Option<&Turn>, there: &[Kept], space: &Space) -> Result<Room, Refusal> {
    // What a file system in memory holds counts as its container's memory, and takes nobody's disk.
    let min_free = plan.min_free.filter(|_| space.kind != FsType::Memory);
    let by_space = min_free.map(|min_free| quota::space(min_free, space.total, space.available)).transpose()?.flatten();
    let cut = |bytes: u64, key, value: String| (bytes, Refusal::new(key, value, format_args!("the core was cut at {bytes} bytes")));
    let by_space = by_space.zip(min_free).map(|(bytes, free)| cut(bytes, "min_free", free.to_string()));
    let Some(turn) = turn else { return Ok((by_space, Vec::new())) };
    let room = turn.room(there)?;
    let by_bytes = room.bytes.zip(turn.bytes()).map(|(bytes, most)| cut(bytes, "bytes", most.to_string()));
    Ok((by_space.into_iter().chain(by_bytes).min_by_key(|r| r.0), room.remove))
}

/// Where the core goes: the directory, which is opened once for all that is done there, and the name. Symbolic links in the path are followed as the crasher
/// would, magic links (`/proc/self/root`) are not.
struct Place<'a> {
    dir: OwnedFd,
    name: &'a [u8],
    shown: String,
}

impl<'a> Place<'a> {
    fn of(path: &'a [u8]) -> Result<Self, String> {
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
        Ok(Place { dir, name, shown })
    }
}

/// The directory of a path, and the name in it.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(i) => (&path[..=i], &path[i + 1..]),
        None => (b".", path),
    }
}

/// Makes the file as the kernel's `coredump_file()` does: unlink, open with O_EXCL and O_NOFOLLOW, then look at what was opened.
fn create(place: &Place<'_>, unlink_first: bool, fs_uid: u32, mapped: bool) -> Result<OwnedFd, String> {
    let Place { dir, name, shown } = place;
    if unlink_first {
        // What is wrong with the old one shows when the new one is made.
        let _ = file::unlink(dir, proc::os(name));
    }
    let fd = file::create_exclusive(dir, proc::os(name), 0o600).map_err(|e| format!("open {shown:?}: {e}"))?;
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
