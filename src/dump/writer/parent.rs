//! The parent side of writing a core: it starts the writer, reads its messages, and gives it up
//! when no bytes move. It stays root, touches nothing of the container, and keeps the record.

use super::child::{WriterFiles, run_writer};
use super::crasher::become_crasher;
use super::protocol::{CreatedFile, Finished, Heard, Message, ToParent};
use super::selinux_label::Labeller;
use super::watchdog::{Notice, Watchdog};
use crate::cause::Cause;
use crate::dump::copy::crashed_memory::CrashedMemory;
use crate::dump::crash::arguments::Crash;
use crate::dump::crash::facts::Facts;
use crate::dump::policy::plan::{CorePlan, Rights};
use crate::dump::slots::Slot;
use crate::sys::apparmor::Confinement;
use crate::sys::cgroup::Groups;
use crate::sys::child::{self, Child};
use crate::sys::counter::Counter;
use crate::sys::file::FileIdentity;
use crate::sys::memory::{ProcessMemory, is_shared};
use crate::sys::pagemap::Pagemap;
use crate::sys::pinned_memory::Hold;
use crate::sys::{AsFd, OwnedFd, descriptor, process, robust_futex};
use anyhow::Result;
use std::time::Duration;

/// What became of the file, as far as the parent knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// The file, if one was made.
    pub made: Option<CreatedFile>,
    /// What became of the core.
    pub finished: Finished,
    /// The target was given up: it must not be touched again.
    pub given_up: bool,
    /// The writer could not even be killed: it hangs in the target, with the kernel's pipe.
    pub stuck: bool,
}

impl Written {
    /// There is no file, and why.
    pub(crate) fn nothing(cause: Cause) -> Self {
        Written { finished: Finished::failed(cause, Vec::new()), ..Written::default() }
    }
}

/// What the parent may do while the writer works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The writer has started, and will make the file when this has been dealt with.
    Started,
    /// The file is there, and its dump takes long, or it has another name than the record says.
    Made(CreatedFile),
    /// The file is made: these cores in the host's store have to go for it.
    Evict(Vec<FileIdentity>),
    /// The process has been let go before its core is whole.
    ReleasedEarly,
}

/// What came of one writer.
enum Attempt {
    /// It is over. The writer, if it has not ended.
    Over(Box<Written>, Option<EndingWriter>),
    /// It has to be done again, without an early release.
    Retry(EndingWriter),
}

/// A dump that takes longer has a record that knows its file before it is whole.
const SHORT: Duration = Duration::from_millis(500);

/// How long a writer has to end after its last message: after an early release the kernel frees the
/// memory of the crashed process then.
const LAST: Duration = Duration::from_secs(30);

/// A writer that has sent its last message. It ends when the parent closes its end of the pipe, not
/// before: on a busy processor the end of this process would delay what the crashed process waits
/// for.
#[derive(Debug)]
pub(crate) struct EndingWriter {
    writer: Child,
    messages: OwnedFd,
}

impl EndingWriter {
    /// Ends it. `None`: it hangs.
    pub(crate) fn end(self) -> Result<Option<child::Ended>> {
        drop(self.messages);
        self.writer.end_within(LAST)
    }
}

/// Writes the core that comes on stdin. `store`: the container's directory in the host's store.
/// Returns what became of it, and the writer if it has not ended.
///
/// # Errors
/// The child could not be started. Everything that happens in it is in [`Written`].
pub(crate) fn write(
    crash: &Crash,
    facts: &Facts,
    core_file: &CorePlan,
    slot: Option<&Slot>,
    store: Option<&OwnedFd>,
    mut on: impl FnMut(Event),
) -> Result<(Written, Option<EndingWriter>)> {
    let writer = match attempt(crash, facts, core_file, slot, store, &mut on)? {
        Attempt::Over(written, waiting) => return Ok((*written, waiting)),
        Attempt::Retry(writer) => writer,
    };
    writer.end()?;
    let core_file = CorePlan { early_release: false, ..core_file.clone() };
    match attempt(crash, facts, &core_file, slot, store, &mut on)? {
        Attempt::Over(written, waiting) => Ok((*written, waiting)),
        // Only a writer with an early release asks for it.
        Attempt::Retry(writer) => {
            let cause = Cause::Failed("the writer asked for a second retry".into());
            Ok((Written::nothing(cause), Some(writer)))
        }
    }
}

