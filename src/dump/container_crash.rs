//! Crashes of registered containers: with a core ([`with_core`]), or without one and why
//! ([`without_core`]).

use super::after::deleted_files::DeletedFiles;
use super::after::on_host::answers_at;
use super::after::record_client::RecordClient;
use super::after::released::Released;
use super::after::{measured, termination_log, user_record};
use super::crash::arguments::Crash;
use super::crash::facts::Facts;
use super::policy::plan::{self, CoreFile, Rights};
use super::policy::quota::KeptCore;
use super::policy::slot::Slot;
use super::policy::slots::{Pool, SlotRequest};
use super::writer::parent::{self, Event, Written};
use super::writer::protocol::{CreatedFile, Finished};
use super::writer::rotate::Stored;
use crate::cause::Cause;
use crate::config::Config;
use crate::crash_counts::CrashCounts;
use crate::limits::Limits;
use crate::record::{Location, Outcome, Record, signal_name};
use crate::registry::{Entry, Registry};
use crate::report;
use crate::store::{Store, tree};
use crate::sys::proc::{self, printable};
use crate::sys::{self, OwnedFd, cgroup, descriptor};
use crate::vacuum;
use anyhow::Result;
use std::path::Path;
use std::time::Instant;

/// Records that there will be no core. Nothing of the container was touched, and the process is let
/// go at once.
pub(super) fn without_core(
    crash: &Crash,
    facts: &Facts,
    entry: &Entry,
    cause: &Cause,
    registry: Option<&Registry>,
    config: &Config,
) -> Result<()> {
    let mut record = begin(crash, facts, entry);
    record.outcome = Outcome::None;
    record.set_cause(Some(cause));
    let account = entry.account();
    let mut record_client =
        RecordClient::new(config, registry, account.clone(), std::iter::empty());
    let most = most_records(config);
    let told = record_client.refuse(&record, most);
    let request = |r| SlotRequest {
        registry: r,
        account: &account,
        pool: Pool::Containers,
        limits: &config.limits,
        first: crash.said.host_pid as u64,
        is_still: &|| false,
    };
    // What a child does for it is done only if a slot is free at this moment, and only for a crash
    // with a record of its own, of which there are few: nothing waits.
    let is_own = matches!(told, Ok(true));
    let slot = registry.filter(|_| is_own).and_then(|r| request(r).at_once().ok()?);
    if is_itself(facts)
        && slot.is_some()
        && termination_log::concerns(&record, entry, facts, config.termination_log)
    {
        let file = CoreFile::default();
        termination_log::write(facts, &file, entry, &record, None, slot.as_ref())
            .unwrap_or_else(|e| log::warn!("cannot write the termination log, ignoring: {e:#}"));
    }
    descriptor::release_stdin();
    count(registry, &record);
    match told {
        Ok(true) => {
            log::warn!("{record}");
            if entry.user.is_some() && slot.is_some() {
                user_record::copy(&mut record, entry, None, slot.as_ref());
            }
        }
        Ok(false) => {}
        Err(e) => log::error!("cannot save the record of this crash: {e:#}: {record}"),
    }
    vacuum::now_and_then(config)
}

