//! The writer: a child that has become the crasher makes the file and copies the core into it. What
//! it can touch is what the crashed process could have touched itself.

use super::create_file::{FileSpec, Made, OpenedDirectory, create, split};
use super::older_cores::CrasherView;
use super::protocol::{CreatedFile, Finished, Message, ToParent};
use super::selinux_label::{Labeller, Ready};
use crate::cause::{Cause, CauseCode};
use crate::dump::copy::crashed_memory::CrashedMemory;
use crate::dump::copy::early_release::Release;
use crate::dump::copy::lanes::{self, Copied};
use crate::dump::copy::pages::page_size;
use crate::dump::copy::stop::{Bounds, Stop};
use crate::dump::copy::target::{self, CopyTarget};
use crate::dump::crash::facts::Facts;
use crate::dump::crash::transport::Transport;
use crate::dump::policy::plan::{CorePlan, Rights};
use crate::dump::policy::quota::{self, KeptCore};
use crate::dump::slots::Slot;
use crate::limits::{Free, Keep};
use crate::sys::apparmor::Confinement;
use crate::sys::counter::Counter;
use crate::sys::file::{FileId, FileIdentity, Stat};
use crate::sys::filesystem::{self, FsType, Space};
use crate::sys::pinned_memory::Hold;
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, descriptor, file, filter, proc, user};
use anyhow::Result;
use std::ffi::OsStr;
use std::sync::Arc;

/// What the writer opens before it becomes the crasher.
pub(crate) struct WriterFiles<'a> {
    /// The memory of the process, for the faster lanes.
    pub source: Option<CrashedMemory>,
    /// For an early release.
    pub hold: Option<Hold>,
    /// Asks SELinux.
    pub label: Option<Labeller<'a>>,
    /// Takes on the AppArmor profile.
    pub confinement: Option<Result<Confinement<'a>>>,
    /// Counts what moves.
    pub moved: Counter,
    /// How the core comes.
    pub transport: Transport,
    /// The container's directory in the host's store, from the host's side: the container sees it
    /// read-only.
    pub store: Option<&'a OwnedFd>,
}

impl WriterFiles<'_> {
    /// All descriptors in it, which stay open.
    pub(crate) fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
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

/// As the crasher: makes the file, copies the core into it, and reports.
pub(crate) fn run_writer(
    facts: &Facts,
    core_file: &CorePlan,
    slot: Option<&Slot>,
    opened: WriterFiles<'_>,
    to_parent: &mut ToParent,
) {
    let mut gone = Vec::new();
    let last = match attempt(facts, core_file, slot, opened, to_parent, &mut gone) {
        Ok(None) => Message::Retry,
        Ok(Some(finished)) => {
            // The crashed process does not wait for the end of this one.
            descriptor::replace_stdin(&*to_parent);
            Message::Done(Finished { gone, ..finished })
        }
        Err(cause) => Message::Done(Finished::failed(cause, gone)),
    };
    to_parent.say(&last);
}

/// Returns what became of the core; `None` where nothing was done, since an early release is not
/// for this target. `gone`: cores of the container that are not there any more.
fn attempt(
    facts: &Facts,
    core_file: &CorePlan,
    slot: Option<&Slot>,
    opened: WriterFiles<'_>,
    to_parent: &mut ToParent,
    gone: &mut Vec<FileIdentity>,
) -> Result<Option<Finished>, Cause> {
    let WriterFiles { source, hold, label, confinement, moved, transport, store } = opened;
    let confinement = confinement.as_ref();
    let directory = open_directory(facts, core_file, confinement, store)?;
    let space = filesystem::space(&directory.dir).unwrap_or(Space::UNKNOWN);
    let memory_backed = space.kind == FsType::Memory;
    // The memory of that file system would be charged to nobody: a writer with an early release is
    // in no control group.
    if memory_backed && core_file.early_release {
        return Ok(None);
    }
    let (root, _) = core_file.seen_from(facts);
    let view = CrasherView { root, at_home: core_file.at_home, rights: core_file.rights };
    let there;
    (there, *gone) = slot.map(|t| view.look(t.cores())).unwrap_or_default();
    let bounds = space_bounds(core_file, slot, &there, &space)?;
    let (Made { file, number }, note) = make(facts, core_file, confinement, label, &directory)?;
    let named = core_file.with_number(number);
    let name = proc::os(split(&named.path).1);
    let evicted: Vec<&KeptCore> = bounds.evict.iter().map(|i| &there[*i]).collect();
    let keep = slot.map(Slot::keep).unwrap_or_default();
    let evict = evict(&view, &evicted, keep, gone).inspect_err(|_| {
        let _ = file::unlink(&directory.dir, name);
    })?;
    // If this process is killed from now on, the parent knows at least that there is a file.
    let id = file::stat(&file).ok().map(|s| s.id);
    let identity = file::identity(&file).ok();
    let made = CreatedFile { id, memory_backed, number, identity };
    to_parent.say(&Message::Created { made, evict, note });
    // The parent asks for it: the kernel then dumps on its processor, and not on this one, on which
    // the core is read as it comes.
    transport.wait(&*to_parent).map_err(|_| Cause::Killed)?;
    filter::enter(&filter::COPY).map_err(|e| Cause::Failed(format!("{e:#}")))?;
    let floor = bounds.min_free.map(|free| free.of(space.total));
    let takes = target::Capacity { room: bounds.limit.as_ref().map(|r| r.0), floor };
    let target = Arc::new(CopyTarget::new(file, moved, takes, space.kind));
    // It is closed explicitly below, even where a thread that hangs still has it.
    std::mem::forget(target.clone());
    let copied = fill(facts, core_file, &target, source, hold, to_parent);
    let closed = ClosedFile::of(&target, &directory, name, id);
    let stop = copied.result.and(closed.result).err();
    let full = || bounds.why_full(floor.filter(|_| target.is_short()));
    Ok(Some(Finished {
        size: closed.stat.map(|s| s.size),
        disk_size: closed.stat.map(|s| s.allocated),
        full_size: copied.full_size,
        identity: closed.identity,
        cause: stop.map(|stop| cause_of(stop, facts, core_file, full)),
        gone: Vec::new(),
    }))
}