fn attempt(
    crash: &Crash,
    facts: &Facts,
    core_file: &CorePlan,
    slot: Option<&Slot>,
    store: Option<&OwnedFd>,
    on: &mut impl FnMut(Event),
) -> Result<Attempt> {
    let writer = start(crash, facts, core_file, slot, store)?;
    on(Event::Started);
    // If the writer has ended already, its last message is in the pipe.
    let _ = descriptor::write(&writer.go[1], &[1]);
    follow(writer, crash, core_file, on)
}

/// A writer that waits until it may begin.
struct Writer {
    child: Child,
    messages: OwnedFd,
    /// The pipe of the go-ahead, one byte; with its read end, so that a writer which has ended
    /// already is no error.
    go: [OwnedFd; 2],
    /// Counts what moves.
    moved: Counter,
}

fn start(
    crash: &Crash,
    facts: &Facts,
    core_file: &CorePlan,
    slot: Option<&Slot>,
    store: Option<&OwnedFd>,
) -> Result<Writer> {
    // A parent that shares the memory (vfork) would go on changing it.
    let early_release =
        core_file.early_release && !is_shared(crash.said.host_pid, facts.status.parent);
    let source = source(crash, facts, early_release, core_file.threads);
    let groups = groups(facts, core_file, early_release);
    let moved = Counter::shared()?;
    let (messages, to_parent) = descriptor::pipe()?;
    let (word, go) = descriptor::pipe()?;
    let child = child::fork_into(groups.unified(), |there| {
        groups.enter(there);
        // Without a hold the process just waits until its core is whole.
        let hold = if early_release { Hold::new().ok() } else { None };
        let mut to_parent = ToParent::over(to_parent);
        let confined = core_file.rights != Rights::HostRoot;
        let confinement = facts.profile.as_ref().filter(|_| confined).map(Confinement::open);
        let (transport, label) = (crash.transport, Labeller::new(facts));
        let opened = WriterFiles { source, hold, label, confinement, moved, transport, store };
        let keep = opened
            .files()
            .chain([to_parent.as_fd(), word.as_fd()])
            .chain(slot.iter().flat_map(|t| t.fds()))
            .collect();
        match become_crasher(facts, core_file, keep) {
            // A parent that is killed before the record exists sends no go-ahead. Then there is no
            // file either.
            Ok(()) if descriptor::read(&word, &mut [0]) != Ok(1) => {}
            Ok(()) => {
                let _ = descriptor::close(&word);
                run_writer(facts, core_file, slot, opened, &mut to_parent);
                to_parent.wait_until_unheard();
            }
            Err(e) => to_parent.say(&Message::Done(Finished::failed(
                Cause::Credentials(format!("{e:#}")),
                Vec::new(),
            ))),
        }
        0
    })?;
    Ok(Writer { child, messages, go: [word, go], moved })
}

/// The control groups that the writer works in.
///
/// The page cache of the core, and on a memory-backed volume the core itself, count as the
/// container's, as in the kernel's file mode. Not after an early release: an engine that cleans up
/// the group of a container that has gone would kill us. A group that is gone already cannot be
/// joined, and needs no limit.
fn groups(facts: &Facts, core_file: &CorePlan, early_release: bool) -> Groups {
    if early_release || core_file.rights == Rights::HostRoot {
        return Groups::default();
    }
    let groups = Groups::open(&facts.cgroups);
    // The thread that takes on the AppArmor profile could not be made there: better a core that is
    // charged to nobody than none.
    let needs_thread = facts.profile.is_some() && groups.is_short_of_processes(2);
    if needs_thread { Groups::default() } else { groups }
}

