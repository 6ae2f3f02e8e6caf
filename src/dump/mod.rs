//! The dispatcher: what the kernel starts for every crash. `crash` says who crashed and whose
//! container it was, `policy` decides, `writer` makes the file and `copy` fills it, `after` keeps
//! the record. Crashes of no container go to the earlier handler, by `forward`.
//!
//! The order is part of the defence: pin; gather; verify again; decide; say who crashed, in a first
//! record; take on the crasher's credentials; make the file; stream; record. The ELF is never
//! looked at with privileges.

mod after;
mod copy;
mod crash;
mod forward;
mod forwarded;
#[cfg(any(test, fuzzing))]
pub mod invariants;
mod policy;
mod writer;

use crate::config::Config;
use crate::record::{Location, Outcome, Record, signal_name};
use crate::registry::{Entry, Registry};
use crate::store::Store;
use crate::sys::proc::{self, printable};
use crate::sys::{self, cgroup, kernel, ns, pidfd, process};
use crate::sysctl::Saved;
use crate::vacuum;
use after::ledger::{self, Ledger};
use after::on_host::answers_at;
use after::{kept_binaries, refused, termination_log, user_record};
use anyhow::{Context, Result};
use copy::pages;
use crash::arguments::Crash;
use crash::container::{self, Origin};
use crash::facts::Facts;
use forward::{Whose, sparingly};
use forwarded::Who;
use policy::plan::{self, CoreFile, Plan};
use policy::quota::Kept;
use policy::slots::{Asked, Asking, Pool, Slot};
use std::ffi::OsString;
use std::time::Instant;
use writer::as_crasher::Charge;
use writer::parent::{self, Event, Written};
use writer::place::split;
use writer::rotate::Stored;

/// `oci-coredump handle`, started by the kernel. It ends when the core is whole and the record
/// written; the kernel has been waiting for that.
///
/// # Errors
/// What could not be done; the crash itself is in the log by then.
pub fn handle(args: &[OsString]) -> Result<()> {
    process::not_dumpable()?;
    let crash = Crash::from_arguments(args)?;
    if crash.pidfd.is_none() {
        // All of the core will come through the pipe: the kernel fills it while the facts are
        // gathered.
        process::enlarge_pipe(process::stdin(), pages::CHUNK);
    }
    let config = Config::load().unwrap_or_else(|e| {
        log::error!("{e:#}, using the defaults");
        Config::default()
    });
    // Slots are taken in it, also those of users, whose registries are elsewhere.
    let registry = Registry::open().or_else(|| Registry::create().ok());
    crate::report::count_lines_in(registry.as_ref().and_then(|r| r.forwarded_dir().ok()));
    let facts = match Facts::gather(&crash) {
        Ok(facts) => facts,
        Err(e) => {
            sparingly(registry.as_ref(), "unknown", || {
                log::error!(
                    "process {} ({}) died of {}: {e:#}, treating it as the host's",
                    crash.said.host_pid,
                    comm(&crash),
                    signal_name(crash.said.signal)
                )
            });
            // Nothing is known of it, so it gets none of the slots that are the host's own.
            let who = Who { uid: crash.said.uid, is_contained: true };
            return forward_it(crash, who, registry, &config);
        }
    };
    let origin = container::identify(&facts, registry.as_ref())?;
    if let Origin::Container { entry, .. } = &origin {
        let dir = registry.as_ref().and_then(|r| r.limits_dir(&entry.account()).ok());
        crate::report::count_lines_in(dir);
    }
    match plan::plan(&crash, &facts, origin) {
        Plan::Forward => {
            let owner = facts.user_ns.as_ref().and_then(ns::owner).filter(|uid| *uid != 0);
            let is_contained = ns::own("mnt").is_ok_and(|own| own != facts.mount_ns);
            let who = Who { uid: owner.unwrap_or(crash.said.uid), is_contained };
            // The earlier handler starts as the kernel would start it: with nothing of ours open.
            drop(facts);
            forward_it(crash, who, registry, &config)
        }
        Plan::Discard(entry, reason) => {
            let why = NoCore { reason, limit: None };
            no_core(&crash, &facts, &entry, why, registry.as_ref(), &config)
        }
        Plan::Write(entry, file) => {
            let limits = match config.limits.lowered(&entry.limits) {
                limits if entry.user.is_some() => limits.with_turns(),
                limits => limits,
            };
            let file =
                CoreFile { patience: plan::patience(&limits), min_free: limits.min_free, ..file };
            let expected = || facts.task.memory_in_use().unwrap_or(0);
            let id = &entry.account();
            let nowhere = || anyhow::anyhow!("there is no run directory");
            let asked = registry.as_ref().ok_or_else(nowhere).and_then(|r| {
                let asking = Asking {
                    registry: r,
                    account: id,
                    pool: Pool::Containers,
                    limits: &limits,
                    first: crash.said.host_pid as u64,
                    is_still: &|| facts.is_still(&crash),
                };
                asking.ask(expected)
            });
            let slot = match asked {
                Ok(Asked::Free) => None,
                Ok(Asked::Slot(slot)) => Some(slot),
                Ok(Asked::Refused(refusal)) => {
                    let why = NoCore { reason: refusal.reason, limit: Some(refusal.limit) };
                    return no_core(&crash, &facts, &entry, why, registry.as_ref(), &config);
                }
                // A user could have any number of helpers wait for what works for him.
                Err(e) if entry.user.is_some() => {
                    let why = NoCore {
                        reason: format!("the user's limits cannot be looked at: {e:#}"),
                        limit: None,
                    };
                    return no_core(&crash, &facts, &entry, why, registry.as_ref(), &config);
                }
                // A core that is not counted is better than none.
                Err(e) => {
                    log::warn!("container {id}: its limits cannot be looked at, ignoring: {e:#}");
                    None
                }
            };
            keep(&crash, &facts, &entry, &file, slot, registry.as_ref(), &config)
        }
    }
}

