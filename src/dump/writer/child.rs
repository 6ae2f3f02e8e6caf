//! The writer: a child that has become the crasher: its root, working directory, umask, IDs,
//! groups, capabilities, user namespace. What it can touch is what the crashed process could have
//! touched itself.

use crate::dump::copy::lanes::{self, Bounds, Release, Stop};
use crate::dump::copy::output::{self, Target};
use crate::dump::copy::parallel::Source;
use crate::dump::crash::facts::Facts;
use crate::dump::policy::plan::CoreFile;
use crate::dump::policy::quota::{self, Kept, Refusal};
use crate::dump::policy::slots::Slot;
use crate::dump::writer::label::{Labeller, Ready};
use crate::dump::writer::parent::Written;
use crate::dump::writer::rotate::View;
use crate::sys::apparmor::Confinement;
use crate::sys::counter::Counter;
use crate::sys::filesystem::{self, FsType, Space};
use crate::sys::hold::Hold;
use crate::sys::{
    AsFd, BorrowedFd, Errno, OwnedFd, cred, file, filter, limit, ns, proc, process, resolve,
};
use anyhow::{Context, Result};
use std::io::Write;
use std::sync::Arc;

/// What the writer opens while it still can.
pub struct Opened<'a> {
    /// What the fast lane reads from.
    pub source: Option<Source>,
    /// For an early release.
    pub hold: Option<Hold>,
    /// Asks SELinux.
    pub label: Option<Labeller<'a>>,
    /// Takes on the AppArmor profile.
    pub confinement: Option<Result<Confinement<'a>>>,
    /// Counts what moves.
    pub moved: Counter,
    /// The container's directory in the host's store, from the host's side: the container sees it
    /// read-only.
    pub store: Option<&'a OwnedFd>,
}

impl Opened<'_> {
    /// All of it that is a descriptor.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let source = self
            .source
            .iter()
            .flat_map(|s| {
                [
                    Some(s.memory.as_fd()),
                    Some(s.pagemap.as_fd()),
                    s.pidfd.as_ref().map(|p| p.as_fd()),
                ]
            })
            .flatten();
        let confinement = self.confinement.iter().flatten().map(AsFd::as_fd);
        source
            .chain(self.store.map(|s| s.as_fd()))
            .chain(self.hold.as_ref().map(|h| h.as_fd()))
            .chain(self.label.iter().flat_map(Labeller::files))
            .chain(confinement)
    }
}

/// The writer's words to its parent.
pub struct Report(std::fs::File);

impl Report {
    /// Over the end of a pipe.
    pub fn over(pipe: OwnedFd) -> Self {
        Report(pipe.into())
    }

    /// Until the parent has closed its end, or is gone.
    pub fn wait_until_unheard(&self) {
        // There is never anything to read at this end: it ends with an error.
        let _ = process::wait_readable(&self.0, None);
    }

    /// A report that cannot be delivered has nobody left to read it.
    pub fn say(&mut self, written: &Written) {
        let mut line = serde_json::to_vec(written).unwrap_or_default();
        line.push(b'\n');
        let _ = self.0.write_all(&line);
    }
}

impl AsFd for Report {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives up everything that the crasher does not have, all descriptors but the standard three and
/// `keep`. The order is the defence: what needs rights first, the rights themselves last.
pub fn become_crasher<'a>(
    facts: &'a Facts,
    core_file: &CoreFile,
    mut keep: Vec<BorrowedFd<'a>>,
) -> Result<()> {
    process::not_dumpable()?;
    process::ignore_file_size_signal()?;
    if core_file.memory {
        process::first_to_go()?;
    }
    file::set_umask(facts.status.umask);
    limit::set_own_file_size(facts.file_size)?;
    let mut credentials = facts.status.credentials.clone();
    if core_file.as_root {
        credentials.uid[3] = 0;
        file::change_dir(file::open_dir("/".as_ref())?)?;
    } else {
        if facts.profile.is_some() {
            // For AppArmor a path of another mount namespace has no beginning.
            ns::enter(&facts.mounts, ns::Kind::Mount)?;
        }
        file::change_root(&facts.root).context("the crasher's root")?;
        file::change_dir(&facts.cwd).context("the crasher's working directory")?;
    }
    keep.extend(facts.user_ns.as_ref().map(|n| n.as_fd()));
    process::close_all_but(&keep)?;
    cred::assume(&credentials, facts.user_ns.as_ref())?;
    facts.user_ns.as_ref().map_or(Ok(()), process::close).context("close")
}