/// A crash of a container with a core to come: the record is there before the first byte, and again
/// when it is known what became of it.
pub(super) fn with_core(
    crash: &Crash,
    facts: &Facts,
    entry: &Entry,
    file: &CoreFile,
    mut slot: Option<Box<Slot>>,
    registry: Option<&Registry>,
    config: &Config,
) -> Result<()> {
    let started = Instant::now();
    let mut record = begin(crash, facts, entry);
    let (file, given_up_for_memory) =
        plan::affordable(file.clone(), cgroup::headroom(&facts.cgroups));
    let (root, cwd) = file.seen_from(facts);
    let inside_of = |file: &CoreFile| plan::inside_path(&file.path, root, cwd);
    let inside = inside_of(&file);
    // What a user's registration says of paths on the host is not trusted: it is checked with his
    // rights, at the end.
    let mount = entry.place.mount.as_ref().filter(|_| entry.user.is_none());
    let host = plan::host_path(&inside, mount);
    record.set_paths(Some(&inside), host.as_deref());
    record.host_dir = host.as_ref().and_then(|_| Some(printable(mount?.1.as_ref())));
    // If this helper is killed, that is what the record goes on to say.
    record.truncated = true;
    let store =
        mount.filter(|_| entry.place.location == Location::Store).and_then(|(_, source)| {
            let opened = sys::file::open_dir(source.as_ref());
            opened.inspect_err(|e| log::warn!("{e:#}, going on without it")).ok()
        });
    // Not for a user's container: what his registration says is not trusted.
    let is_stored = slot.iter().flat_map(|slot| slot.cores()).any(|core| core.stored.is_some());
    let hosts = if is_stored && entry.user.is_none() { Store::peek(config) } else { None };
    let stored = hosts.as_ref().map(Stored);
    let mut gone = Vec::new();
    if let (Some(slot), Some(stored)) = (&mut slot, &stored) {
        gone = stored.gone(slot.cores());
        slot.without(&gone);
    }
    let locks = slot.iter().flat_map(|slot| slot.fds());
    let mut record_client = RecordClient::new(config, registry, entry.account(), locks);
    let mut released_at = None;
    let keeps = config.binaries.keep && entry.user.is_none();
    let mut deleted = DeletedFiles::default();
    let written =
        parent::write(crash, facts, &file, slot.as_deref(), store.as_ref(), |event| match event {
            // The first record is written while the writer becomes the crasher.
            Event::Started => {
                record_client.say(&record);
                if keeps {
                    deleted = DeletedFiles::of(&facts.task);
                }
            }
            // From now on the record speaks for no other file.
            Event::Made(made) => {
                record.identity = made.identity;
                if made.number > 1 {
                    let inside = inside_of(&file.with_number(made.number));
                    record.set_paths(Some(&inside), plan::host_path(&inside, mount).as_deref());
                }
                record_client.say(&record);
            }
            Event::Goes(goes) => {
                let cores = slot.iter().flat_map(|slot| slot.cores());
                for core in cores.filter(|core| goes.contains(&core.identity)) {
                    match stored.as_ref().map(|stored| stored.remove(core)) {
                        Some(Ok(())) => gone.push(core.identity),
                        Some(Err(e)) => log::warn!("an older core stays in the store: {e:#}"),
                        None => {}
                    }
                }
            }
            Event::Released => released_at = Some(now()),
        });
    let (mut written, waiting) =
        written.unwrap_or_else(|e| (Written::nothing(Cause::Failed(format!("{e:#}"))), None));
    written.finished.gone.extend(gone);
    let file = &file.with_number(written.made.map_or(1, |made| made.number));
    let inside = inside_of(file);
    if let Some(made) = written.made
        && written.finished.size.is_none()
        && !written.given_up
        && !written.stuck
        && let Some(found) = measured::measure(facts, file, made, store.as_ref(), slot.as_deref())
    {
        let cause = written.finished.cause.take();
        let gone = std::mem::take(&mut written.finished.gone);
        written.finished = Finished { cause, gone, ..found };
    }
    let host = plan::host_path(&inside, mount);
    record.set_paths(Some(&inside), host.as_deref());
    if released_at.is_some() {
        (record.released_at, record.completed_at) = (released_at, Some(now()));
    }
    let (stuck, given_up) = (written.stuck, written.given_up);
    if let Some(slot) = &slot {
        let stored = path_in_store(&inside, mount, store.as_ref(), &written)
            .map(|below| format!("{}/{below}", entry.names.container_id));
        remember(slot, root, &inside, &written, stored);
    }
    let made = written.made.filter(|_| !given_up);
    let nested = made.and_then(|made| locate(&mut record, facts, file, mount, made));
    let id = made.and_then(|made| made.id);
    finish(&mut record, written, nested);
    if record.outcome == Outcome::Written && given_up_for_memory.is_some() {
        record.reason = given_up_for_memory;
    }
    record.seconds = Some(started.elapsed().as_secs_f64());
    let has_line = !given_up
        && is_itself(facts)
        && termination_log::concerns(&record, entry, facts, config.termination_log);
    let own = &CoreFile { rights: Rights::Crasher, ..file.clone() };
    if has_line {
        let url = config.upload.url.as_deref();
        termination_log::write(facts, own, entry, &record, url, slot.as_deref())
            .unwrap_or_else(|e| log::warn!("cannot write the termination log, ignoring: {e:#}"));
    }
    user_record::copy(&mut record, entry, id.map(|id| (inside, id)), slot.as_deref());
    let keeps = keeps && id.is_some() && !stuck && record_client.is_open();
    record.keeping = keeps;
    record_client.close(&record);
    count(registry, &record);
    record_client.note(&record, most_records(config));
    if stuck {
        return parent::let_go(crash, facts);
    }
    if let Some(writer) = waiting {
        writer.end()?;
    }
    // A store that did not answer is not asked again.
    if let Some(core) = id.filter(|_| record_client.is_open()) {
        let slot = slot.as_deref();
        let released =
            Released { crash, facts, entry, config, file, core, deleted: &deleted, slot };
        released.summarize(&mut record, &mut record_client, has_line.then_some(own));
        report::crash_to_journal(&record);
        if keeps {
            released.keep(&mut record, &mut record_client)?;
        }
    }
    vacuum::now_and_then(config)
}