/// `who`: whose process it was.
fn forward_it(crash: Crash, who: Who, registry: Option<Registry>, config: &Config) -> Result<()> {
    let whose = Whose { who, registry: registry.as_ref(), limits: &config.limits };
    let known = |store: &Store| {
        if !Saved::load(store).is_ok_and(|saved| saved.is_some()) {
            sparingly(registry.as_ref(), "earlier", || {
                log::warn!(
                    "what kernel.core_pattern was before is not known: crashes of the host's go to \
                     the distribution's handler, or to a file; `oci-coredump uninstall` and \
                     `install` mend it"
                )
            });
        }
        Saved::load_or_default(store)
    };
    // The store's disk may not answer: the host's own crashes do not wait for it.
    let saved = Saved::of_run().unwrap_or_else(|| match Store::open(config) {
        Ok(store) => known(&store),
        Err(e) => {
            sparingly(registry.as_ref(), "store", || log::error!("{e:#}, going on without it"));
            Saved::unknown()
        }
    });
    let done = forward::forward(crash, saved, &whose);
    if let Err(e) = done {
        sparingly(registry.as_ref(), "failed", || {
            log::error!("a crash of the host's: {e:#} (further ones are not told of for a minute)")
        });
    }
    Ok(())
}

/// Why there is no core.
struct NoCore {
    reason: String,
    /// The limit that acted, with its value.
    limit: Option<String>,
}

/// Records that there will be no core. Nothing of the container was touched, and the process is let
/// go at once.
fn no_core(
    crash: &Crash,
    facts: &Facts,
    entry: &Entry,
    why: NoCore,
    registry: Option<&Registry>,
    config: &Config,
) -> Result<()> {
    let mut record = begin(crash, facts, entry);
    (record.outcome, record.reason, record.limit) = (Outcome::None, Some(why.reason), why.limit);
    let (mut ledger, account) = (Ledger::new(config), entry.account());
    let most = config.limits.records.filter(|n| *n > 0).unwrap_or(u64::MAX);
    let told = {
        let (account, record) = (account.clone(), record.clone());
        ledger.count(move |records| {
            refused::tell(Registry::open().as_ref(), &account, most, records, &record)
        })
    };
    process::release_stdin();
    match told {
        Ok(true) => {
            log::warn!("{record}");
            // The user's copy is made only if a slot is free at this moment: nothing waits for one.
            let asking = |r| Asking {
                registry: r,
                account: &account,
                pool: Pool::Containers,
                limits: &config.limits,
                first: crash.said.host_pid as u64,
                is_still: &|| false,
            };
            if entry.user.is_some()
                && let Some(registry) = registry
                && let Some(slot) = asking(registry).at_once()?
            {
                user_record::copy(&mut record, entry, None, Some(&slot));
            }
        }
        Ok(false) => {}
        Err(e) => log::error!("cannot save the record of this crash: {e:#}: {record}"),
    }
    vacuum::now_and_then(config)
}