/// As the crasher: makes the file and copies the stream.
pub fn copy(
    facts: &Facts,
    core_file: &CoreFile,
    slot: Option<&Slot>,
    opened: Opened<'_>,
    report: &mut Report,
) {
    let Opened { source, hold, label, confinement, moved, store } = opened;
    let place = match Place::of(&core_file.path, store) {
        Ok(place) => place,
        Err(reason) => {
            return report.say(&Written { reason: Some(reason), done: true, ..Written::default() });
        }
    };
    let space = filesystem::space(&place.dir).unwrap_or(Space {
        kind: FsType::Other,
        total: 0,
        available: 0,
        files: 0,
        files_available: 0,
    });
    // It would count as nobody's memory: a writer of an early release is in no group.
    if space.kind == FsType::Memory && core_file.early {
        return report.say(&Written { again: true, done: true, ..Written::default() });
    }
    let view = View { root: &facts.root_path, at_home: core_file.at_home };
    let (there, mut gone) = slot.map(|t| view.look(t.cores())).unwrap_or_default();
    let (room, old) = match room(core_file, slot, &there, &space) {
        Ok(room) => room,
        Err(refusal) => return report.say(&Written { gone, ..Written::refused(refusal) }),
    };
    let ready =
        match label.as_ref().map_or(Ok(Ready::default()), |l| l.prepare(&place.dir, place.name)) {
            Ok(ready) => ready,
            Err(why) => {
                return report.say(&Written {
                    reason: Some(format!("open {:?}: {why}", place.shown)),
                    done: true,
                    gone,
                    ..Written::default()
                });
            }
        };
    let make = || {
        create(
            &place,
            core_file.unlink_first && !ready.keep_old,
            facts.status.credentials.uid[3],
            facts.user_ns.is_some(),
        )
    };
    let made = match confinement {
        None => make(),
        Some(confinement) => confinement
            .and_then(|c| c.run(make))
            .unwrap_or_else(|e| Err(format!("open {:?}: {e:#}", place.shown))),
    };
    let file = match made {
        Ok(file) => file,
        Err(reason) => {
            return report.say(&Written {
                reason: Some(reason),
                done: true,
                gone,
                ..Written::default()
            });
        }
    };
    let (stored, old): (Vec<&Kept>, Vec<&Kept>) =
        old.iter().map(|i| &there[*i]).partition(|core| core.stored.is_some());
    for core in old {
        if let Err(why) = view.remove(core) {
            let _ = file::unlink(&place.dir, proc::os(place.name));
            let refusal =
                Refusal::new("keep", "newest", format_args!("an older core has to go, but {why}"));
            return report.say(&Written { gone, ..Written::refused(refusal) });
        }
        gone.push(core.identity);
    }
    // If this process is killed from now on, the parent knows at least that there is a file.
    let id = file::stat(&file).ok().map(|s| s.id);
    let made = Written {
        created: true,
        id,
        memory: space.kind == FsType::Memory,
        note: ready.note,
        goes: stored.iter().map(|core| core.identity).collect(),
        ..Written::default()
    };
    let begun = |released| Written {
        reason: Some("the writer was interrupted".into()),
        released,
        ..made.clone()
    };
    report.say(&begun(false));
    if let Err(e) = filter::enter(&filter::COPY) {
        return report.say(&Written { reason: Some(format!("{e:#}")), done: true, ..made });
    }
    // What a file system in memory holds counts as its container's memory, and takes nobody's disk.
    let min_free = core_file.min_free.filter(|_| space.kind != FsType::Memory);
    let takes = output::Space {
        room: room.as_ref().map(|r| r.0),
        floor: min_free.map(|free| free.of(space.total)),
    };
    let target = Arc::new(Target::new(file, moved, takes, space.kind));
    // It is closed by hand, below, also where a thread was left behind with it.
    std::mem::forget(target.clone());
    let bounds = Bounds { limit: core_file.limit, file_size: facts.file_size };
    let mut released = false;
    let mut go = || {
        process::replace_stdin(&report.0);
        report.say(&begun(true));
        released = true;
    };
    let release = hold.map(|hold| Release { hold, go: &mut go });
    let result = match core_file.compress {
        true => lanes::compress(process::stdin(), &target, &bounds, source),
        false => lanes::copy(process::stdin(), &target, &bounds, source, release),
    };
    let stat = file::stat(&*target).ok();
    // A file system may refuse only now what it has taken before.
    let closed = process::close(&*target).map_err(Stop::Write);
    // By its name, and last: some file systems know only now when it was written to.
    let identity =
        file::identity_at(&place.dir, proc::os(place.name)).ok().filter(|i| Some(i.id) == made.id);
    let stop = result.and(closed).err();
    let short = min_free.filter(|_| target.is_short()).map(|free| {
        let floor = free.of(space.total);
        Refusal::new(
            "min_free",
            free,
            format_args!("others have written too: {floor} bytes must stay free"),
        )
    });
    let cut = short.or(room.map(|r| r.1)).filter(|_| stop == Some(Stop::Full));
    let limit = cut.as_ref().map(|r| r.limit.clone());
    let reason = stop.map(|stop| match stop {
        Stop::Limit => format!("RLIMIT_CORE of {} bytes was reached", core_file.limit.unwrap_or(0)),
        Stop::Write(Errno::FBIG) => format!(
            "RLIMIT_FSIZE of the process was reached ({} bytes)",
            facts.file_size.unwrap_or(0)
        ),
        Stop::Write(e) => format!("write: {e}"),
        Stop::Full => cut.map(|r| r.reason).unwrap_or_default(),
        Stop::Read(e) => format!("read from the kernel: {e}"),
        Stop::Memory(e) => format!("read of the process's memory after its release: {e}"),
        Stop::Ended => {
            "the kernel stopped sending: the process was killed or frozen while it dumped".into()
        }
    });
    // The end of this process is not waited for.
    process::replace_stdin(&report.0);
    report.say(&Written {
        size: stat.map(|s| s.size),
        disk_size: stat.map(|s| s.allocated),
        reason,
        limit,
        gone,
        identity,
        released,
        done: true,
        ..made
    });
}