/// Deals with the writer's messages, up to its last one or its end.
fn follow(
    writer: Writer,
    crash: &Crash,
    core_file: &CorePlan,
    on: &mut impl FnMut(Event),
) -> Result<Attempt> {
    let Writer { child, messages, go: _, moved } = writer;
    let (mut written, mut heard, mut note) = (Written::default(), Heard::default(), None);
    let mut watchdog = Watchdog::new(&messages, moved, core_file.patience);
    loop {
        let line = match watchdog.next() {
            Notice::Line(line) => line,
            Notice::End => break,
            Notice::Stalled => return give_up(written, child, core_file),
            // Without a limit for slow targets nothing else ends one that its user has stopped.
            Notice::Quiet if child.is_stopped() => return give_up(written, child, core_file),
            Notice::Quiet => continue,
        };
        match heard.message(&line) {
            None => {}
            Some(Message::Created { made, evict, note: new }) => {
                // A process that was killed meanwhile has none; the writer finds that out.
                let _ = crash.transport.ask();
                (written.made, note) = (Some(made), new);
                // Unless more is known later.
                written.finished.cause = Some(Cause::Interrupted);
                if made.number > 1 || !watchdog.hears_within(SHORT) {
                    on(Event::Made(made));
                }
                if !evict.is_empty() {
                    on(Event::Evict(evict));
                }
            }
            Some(Message::ReleasedEarly) => {
                // The child has let go of its end already: with ours the process goes.
                on(Event::ReleasedEarly);
                descriptor::replace_stdin(&messages);
            }
            Some(Message::Retry) => {
                return Ok(Attempt::Retry(EndingWriter { writer: child, messages }));
            }
            Some(Message::Done(finished)) => {
                if let Some(note) = note {
                    log::warn!("process {}: {note}, ignoring", crash.said.host_pid);
                }
                written.finished = finished;
                let waiting = EndingWriter { writer: child, messages };
                return Ok(Attempt::Over(Box::new(written), Some(waiting)));
            }
        }
    }
    // The writer waits until this end is closed.
    drop(watchdog);
    drop(messages);
    ended_early(written, child, core_file)
}

/// The writer has ended, or closed its pipe, without a last message.
fn ended_early(mut written: Written, child: Child, core_file: &CorePlan) -> Result<Attempt> {
    let ended = child.end_within(LAST)?;
    // It may have been killed between making the file and saying so. The record then names a
    // truncated core, which may not exist.
    written.made.get_or_insert_default();
    written.stuck = ended.is_none();
    written.finished.cause = Some(match ended {
        Some(child::Ended::Signal(child::FORBIDDEN)) => Cause::Forbidden,
        Some(other) => {
            Cause::WriterKilled { how: format!("{other:?}"), memory: core_file.memory_backed }
        }
        None => Cause::WriterHangs,
    });
    Ok(Attempt::Over(Box::new(written), None))
}

/// Nothing moves: the writer is killed.
fn give_up(mut written: Written, child: Child, core_file: &CorePlan) -> Result<Attempt> {
    written.stuck = child.end_now()?.is_none();
    written.given_up = true;
    let stall = |patience: Duration| Cause::Stall(patience.as_secs());
    written.finished.cause = Some(core_file.patience.map_or(Cause::WriterStopped, stall));
    Ok(Attempt::Over(Box::new(written), None))
}

/// The memory of the process that the pidfd names, opened while we have the rights.
fn source(
    crash: &Crash,
    facts: &Facts,
    early_release: bool,
    threads: usize,
) -> Option<CrashedMemory> {
    let pidfd = crash.pidfd.as_ref().and_then(|p| p.try_clone().ok());
    let memory = ProcessMemory::new(crash.said.host_tid, facts.task.open_file("mem").ok()?);
    let robust =
        if early_release { robust_futex::heads(&facts.task.siblings().ok()?) } else { Vec::new() };
    Some(CrashedMemory {
        memory,
        pagemap: Pagemap::new(facts.task.open_file("pagemap").ok()?),
        vdso: facts.vdso,
        pidfd,
        robust,
        threads,
    })
}

/// Interrupts the dump in the kernel. For a writer that hangs in its target with the kernel's pipe
/// open: the crashed process would wait as long.
pub(crate) fn interrupt_kernel_dump(crash: &Crash, facts: &Facts) -> Result<()> {
    if facts.is_still(crash) { process::interrupt_dump(crash.said.host_tid) } else { Ok(()) }
}