/// A set-user-ID program's rights are not those of whoever started it.
fn is_itself(facts: &Facts) -> bool {
    !facts.secure && !facts.status.credentials.mixed()
}

/// How many records an account may have.
fn most_records(config: &Config) -> u64 {
    Limits::set(config.limits.records).unwrap_or(u64::MAX)
}

/// Counts the crash for `metrics`. The process has been let go by then.
fn count(registry: Option<&Registry>, record: &Record) {
    if let Some(Err(e)) = registry.map(|registry| CrashCounts::count(registry, record)) {
        log::warn!("this crash cannot be counted for `metrics`, ignoring: {e:#}");
    }
}

/// Where the core is below the container's directory of the store, if it is there. Compared as a
/// file: the container may have mounted something else at the path.
fn path_in_store(
    inside: &[u8],
    mount: Option<&(String, String)>,
    store: Option<&OwnedFd>,
    written: &Written,
) -> Option<String> {
    let below = inside.strip_prefix(mount?.0.as_bytes())?;
    let (dir, name) = tree::parent(store?, Path::new(proc::os(below)))?;
    let found = sys::file::identity_at(dir, name).ok()?;
    let is_it = found.is_same_file(&written.finished.identity?);
    let below = std::str::from_utf8(below).ok()?.trim_start_matches('/');
    is_it.then(|| below.to_owned())
}

/// Corrects where the record says that the core is, if that is not the file that was `made`.
/// Returns the nested root that it is below, if it goes away with the container there.
fn locate(
    record: &mut Record,
    facts: &Facts,
    file: &CoreFile,
    mount: Option<&(String, String)>,
    made: CreatedFile,
) -> Option<String> {
    let volume = mount.map(|(_, source)| source.as_str());
    let host = record.host_bytes();
    if mount.is_some() && answers_at(host.as_deref(), volume, made.id) {
        return None;
    }
    let (root, cwd) = file.seen_from(facts);
    let inside = plan::inside_path(&file.path, root, cwd);
    // Below another root the directory may still be the one that the hook knows.
    let is_below = !file.at_home || root != b"/";
    let same = plan::host_path(&plan::inside_path(&file.path, b"/", b"/"), mount)
        .filter(|path| is_below && answers_at(Some(path), volume, made.id));
    if let Some(path) = same {
        record.set_paths(Some(&inside), Some(&path));
        record.host_dir = mount.map(|(_, source)| printable(source.as_ref()));
    } else if mount.is_some() {
        record.set_paths(Some(&inside), None);
        record.host_dir = None;
        record.location = if made.memory { Location::Memory } else { Location::Layer };
    }
    (is_below && record.location.is_lost_with_container()).then(|| nested_root(facts))
}

/// Counts the core for the container's limits.
fn remember(slot: &Slot, root: &[u8], inside: &[u8], written: &Written, stored: Option<String>) {
    let finished = &written.finished;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let below = inside.strip_prefix(root.strip_suffix(b"/").unwrap_or(root));
    let core = finished.identity.map(|identity| KeptCore {
        path: below.and_then(text),
        root: text(root).unwrap_or_default(),
        identity,
        size: finished.disk_size.unwrap_or(0),
        stored,
    });
    if let Err(e) = slot.end(core, &finished.gone, !written.stuck) {
        log::warn!("this core cannot be counted, ignoring: {e:#}");
    }
}

/// The root of a process that has another one than its container's first process: a container in
/// the container, or chroot(2).
fn nested_root(facts: &Facts) -> String {
    match facts.root_path.as_slice() {
        b"/" => match facts.task.read("mountinfo").ok().and_then(|text| proc::root_mount(&text)) {
            Some(path) => printable(&path),
            None => "another file system".into(),
        },
        path => printable(path),
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

fn begin(crash: &Crash, facts: &Facts, entry: &Entry) -> Record {
    let said = &crash.said;
    Record {
        time: jiff::Timestamp::from_second(said.time).map(|t| t.to_string()).unwrap_or_default(),
        names: entry.names.clone(),
        user: entry.user,
        account: Some(entry.account()),
        pid: said.pid,
        host_pid: said.host_pid,
        tid: said.tid,
        host_tid: said.host_tid,
        signal: said.signal,
        signal_name: signal_name(said.signal),
        comm: comm(crash),
        exe: printable(&facts.exe),
        uid: said.uid,
        gid: said.gid,
        dump_mode: said.dump_mode,
        pattern: entry.pattern_text(),
        location: entry.place.location,
        upload: entry.no_upload.then_some(false),
        ..Record::default()
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// The name of the crashed thread, for messages.
pub(super) fn comm(crash: &Crash) -> String {
    printable(&crash.said.comm)
}
