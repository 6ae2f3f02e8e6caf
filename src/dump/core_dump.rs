//! A crash of a container that is to have a core: a first record is saved before its first byte,
//! the outcome when that is known.

use super::after::crash_record::CrashRecord;
use super::after::deleted_files::DeletedFiles;
use super::after::kept_with_last_core::MappedFilesHash;
use super::after::released::Released;
use super::after::{termination_log, unreported_core, user_record};
use super::core_place::CorePlace;
use super::crash::container_crash::ContainerCrash;
use super::policy::plan::{self, CorePlan, Rights};
use super::policy::quota::KeptCore;
use super::slots::Slot;
use super::writer::older_cores::Stored;
use super::writer::parent::{self, EndingWriter, Event, Written};
use super::writer::protocol::Finished;
use crate::cause::Cause;
use crate::record::{Outcome, Record};
use crate::store::Store;
use crate::sys::cgroup;
use crate::sys::file::{FileId, FileIdentity};
use crate::vacuum;
use anyhow::Result;
use std::time::Instant;

/// Writes the core into this file, and records what became of it.
///
/// # Errors
/// What could not be done after the process was let go.
pub(super) fn with_core(
    case: &ContainerCrash<'_>,
    file: &CorePlan,
    mut slot: Option<Box<Slot>>,
) -> Result<()> {
    let older = OlderCores::of(case, slot.as_deref_mut());
    let place = CorePlace::of(case.facts, case.entry);
    let mut dump = CoreDump::begin(case, &place, &older, file, slot.as_deref());
    let (written, waiting) = dump.write();
    let written = dump.measured(written);
    let stored = place.in_store(&dump.file, &written);
    dump.count_core(&written, stored.as_deref());
    let core = dump.say_what_became_of_it(written, stored.is_some());
    let is_reported = dump.report_termination(core);
    dump.copy_for_user(core);
    dump.save_and_release(core);
    let freed =
        if core.is_stuck { parent::interrupt_kernel_dump(case.crash, case.facts) } else { Ok(()) };
    let ended = waiting.map_or(Ok(None), EndingWriter::end);
    dump.count_crash();
    freed.and(ended)?;
    if !core.is_stuck {
        if let Some(released) = dump.released(core, is_reported) {
            released.finish(slot)?;
        }
        vacuum::now_and_then(case.config)?;
    }
    Ok(())
}

/// What the container has in the host's store already, and which of it has gone.
struct OlderCores {
    store: Option<Store>,
    gone: Vec<FileIdentity>,
}

impl OlderCores {
    /// Not for a user's container: what the registration says is not trusted.
    fn of(case: &ContainerCrash<'_>, slot: Option<&mut Slot>) -> Self {
        let none = OlderCores { store: None, gone: Vec::new() };
        let is_stored = |slot: &Slot| slot.cores().iter().any(|core| core.stored.is_some());
        let Some(slot) = slot.filter(|slot| is_stored(slot) && case.entry.user.is_none()) else {
            return none;
        };
        let Some(store) = Store::peek(case.config) else { return none };
        let gone = Stored(&store).gone(slot.cores());
        slot.without(&gone);
        OlderCores { store: Some(store), gone }
    }

    /// Removes one that has to go. Returns whether it has.
    fn remove(&self, core: &KeptCore) -> bool {
        let removed = self.store.as_ref().map(|store| Stored(store).remove(core));
        match removed {
            Some(Err(e)) => {
                log::warn!("an older core stays in the store: {e:#}");
                false
            }
            removed => removed.is_some(),
        }
    }
}

/// What of a core later steps may touch.
#[derive(Clone, Copy, Debug)]
struct Core {
    /// Device and inode number of the file, if there is one that may still be touched.
    id: Option<FileId>,
    /// The target was given up: it must not be touched again.
    is_given_up: bool,
    /// The writer hangs, with the kernel's pipe.
    is_stuck: bool,
}

/// The dump of one crash.
struct CoreDump<'c, 's> {
    case: &'c ContainerCrash<'c>,
    place: &'s CorePlace<'c>,
    older: &'s OlderCores,
    slot: Option<&'s Slot>,
    /// By the number that it got, once that is known.
    file: CorePlan,
    record: Record,
    client: CrashRecord<'c>,
    /// Those of the process's files that have no name any more.
    deleted: DeletedFiles,
    /// Which files it has mapped, where all of them still have a name.
    mapped: Option<MappedFilesHash>,
    /// When the process was let go before its core was whole.
    released_at: Option<String>,
    given_up_for_memory: Option<String>,
    started: Instant,
}