/// Removes the older cores that have to go, and adds them to `gone`. Returns those in the host's
/// store, which only the parent can remove.
fn evict(
    view: &CrasherView<'_>,
    evicted: &[&KeptCore],
    keep: Keep,
    gone: &mut Vec<FileIdentity>,
) -> Result<Vec<FileIdentity>, Cause> {
    let (stored, others): (Vec<&KeptCore>, Vec<&KeptCore>) =
        evicted.iter().partition(|core| core.stored.is_some());
    for core in others {
        view.remove(core).map_err(|why| {
            let met = format_args!("an older core has to go, but {why}");
            Cause::limit(CauseCode::Keep, keep.as_str(), met)
        })?;
        gone.push(core.identity);
    }
    Ok(stored.iter().map(|core| core.identity).collect())
}

/// The core's file after its close.
struct ClosedFile {
    stat: Option<Stat>,
    identity: Option<FileIdentity>,
    result: Result<(), Stop>,
}

impl ClosedFile {
    /// `id`: the file's, as it was made; `name`: its name in the directory.
    fn of(
        target: &CopyTarget,
        directory: &OpenedDirectory<'_>,
        name: &OsStr,
        id: Option<FileId>,
    ) -> Self {
        let stat = file::stat(target).ok();
        let identity = file::identity(target).ok();
        // Some file systems report a failed write only here.
        let result = descriptor::close(target).map_err(Stop::Write);
        // Last, and by its name: some file systems know the time of the last write only after the
        // close. A file that has lost its name meanwhile is still not another one.
        let by_name = file::identity_at(&directory.dir, name).ok();
        let identity = by_name.filter(|i| Some(i.id) == id).or(identity);
        ClosedFile { stat, identity, result }
    }
}

/// Opens the directory, or makes it where the plan says so.
fn open_directory<'f>(
    facts: &Facts,
    core_file: &'f CorePlan,
    confinement: Option<&Result<Confinement<'_>>>,
    store: Option<&OwnedFd>,
) -> Result<OpenedDirectory<'f>, Cause> {
    let open = || OpenedDirectory::of(core_file, store, facts.status.umask);
    match (confinement, core_file.made_below) {
        // Under it directories are made, too.
        (Some(confinement), Some(_)) => confined(confinement, &core_file.path, open),
        _ => open(),
    }
}

/// Makes the file. Returns with it what went wrong without keeping it from being made.
fn make(
    facts: &Facts,
    core_file: &CorePlan,
    confinement: Option<&Result<Confinement<'_>>>,
    label: Option<Labeller<'_>>,
    directory: &OpenedDirectory<'_>,
) -> Result<(Made, Option<String>), Cause> {
    let ready = label.map_or(Ok(Ready::default()), |l| l.prepare(&directory.dir, directory.name));
    let Ready { keep_old, note } =
        ready.map_err(|why| Cause::Selinux { path: directory.shown.clone(), why })?;
    // In a user namespace fstat shows the mapped ID, and the effective one is the same: the plan
    // lets no process through whose IDs differ.
    let owner = match core_file.rights {
        Rights::Crasher if facts.user_ns.is_none() => facts.status.credentials.uid[3],
        Rights::HostRoot if facts.user_ns.is_none() => 0,
        _ => user::effective_uid(),
    };
    let make = || create(directory, &FileSpec { core_file, keep_old, owner });
    let made = match confinement {
        None => make(),
        Some(confinement) => confined(confinement, &core_file.path, make),
    };
    Ok((made?, note))
}