/// A crash of a container with a core to come: the record is there before the first byte, and again
/// when it is known what became of it.
fn keep(
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
    let file = &file;
    let inside = plan::inside_path(&file.path, &facts.root_path, &facts.cwd_path);
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
    let (mut ledger, mut released_at) = (Ledger::new(config), None);
    let written =
        parent::write(crash, facts, file, slot.as_deref(), store.as_ref(), |event| match event {
            // The first record is written while the writer becomes the crasher.
            Event::Started => ledger.say(&record),
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
        written.unwrap_or_else(|e| (Written::nothing(format!("{e:#}")), None));
    written.finished.gone.extend(gone);
    if released_at.is_some() {
        (record.released_at, record.completed_at) = (released_at, Some(now()));
    }
    let (stuck, given_up) = (written.stuck, written.given_up);
    if let Some(slot) = &slot {
        // Compared as a file: the container may have mounted something else at the path.
        let in_store = store.as_ref().is_some_and(|dir| {
            let (_, name) = split(&inside);
            let found = sys::file::identity_at(dir, proc::os(name)).ok();
            found
                .zip(written.finished.identity)
                .is_some_and(|(found, core)| found.is_same_file(&core))
        });
        let stored = in_store.then(|| entry.names.container_id.clone());
        remember(slot, facts, &inside, &written, stored);
    }
    if let Some(made) = written.made
        && mount.is_some()
        && !given_up
        && !answers_at(host.as_deref(), made.id)
    {
        record.set_paths(Some(&inside), None);
        record.host_dir = None;
        record.location = if made.memory { Location::Memory } else { Location::Layer };
    }
    let id = written.made.and_then(|made| made.id).filter(|_| !given_up);
    finish(&mut record, written);
    if record.outcome == Outcome::Written && given_up_for_memory.is_some() {
        record.reason = given_up_for_memory;
    }
    record.seconds = Some(started.elapsed().as_secs_f64());
    if !given_up && termination_log::concerns(&record, config.termination_log) {
        let url = config.upload.url.as_deref();
        termination_log::write(facts, file, &record, url, slot.as_deref())
            .unwrap_or_else(|e| log::warn!("cannot write the termination log, ignoring: {e:#}"));
    }
    user_record::copy(&mut record, entry, id.map(|id| (inside, id)), slot.as_deref());
    ledger.close(&record);
    if let (Some(registry), Some(records)) = (registry, ledger.records()) {
        let most = config.limits.records.filter(|n| *n > 0).unwrap_or(u64::MAX);
        ledger::remember(registry, &entry.account(), most, records, &record);
    }
    if stuck {
        return parent::let_go(crash, facts);
    }
    if let Some(writer) = waiting {
        writer.end()?;
    }
    // A store that did not answer is not asked again.
    let keeps = config.binaries.keep && entry.user.is_none() && ledger.records().is_some();
    if let Some(id) = id.filter(|_| keeps) {
        // The container goes with its first process, which may be the one that has crashed.
        let first = (entry.init.pid != crash.said.host_pid)
            .then(|| pidfd::open(entry.init.pid).ok())
            .flatten()
            .filter(|_| entry.init_lives());
        let keeper = kept_binaries::Keeper {
            facts,
            charge: first.as_ref().map_or(Charge::Nobody, Charge::Until),
            core_file: file,
            core: id,
            account: &entry.account(),
            slot: slot.as_deref(),
            most: &config.binaries,
            free: kernel::free_bytes(&config.store).unwrap_or(0),
        };
        // A store that was removed meanwhile is not made again.
        if let Some(store) = Store::look(&config.store)? {
            record.binaries =
                keeper.keep(&store).context("keep the executable and libraries of the core")?;
        }
        if !record.binaries.is_empty() {
            ledger.say(&record);
        }
    }
    vacuum::now_and_then(config)
}

/// Counts the core for the container's limits.
fn remember(slot: &Slot, facts: &Facts, inside: &[u8], written: &Written, stored: Option<String>) {
    let finished = &written.finished;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let below = inside.strip_prefix(facts.root_path.strip_suffix(b"/").unwrap_or(&facts.root_path));
    let core = finished.identity.map(|identity| Kept {
        path: below.and_then(text),
        root: text(&facts.root_path).unwrap_or_default(),
        identity,
        size: finished.disk_size.unwrap_or(0),
        stored,
    });
    if let Err(e) = slot.end(core, &finished.gone, !written.stuck) {
        log::warn!("this core cannot be counted, ignoring: {e:#}");
    }
}

fn finish(record: &mut Record, written: Written) {
    let Written { made, finished, .. } = written;
    record.outcome = match (made, &finished.reason) {
        (None, _) => Outcome::None,
        (Some(_), Some(_)) => Outcome::Truncated,
        (Some(_), None) => Outcome::Written,
    };
    record.truncated = record.outcome == Outcome::Truncated;
    (record.reason, record.limit) = (finished.reason, finished.limit);
    if made.is_some() {
        (record.size, record.disk_size, record.identity) =
            (finished.size, finished.disk_size, finished.identity);
        if record.reason.is_none() && record.location.is_lost_with_container() {
            record.reason = Some("the core goes away with the container".into());
        }
    } else {
        record.set_paths(None, None);
        record.host_dir = None;
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
        pattern: entry.pattern.clone(),
        location: entry.place.location,
        upload: entry.no_upload.then_some(false),
        ..Record::default()
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn comm(crash: &Crash) -> String {
    printable(&crash.said.comm)
}