impl<'c, 's> CoreDump<'c, 's> {
    /// Prepares the first record (`started`), which remains if this helper is killed.
    fn begin(
        case: &'c ContainerCrash<'c>,
        place: &'s CorePlace<'c>,
        older: &'s OlderCores,
        file: &CorePlan,
        slot: Option<&'s Slot>,
    ) -> Self {
        let started = Instant::now();
        let (file, given_up_for_memory) =
            plan::affordable(file.clone(), cgroup::headroom(&case.facts.cgroups));
        let mut record = Record { truncated: true, ..case.record() };
        place.name_in(&mut record, &file);
        record.host_dir = place.host_dir(&file);
        let client = CrashRecord::new(&case.config.store, case.account_dir);
        CoreDump {
            case,
            place,
            older,
            slot,
            file,
            record,
            client,
            deleted: DeletedFiles::default(),
            mapped: None,
            released_at: None,
            given_up_for_memory,
            started,
        }
    }

    /// Whether the executable and libraries are to be kept.
    fn is_keeper(&self) -> bool {
        self.case.config.binaries.keep && self.case.entry.user.is_none()
    }

    /// Has the core written. Returns what became of it, and the writer if it has not ended.
    fn write(&mut self) -> (Written, Option<EndingWriter>) {
        let (case, file, slot) = (self.case, self.file.clone(), self.slot);
        let (store, older) = (self.place.store.as_ref(), self.older);
        let mut gone = older.gone.clone();
        let cores = slot.map_or(&[][..], Slot::cores);
        let written = parent::write(case.crash, case.facts, &file, slot, store, |event| {
            if let Event::Evict(evict) = &event {
                let evict = cores.iter().filter(|core| evict.contains(&core.identity));
                gone.extend(evict.filter(|core| older.remove(core)).map(|core| core.identity));
            }
            self.hear(event);
        });
        let (mut written, waiting) =
            written.unwrap_or_else(|e| (Written::nothing(Cause::Failed(format!("{e:#}"))), None));
        written.finished.gone.extend(gone);
        self.file = file.with_number(written.made.map_or(1, |made| made.number));
        (written, waiting)
    }

    /// What is done while the writer works.
    fn hear(&mut self, event: Event) {
        match event {
            // The first record is written while the writer becomes the crasher.
            Event::Started => {
                self.client.say(&self.record);
                if self.is_keeper() {
                    let facts = self.case.facts;
                    let maps = facts.task.read("maps").unwrap_or_default();
                    self.deleted = DeletedFiles::of(&facts.task, &maps);
                    let largest = self.case.config.binaries.max_file;
                    self.mapped = MappedFilesHash::of(&maps, &facts.status.credentials, largest);
                }
            }
            // From here on the record identifies this very file, by its inode.
            Event::Made(made) => {
                self.record.identity = made.identity;
                if made.number > 1 {
                    let named = self.file.with_number(made.number);
                    self.place.name_in(&mut self.record, &named);
                }
                self.client.say(&self.record);
            }
            Event::Evict(_) => {}
            Event::ReleasedEarly => self.released_at = Some(now()),
        }
    }

    /// Measures the file if the writer reported no size.
    fn measured(&self, mut written: Written) -> Written {
        let is_unknown = written.finished.size.is_none() && !written.given_up && !written.stuck;
        let (facts, store) = (self.case.facts, self.place.store.as_ref());
        if let Some(made) = written.made.filter(|_| is_unknown)
            && let Some(found) = unreported_core::measure(facts, &self.file, made, store, self.slot)
        {
            let cause = written.finished.cause.take();
            let gone = std::mem::take(&mut written.finished.gone);
            written.finished = Finished { cause, gone, ..found };
        }
        written
    }

    /// Counts the core for the container's limits. `stored`: where it is in the host's store.
    fn count_core(&self, written: &Written, stored: Option<&str>) {
        let Some(slot) = self.slot.filter(|slot| slot.remembers()) else { return };
        let inside = self.place.inside(&self.file);
        let (root, _) = self.file.seen_from(self.case.facts);
        let finished = &written.finished;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let below = inside.strip_prefix(root.strip_suffix(b"/").unwrap_or(root));
        let core = finished.identity.map(|identity| KeptCore {
            path: below.and_then(text),
            root: text(root).unwrap_or_default(),
            identity,
            size: finished.disk_size.unwrap_or(0),
            stored: stored.map(str::to_owned),
        });
        if let Err(e) = slot.end(core, &finished.gone, !written.stuck) {
            log::warn!("this core cannot be counted, ignoring: {e:#}");
        }
    }