/// Copies the core, by whichever lane is fastest, or compresses it.
fn fill(
    facts: &Facts,
    core_file: &CorePlan,
    target: &Arc<CopyTarget>,
    source: Option<CrashedMemory>,
    hold: Option<Hold>,
    to_parent: &mut ToParent,
) -> Copied {
    let (limit, file_size, keep) = (core_file.limit, facts.file_size_limit, core_file.keep);
    let bounds = Bounds { limit, file_size, keep };
    if core_file.compress {
        return lanes::compress(descriptor::stdin(), target, &bounds, source);
    }
    let mut go = || {
        descriptor::replace_stdin(&*to_parent);
        to_parent.say(&Message::ReleasedEarly);
    };
    let release = hold.map(|hold| Release { hold, go: &mut go });
    lanes::copy_core(descriptor::stdin(), target, &bounds, source, release)
}

/// `full`: the limit that a target without room has met, if it is one of ours.
fn cause_of(
    stop: Stop,
    facts: &Facts,
    core_file: &CorePlan,
    full: impl FnOnce() -> Option<Cause>,
) -> Cause {
    match stop {
        Stop::Limit => Cause::RlimitCore(core_file.limit.unwrap_or(0)),
        Stop::Write(Errno::FBIG) => Cause::RlimitFsize(facts.file_size_limit.unwrap_or(0)),
        Stop::Write(e) => Cause::Write(e.raw_os_error()),
        Stop::Full => full().unwrap_or(Cause::Write(Errno::NOSPC.raw_os_error())),
        Stop::Read(e) => Cause::Read(e.raw_os_error()),
        Stop::Memory(e) => Cause::Memory(e.raw_os_error()),
        Stop::Ended => Cause::Killed,
    }
}

/// As the crasher also by its AppArmor profile.
fn confined<T: Send>(
    confinement: &Result<Confinement<'_>>,
    path: &[u8],
    work: impl FnOnce() -> Result<T, Cause> + Send,
) -> Result<T, Cause> {
    let refused = |e: &anyhow::Error| Cause::Apparmor {
        path: path.escape_ascii().to_string(),
        why: format!("{e:#}"),
    };
    let confinement = confinement.as_ref().map_err(refused)?;
    confinement.run(work).unwrap_or_else(|e| Err(refused(&e)))
}

/// What the core may have of the target.
struct SpaceBounds {
    /// Most bytes on disk, and why not more.
    limit: Option<(u64, Cause)>,
    /// What must stay free, where that bounds this core.
    min_free: Option<Free>,
    /// Which of the cores that are there have to go for it: indices.
    evict: Vec<usize>,
}

impl SpaceBounds {
    /// The limit that a target without room has met, if it is one of ours. `floor`: bytes that must
    /// stay free, where others have written so much that they do not.
    fn why_full(self, floor: Option<u64>) -> Option<Cause> {
        match self.min_free.zip(floor) {
            Some((free, floor)) => {
                let met = format_args!("others have written too: {floor} bytes must stay free");
                Some(Cause::limit(CauseCode::MinFree, free, met))
            }
            None => self.limit.map(|r| r.1),
        }
    }
}

fn space_bounds(
    core_file: &CorePlan,
    slot: Option<&Slot>,
    there: &[KeptCore],
    space: &Space,
) -> Result<SpaceBounds, Cause> {
    // What a file system in memory holds counts as its container's memory, and takes nobody's disk.
    let min_free = core_file.min_free.filter(|_| space.kind != FsType::Memory);
    if let Some(min_free) = min_free {
        quota::inodes(min_free, space.files, space.files_available)?;
    }
    let by_space = min_free
        .map(|min_free| quota::space(min_free, space.total, space.available))
        .transpose()?
        .flatten();
    let cut = |bytes: u64, key, value: String| {
        (bytes, Cause::limit(key, value, format_args!("the core was cut at {bytes} bytes")))
    };
    let by_space = by_space
        .zip(min_free)
        .map(|(bytes, free)| cut(bytes, CauseCode::MinFree, free.to_string()));
    let by_share = core_file.share.room(space.total, space.available);
    let mut by_share = by_share.map(|(room, bound)| (room, Cause::Share { bound, room }));
    if let Some((_, cause)) = by_share.take_if(|(room, _)| *room < page_size()) {
        return Err(cause);
    }
    let by_space = by_space.into_iter().chain(by_share).min_by_key(|r| r.0);
    let Some(slot) = slot else {
        return Ok(SpaceBounds { limit: by_space, min_free, evict: Vec::new() });
    };
    let room = slot.room(there)?;
    let by_bytes = room
        .bytes
        .zip(slot.bytes())
        .map(|(bytes, most)| cut(bytes, CauseCode::Bytes, most.to_string()));
    let limit = by_space.into_iter().chain(by_bytes).min_by_key(|r| r.0);
    Ok(SpaceBounds { limit, min_free, evict: room.remove })
}