/// How many bytes the core may have on disk, with what is to be said if it has more; and which of
/// the cores that are there have to go for it.
type Room = (Option<(u64, Refusal)>, Vec<usize>);

fn room(
    core_file: &CoreFile,
    slot: Option<&Slot>,
    there: &[Kept],
    space: &Space,
) -> Result<Room, Refusal> {
    // What a file system in memory holds counts as its container's memory, and takes nobody's disk.
    let min_free = core_file.min_free.filter(|_| space.kind != FsType::Memory);
    if let Some(min_free) = min_free {
        quota::files(min_free, space.files, space.files_available)?;
    }
    let by_space = min_free
        .map(|min_free| quota::space(min_free, space.total, space.available))
        .transpose()?
        .flatten();
    let cut = |bytes: u64, key, value: String| {
        (bytes, Refusal::new(key, value, format_args!("the core was cut at {bytes} bytes")))
    };
    let by_space =
        by_space.zip(min_free).map(|(bytes, free)| cut(bytes, "min_free", free.to_string()));
    let Some(slot) = slot else { return Ok((by_space, Vec::new())) };
    let room = slot.room(there)?;
    let by_bytes =
        room.bytes.zip(slot.bytes()).map(|(bytes, most)| cut(bytes, "bytes", most.to_string()));
    Ok((by_space.into_iter().chain(by_bytes).min_by_key(|r| r.0), room.remove))
}

/// Where the core goes: the directory, which is opened once for all that is done there, and the
/// name. Symbolic links in the path are followed as the crasher would, magic links
/// (`/proc/self/root`) are not.
struct Place<'a> {
    dir: OwnedFd,
    name: &'a [u8],
    shown: String,
}

impl<'a> Place<'a> {
    fn of(path: &'a [u8], store: Option<&OwnedFd>) -> Result<Self, String> {
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
        let dir =
            resolve::open_dir_as_process(dir).map_err(|e| fail("open the directory of", e))?;
        let dir = from_the_hosts_side(dir, store);
        Ok(Place { dir, name, shown })
    }
}

/// The same directory by the host's mount of it, which is writable, where it is the container's in
/// the store.
pub fn from_the_hosts_side(dir: OwnedFd, store: Option<&OwnedFd>) -> OwnedFd {
    let id = |fd: &OwnedFd| file::stat(fd).ok().map(|s| s.id);
    match store {
        Some(store) if id(store) == id(&dir) => store.try_clone().unwrap_or(dir),
        _ => dir,
    }
}

/// The directory of a path, and the name in it.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(i) => (&path[..=i], &path[i + 1..]),
        None => (b".", path),
    }
}

/// Makes the file as the kernel's `coredump_file()` does: unlink, open with O_EXCL and O_NOFOLLOW,
/// then look at what was opened.
fn create(
    place: &Place<'_>,
    unlink_first: bool,
    fs_uid: u32,
    mapped: bool,
) -> Result<OwnedFd, String> {
    let Place { dir, name, shown } = place;
    let removed = if unlink_first { file::unlink(dir, proc::os(name)) } else { Ok(()) };
    let fd = file::create_exclusive(dir, proc::os(name), 0o600).map_err(|e| match removed {
        Err(why) if e == Errno::EXIST => {
            format!("open {shown:?}: {e}, and it cannot be removed: {why:#}")
        }
        _ => format!("open {shown:?}: {e}"),
    })?;
    let stat = file::stat(&fd).map_err(|e| format!("{shown:?}: {e:#}"))?;
    // In a user namespace fstat shows the mapped ID, and the effective one is the same: the plan
    // lets no process through whose IDs differ.
    let owner = if mapped { process::effective_uid() } else { fs_uid };
    let rule = match stat {
        s if !s.regular => "it is not a regular file",
        s if s.links != 1 => "it has more than one link",
        s if s.uid != owner => "the file system gives new files another owner",
        s if s.mode & 0o677 != 0o600 => {
            "umask or file system take away the owner's right to read and write it"
        }
        _ => return Ok(fd),
    };
    Err(format!("{shown:?} was made, but {rule}"))
}