    /// Puts into the record what became of the core, and where it is. `is_stored`: in the host's
    /// store, where it was looked at.
    fn say_what_became_of_it(&mut self, written: Written, is_stored: bool) -> Core {
        self.place.name_in(&mut self.record, &self.file);
        if self.released_at.is_some() {
            self.record.released_at = self.released_at.take();
            self.record.completed_at = Some(now());
        }
        let (is_given_up, is_stuck) = (written.given_up, written.stuck);
        let made = written.made.filter(|_| !is_given_up);
        let elsewhere = made.filter(|_| !is_stored);
        let nested = elsewhere.and_then(|m| self.place.correct(&mut self.record, &self.file, m));
        finish(&mut self.record, written, nested);
        self.say_what_is_kept();
        if self.record.outcome == Outcome::Written && self.given_up_for_memory.is_some() {
            self.record.reason = self.given_up_for_memory.take();
        }
        self.record.seconds = Some(self.started.elapsed().as_secs_f64());
        Core { id: made.and_then(|made| made.id), is_given_up, is_stuck }
    }

    /// Notes how much of the memory the core has, and where that is more than was asked for.
    fn say_what_is_kept(&mut self) {
        let (record, keep) = (&mut self.record, self.file.keep);
        record.keep = record.full_size.map(|_| keep);
        if record.outcome == Outcome::Written && record.keep.is_none() && !keep.is_all() {
            record.reason = Some(format!(
                "it keeps all of the memory: of a program of this kind no core with {} can be made",
                keep.as_str()
            ));
        }
    }

    /// A copy of the plan with the crasher's own credentials.
    fn as_itself(&self) -> CorePlan {
        CorePlan { rights: Rights::Crasher, ..self.file.clone() }
    }

    /// Writes the line for Kubernetes. Returns whether this crash is one to be told of.
    fn report_termination(&self, core: Core) -> bool {
        if core.is_given_up || !termination_log::is_wanted(self.case, &self.record) {
            return false;
        }
        let ContainerCrash { facts, entry, config, .. } = *self.case;
        let url = config.upload.url.as_deref();
        let locks: Vec<_> = self.slot.iter().flat_map(|slot| slot.fds()).collect();
        termination_log::write(facts, &self.as_itself(), entry, &self.record, url, &locks)
            .unwrap_or_else(|e| log::warn!("cannot write the termination log, ignoring: {e:#}"));
        true
    }

    /// Gives the user whose container it is a copy of the record.
    fn copy_for_user(&mut self, core: Core) {
        let named = core.id.map(|id| (self.place.inside(&self.file), id));
        user_record::give_copy(&mut self.record, self.case.entry, named, self.slot);
    }

    /// Saves the record; then the crashed process is let go.
    fn save_and_release(&mut self, core: Core) {
        self.record.keeping =
            self.is_keeper() && core.id.is_some() && !core.is_stuck && self.client.is_open();
        self.client.say_and_release(&self.record);
    }

    /// Counts the crash, for `metrics` and in the list of its account.
    fn count_crash(&mut self) {
        self.case.count(&self.record);
        self.client.note(&self.record, self.case.most_records());
    }

    /// What is left to do, which nobody waits for. `None`: nothing. `is_reported`: whether a line
    /// for Kubernetes was wanted, and tried.
    fn released(self, core: Core, is_reported: bool) -> Option<Released<'c>> {
        // A store that did not answer is not asked again.
        let core = core.id.filter(|_| self.client.is_open())?;
        let log = is_reported.then(|| self.as_itself());
        let CoreDump { case, file, deleted, mapped, record, client, .. } = self;
        Some(Released { case, file, core, deleted, mapped, record, client, log })
    }
}

/// `nested`: the root that the core is below, if not its container's.
fn finish(record: &mut Record, written: Written, nested: Option<String>) {
    let Written { made, finished, .. } = written;
    record.outcome = match (made, &finished.cause) {
        (None, _) => Outcome::None,
        (Some(_), Some(_)) => Outcome::Truncated,
        (Some(_), None) => Outcome::Written,
    };
    record.truncated = record.outcome == Outcome::Truncated;
    record.set_cause(finished.cause.as_ref());
    if made.is_some() {
        (record.size, record.disk_size) = (finished.size, finished.disk_size);
        record.full_size = finished.full_size;
        record.identity = finished.identity.or(made.and_then(|made| made.identity));
        if record.reason.is_none()
            && let Some(owner) = record.location.goes_with()
        {
            record.reason = Some(match nested {
                Some(root) => format!(
                    "the core goes away with the {owner}: it is in a nested root, {root} in the \
                     container"
                ),
                None => format!("the core goes away with the {owner}"),
            });
        }
    } else {
        record.set_paths(None, None);
        (record.host_dir, record.identity) = (None, None);
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
