//! The writer: a child that has become the crasher makes the file and copies the core into it. What
//! it can touch is what the crashed process could have touched itself.

use super::label::{Labeller, Ready};
use super::place::{FileSpec, Made, Place, create, split};
use super::protocol::{CreatedFile, Finished, Message, Report};
use super::rotate::CrasherView;
use crate::cause::{Cause, Word};
use crate::dump::copy::early_release::Release;
use crate::dump::copy::lanes;
use crate::dump::copy::pages::PAGE;
use crate::dump::copy::source::CrashedMemory;
use crate::dump::copy::stop::{Bounds, Stop};
use crate::dump::copy::target::{self, Target};
use crate::dump::crash::facts::Facts;
use crate::dump::crash::stream::Stream;
use crate::dump::policy::plan::{CoreFile, Rights};
use crate::dump::policy::quota::{self, KeptCore};
use crate::dump::policy::slot::Slot;
use crate::sys::apparmor::Confinement;
use crate::sys::counter::Counter;
use crate::sys::filesystem::{self, FsType, Space};
use crate::sys::pinned_memory::Hold;
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, descriptor, file, filter, proc, user};
use anyhow::Result;
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
    pub stream: Stream,
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
pub(crate) fn copy(
    facts: &Facts,
    core_file: &CoreFile,
    slot: Option<&Slot>,
    opened: WriterFiles<'_>,
    report: &mut Report,
) {
    let failed = |cause, gone| Message::Done(Finished::failed(cause, gone));
    let WriterFiles { source, hold, label, confinement, moved, stream, store } = opened;
    let open = || Place::of(core_file, store, facts.status.umask);
    let opened = match (&confinement, core_file.made_below) {
        // Under it directories are made, too.
        (Some(confinement), Some(_)) => confined(confinement, &core_file.path, open),
        _ => open(),
    };
    let place = match opened {
        Ok(place) => place,
        Err(cause) => return report.say(&failed(cause, Vec::new())),
    };
    let space = filesystem::space(&place.dir).unwrap_or(Space {
        kind: FsType::Other,
        total: 0,
        available: 0,
        files: 0,
        files_available: 0,
    });
    // The memory of that file system would be charged to nobody: a writer with an early release is
    // in no control group.
    if space.kind == FsType::Memory && core_file.early {
        return report.say(&Message::Retry);
    }
    let (root, _) = core_file.seen_from(facts);
    let view = CrasherView { root, at_home: core_file.at_home, rights: core_file.rights };
    let (there, mut gone) = slot.map(|t| view.look(t.cores())).unwrap_or_default();
    let (room, old) = match room(core_file, slot, &there, &space) {
        Ok(room) => room,
        Err(cause) => return report.say(&failed(cause, gone)),
    };
    let ready =
        match label.as_ref().map_or(Ok(Ready::default()), |l| l.prepare(&place.dir, place.name)) {
            Ok(ready) => ready,
            Err(why) => {
                return report.say(&failed(Cause::Selinux { path: place.shown, why }, gone));
            }
        };
    // In a user namespace fstat shows the mapped ID, and the effective one is the same: the plan
    // lets no process through whose IDs differ.
    let owner = match core_file.rights {
        Rights::Crasher if facts.user_ns.is_none() => facts.status.credentials.uid[3],
        Rights::HostRoot if facts.user_ns.is_none() => 0,
        _ => user::effective_uid(),
    };
    let wanted = FileSpec { core_file, keep_old: ready.keep_old, owner };
    let make = || create(&place, &wanted);
    let made = match &confinement {
        None => make(),
        Some(confinement) => confined(confinement, &core_file.path, make),
    };
    let Made { file, number } = match made {
        Ok(made) => made,
        Err(cause) => return report.say(&failed(cause, gone)),
    };
    let named = core_file.with_number(number);
    let (_, name) = split(&named.path);
    let (stored, old): (Vec<&KeptCore>, Vec<&KeptCore>) =
        old.iter().map(|i| &there[*i]).partition(|core| core.stored.is_some());
    for core in old {
        if let Err(why) = view.remove(core) {
            let _ = file::unlink(&place.dir, proc::os(name));
            let met = format_args!("an older core has to go, but {why}");
            return report.say(&failed(Cause::limit(Word::Keep, "newest", met), gone));
        }
        gone.push(core.identity);
    }
    // If this process is killed from now on, the parent knows at least that there is a file.
    let id = file::stat(&file).ok().map(|s| s.id);
    report.say(&Message::Created {
        made: CreatedFile {
            id,
            memory: space.kind == FsType::Memory,
            number,
            identity: file::identity(&file).ok(),
        },
        goes: stored.iter().map(|core| core.identity).collect(),
        note: ready.note,
    });
    if stream.begin().is_err() {
        return report.say(&failed(Cause::Killed, gone));
    }
    if let Err(e) = filter::enter(&filter::COPY) {
        return report.say(&failed(Cause::Failed(format!("{e:#}")), Vec::new()));
    }
    // What a file system in memory holds counts as its container's memory, and takes nobody's disk.
    let min_free = core_file.min_free.filter(|_| space.kind != FsType::Memory);
    let takes = target::Capacity {
        room: room.as_ref().map(|r| r.0),
        floor: min_free.map(|free| free.of(space.total)),
    };
    let target = Arc::new(Target::new(file, moved, takes, space.kind));
    // It is closed explicitly below, even where a thread that hangs still has it.
    std::mem::forget(target.clone());
    let bounds =
        Bounds { limit: core_file.limit, file_size: facts.file_size, keep: core_file.keep };
    let mut go = || {
        descriptor::replace_stdin(&*report);
        report.say(&Message::Released);
    };
    let release = hold.map(|hold| Release { hold, go: &mut go });
    let copied = match core_file.compress {
        true => lanes::compress(descriptor::stdin(), &target, &bounds, source),
        false => lanes::copy(descriptor::stdin(), &target, &bounds, source, release),
    };
    let stat = file::stat(&*target).ok();
    let identity = file::identity(&*target).ok();
    // Some file systems report a failed write only here.
    let closed = descriptor::close(&*target).map_err(Stop::Write);
    // Last, and by its name: some file systems know the time of the last write only after the
    // close. A file that has lost its name meanwhile is still not another one.
    let by_name = file::identity_at(&place.dir, proc::os(name)).ok();
    let identity = by_name.filter(|i| Some(i.id) == id).or(identity);
    let stop = copied.result.and(closed).err();
    let short = min_free.filter(|_| target.is_short()).map(|free| {
        let floor = free.of(space.total);
        Cause::limit(
            Word::MinFree,
            free,
            format_args!("others have written too: {floor} bytes must stay free"),
        )
    });
    let cut = short.or(room.map(|r| r.1)).filter(|_| stop == Some(Stop::Full));
    let cause = stop.map(|stop| match stop {
        Stop::Limit => Cause::RlimitCore(core_file.limit.unwrap_or(0)),
        Stop::Write(Errno::FBIG) => Cause::RlimitFsize(facts.file_size.unwrap_or(0)),
        Stop::Write(e) => Cause::Write(e.raw_os_error()),
        Stop::Full => cut.unwrap_or(Cause::Write(Errno::NOSPC.raw_os_error())),
        Stop::Read(e) => Cause::Read(e.raw_os_error()),
        Stop::Memory(e) => Cause::Memory(e.raw_os_error()),
        Stop::Ended => Cause::Killed,
    });
    // The crashed process does not wait for the end of this one.
    descriptor::replace_stdin(&*report);
    report.say(&Message::Done(Finished {
        size: stat.map(|s| s.size),
        disk_size: stat.map(|s| s.allocated),
        full_size: copied.full_size,
        identity,
        cause,
        gone,
    }));
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

/// How many bytes the core may have on disk, with what is to be said if it has more; and which of
/// the cores that are there have to go for it.
type SpaceBounds = (Option<(u64, Cause)>, Vec<usize>);

fn room(
    core_file: &CoreFile,
    slot: Option<&Slot>,
    there: &[KeptCore],
    space: &Space,
) -> Result<SpaceBounds, Cause> {
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
        (bytes, Cause::limit(key, value, format_args!("the core was cut at {bytes} bytes")))
    };
    let by_space =
        by_space.zip(min_free).map(|(bytes, free)| cut(bytes, Word::MinFree, free.to_string()));
    let by_share = core_file.share.room(space.total, space.available);
    let by_share = by_share.map(|(room, bound)| (room, Cause::Share { bound, room }));
    if let Some((..PAGE, cause)) = by_share {
        return Err(cause);
    }
    let by_space = by_space.into_iter().chain(by_share).min_by_key(|r| r.0);
    let Some(slot) = slot else { return Ok((by_space, Vec::new())) };
    let room = slot.room(there)?;
    let by_bytes =
        room.bytes.zip(slot.bytes()).map(|(bytes, most)| cut(bytes, Word::Bytes, most.to_string()));
    Ok((by_space.into_iter().chain(by_bytes).min_by_key(|r| r.0), room.remove))
}
