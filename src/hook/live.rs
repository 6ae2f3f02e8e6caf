//! Enables the core pattern of a running container: does now what the hook would have done at its
//! start, and undoes that again. The previous state is recorded in
//! `/run/oci-coredump/enabled/<id>`.

use super::apply::{self, Site};
use super::bundle::Bundle;
use super::inside;
use super::plan::{self, Step};
use super::request::Request;
use super::rootfs::Rootfs;
use super::volume;
use crate::annotation::{self, Annotations};
use crate::bytes::Limit;
use crate::config::Config;
use crate::record::{Location, Names};
use crate::registry::{Entry, Registry, Sysctl, cgroup_keys};
use crate::store::Store;
use crate::sys::limit::{self, SoftAndHard};
use crate::sys::proc::{self, MountPoint, Proc, mount_points};
use crate::sys::process::Who;
use crate::sys::{OwnedFd, file, filesystem, mount, ns};
use crate::sysctl;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CORE_LIMIT: &str = "Max core file size";

/// Most bytes of a recorded state.
const MAX: usize = 4 << 20;

/// How often new processes are looked for. A process that forks before its own limit is set has
/// a child with the old one.
const ROUNDS: usize = 8;

/// A running container that `enable` is to work on.
#[derive(Clone, Debug)]
pub struct RunningContainer {
    /// Its ID, and the names that its engine gives it.
    pub names: Names,
    /// PID of one of its processes.
    pub pid: i32,
}

/// What `enable` has changed, as it was before.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Before {
    /// How many of the last components of the dump directory were made.
    made: usize,
    processes: Vec<Process>,
}

/// A process whose settings were changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    start_time: u64,
    /// RLIMIT_CORE before.
    soft: Limit,
    hard: Limit,
    /// `coredump_filter` before, if it was changed.
    filter: Option<String>,
}

/// Gives a running container its core pattern. `wishes` are the annotations that it would have had.
/// Returns remarks for the user, one line each.
///
/// # Errors
/// What could not be done. Nothing of it is left then.
pub fn enable(
    target: &RunningContainer,
    wishes: &Annotations,
    config: &Config,
) -> Result<Vec<String>> {
    let id = target.names.container_id.as_str();
    crate::registry::check_id(id)?;
    let (pid, process) = init_of(target.pid)?;
    let wishes = annotation::wishes(wishes, None, None)?.context("no pattern")?;
    let directory = wishes.pattern.directory();
    // Its file system may have a server that does not answer.
    let ((bundle, made), looked) = inside::run(|_| {
        let rootfs = Rootfs::running(&process, pid)?;
        let made = match &directory {
            Some(inside) if inside != "/" => rootfs.lacks(Path::new(inside))?,
            _ => 0,
        };
        Ok((bundle(&process, &rootfs, directory.as_deref())?, made))
    })?;
    looked.keep()?;
    let request =
        Request { wishes, names: target.names.clone(), engine: None, is_removed: false, bundle };
    let mut plan = plan::plan(&request, config);
    // These two apply to every process, not only to the first one.
    let set = plan.steps.iter().fold((None, None), |set, step| match step {
        Step::Limit(soft, raise) => (Some((*soft, *raise)), set.1),
        Step::Filter(mask) => (set.0, Some(*mask)),
        _ => set,
    });
    plan.steps.retain(|s| !matches!(s, Step::Limit(..) | Step::Filter(_)));
    let registry = Registry::create()?;
    if let Some(entry) = registry.get(id).filter(|e| e.refused.is_none() && e.init_lives()) {
        let since = if note_of(&registry, &entry).is_some() {
            "it was enabled: `disable` it first"
        } else {
            "since its start, by its annotations"
        };
        bail!("it has the core pattern {:?} already, {since}", entry.pattern);
    }
    let store = Store::open(config)?;
    let site = Site { registry: &registry, config, who: Who::Root, process, pid };
    apply::apply(&site, &request, &plan, || Rootfs::running(&Proc::open(pid)?, pid))?;
    let entry = registry.get(id).context("the entry of the container is gone")?;
    let mut before = Before { made, processes: Vec::new() };
    let mut notes = std::mem::take(&mut plan.notes);
    let mut rest = || -> Result<()> {
        notes.extend(set_processes(&entry, set.0, set.1, &mut before.processes)?);
        let dir = notes_dir(&registry)?;
        for old in file::names(&dir)?
            .iter()
            .filter(|n| n.to_str().is_none_or(|n| registry.get(n).is_none()))
        {
            file::unlink(&dir, old)?;
        }
        file::replace(dir, id.as_ref(), &serde_json::to_vec(&before)?, 0o600)
    };
    if let Err(e) = rest() {
        undo(pid, &registry, &store, &entry, &before);
        return Err(e);
    }
    notes.extend(differences(&plan.steps, &entry, &request));
    Ok(notes)
}

/// Undoes [`enable`]: the container is as it was before. Its cores stay.
///
/// # Errors
/// The container was not enabled.
pub fn disable(id: &str, config: &Config) -> Result<()> {
    let registry = Registry::open().context("no container is registered")?;
    let entry = registry.get(id).with_context(|| format!("container {id} is not registered"))?;
    let Some(before) = note_of(&registry, &entry) else {
        bail!(
            "container {id} has its pattern since its start, by its annotations: that cannot be \
             taken back while it runs"
        );
    };
    let store = Store::open(config)?;
    if entry.init_lives() {
        undo(entry.init.pid, &registry, &store, &entry, &before);
    } else {
        let _lock = registry.lock()?;
        registry.remove(id)?;
        registry.remove_views(id)?;
    }
    file::unlink(notes_dir(&registry)?, id.as_ref())?;
    store.forget_empty(id)?;
    let _lock = registry.lock()?;
    sysctl::release(&store, id)
}

/// The registered container that a user means by an ID, the beginning of one, or a name.
///
/// # Errors
/// There is none, or there are several.
pub fn find(word: &str) -> Result<String> {
    let registry = Registry::open().context("no container is registered")?;
    let is = |e: &Entry| e.names.is_called(word);
    let ids = registry.ids()?;
    let found: Vec<&String> =
        ids.iter().filter(|id| *id == word || registry.get(id).is_some_and(|e| is(&e))).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => bail!("no registered container is called {word:?}"),
        several if several.iter().any(|id| *id == word) => Ok(word.to_owned()),
        several => bail!("{} registered containers are called {word:?}", several.len()),
    }
}

fn notes_dir(registry: &Registry) -> Result<OwnedFd> {
    file::make_dir(registry.dir(), "enabled".as_ref(), 0o700)
}

/// The recorded state of a container. That of an earlier container with the same ID does not count.
fn note_of(registry: &Registry, entry: &Entry) -> Option<Before> {
    let file =
        file::open_read(notes_dir(registry).ok()?, entry.names.container_id.as_ref()).ok()?;
    let before: Before =
        serde_json::from_slice(&file::read_bounded(file, MAX, "note").ok()?).ok()?;
    let is_init = |p: &Process| (p.pid, p.start_time) == (entry.init.pid, entry.init.start_time);
    before.processes.iter().any(is_init).then_some(before)
}

/// The first process of the container that this process is in: of its PID
/// namespace, if it has its own.
fn init_of(pid: i32) -> Result<(i32, Proc)> {
    let process = Proc::open(pid).with_context(|| format!("process {pid}"))?;
    let status = process.status()?;
    if status.ns_tgid.len() < 2 || status.ns_tgid.last() == Some(&1) {
        return Ok((pid, process));
    }
    let space = ns::inode(process.namespace("pid")?)?;
    for other in proc::all()? {
        let Ok(candidate) = Proc::open(other) else { continue };
        let is_first = candidate.status().is_ok_and(|s| s.ns_tgid.last() == Some(&1));
        if is_first && candidate.namespace("pid").and_then(ns::inode).is_ok_and(|n| n == space) {
            return Ok((other, candidate));
        }
    }
    bail!("process {pid}: the first process of its PID namespace cannot be seen")
}

/// The mount that covers the dump directory, with the directory on the host
/// behind it if that is certain.
fn bundle(process: &Proc, rootfs: &Rootfs, directory: Option<&str>) -> Result<Bundle> {
    let inside = mount_points(&process.read("mountinfo")?);
    let host = mount_points(&Proc::open(std::process::id() as i32)?.read("mountinfo")?);
    let covers = |m: &MountPoint| {
        directory.is_some_and(|d| Path::new(d).starts_with(&m.target)) && m.target != Path::new("/")
    };
    let nearest = inside.iter().filter(|m| covers(m)).max_by_key(|m| m.target.components().count());
    Ok(Bundle::of_running(&inside, |m| {
        let wanted = nearest.filter(|n| *n == m)?;
        let theirs = rootfs.look(wanted.target.to_str()?, true).ok()??.1.id;
        let same = |path: &PathBuf| {
            file::open_dir(path).and_then(file::stat).is_ok_and(|s| s.id == theirs)
        };
        volume::sources(wanted, &host).into_iter().find(same)
    }))
}

/// The container's processes: those in its mount namespace, its PID namespace or its cgroup.
fn processes(entry: &Entry) -> Result<Vec<(i32, Proc)>> {
    let of = |process: &Proc| {
        let space = |name: &str| process.namespace(name).and_then(ns::inode).ok();
        let group = |process: &Proc| {
            process.cgroups().is_ok_and(|all| {
                all.iter().flat_map(cgroup_keys).any(|k| Some(&k) == entry.init.cgroup.as_ref())
            })
        };
        space("mnt") == Some(entry.init.mount_ns)
            || entry.init.pid_ns.is_some_and(|n| space("pid") == Some(n))
            || group(process)
    };
    Ok(proc::all()?
        .into_iter()
        .filter_map(|pid| Some((pid, Proc::open(pid).ok()?)))
        .filter(|(_, process)| of(process))
        .collect())
}

/// Sets limit and filter of every process that does not have them yet, until no new one appears.
/// Adds the previous values to `done`.
fn set_processes(
    entry: &Entry,
    limit: Option<(Limit, bool)>,
    filter: Option<u32>,
    done: &mut Vec<Process>,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for _ in 0..ROUNDS {
        let mut new = 0;
        for (pid, process) in processes(entry)? {
            let Ok(start_time) = process.start_time() else { continue };
            if done.iter().any(|p| (p.pid, p.start_time) == (pid, start_time)) {
                continue;
            }
            new += 1;
            match set_one(pid, &process, start_time, limit, filter) {
                Ok(before) => done.push(before),
                // It may have ended just now.
                Err(_) if process.start_time().is_err() => {}
                Err(e) => {
                    done.push(Process {
                        pid,
                        start_time,
                        soft: Limit::Unlimited,
                        hard: Limit::Unlimited,
                        filter: None,
                    });
                    notes.push(format!("process {pid} of the container keeps its limits: {e:#}"));
                }
            }
        }
        if new == 0 {
            break;
        }
    }
    Ok(notes)
}

fn set_one(
    pid: i32,
    process: &Proc,
    start_time: u64,
    limit: Option<(Limit, bool)>,
    filter: Option<u32>,
) -> Result<Process> {
    let old = process.limit(CORE_LIMIT)?;
    let mut before =
        Process { pid, start_time, soft: old.soft.into(), hard: old.hard.into(), filter: None };
    if let Some((soft, raise)) = limit {
        ensure!(process.start_time()? == start_time, "it is another process now");
        apply::set_core_limit(pid, old, soft, raise)?;
    }
    if let Some(mask) = filter {
        let text = process.read("coredump_filter")?;
        process.write("coredump_filter", &format!("{mask:#x}"))?;
        before.filter = Some(String::from_utf8_lossy(&text).trim().to_owned());
    }
    Ok(before)
}

/// Restores everything, each part as far as possible.
fn undo(pid: i32, registry: &Registry, store: &Store, entry: &Entry, before: &Before) {
    let id = entry.names.container_id.as_str();
    let attempt = |what: &str, result: Result<()>| {
        if let Err(e) = result {
            log::warn!("container {id}: cannot undo `{what}`, ignoring: {e:#}");
        }
    };
    attempt("register", registry.lock().and_then(|_lock| registry.remove(id).map(drop)));
    attempt("limits", put_back(entry, before));
    let in_container = || {
        inside::run(|_| {
            let rootfs = Rootfs::running(&Proc::open(pid)?, pid)?;
            attempt("view", unshow(&rootfs, registry, entry));
            if let (Location::Store, Some((inside, source))) =
                (entry.place.location, &entry.place.mount)
            {
                let removed = unmount(&rootfs, inside, Path::new(source))
                    .and_then(|()| rootfs.remove_empty(Path::new(inside), before.made));
                attempt("dump directory", removed);
            }
            Ok(())
        })?
        .1
        .keep()
    };
    attempt("what is in the container", in_container());
    attempt("store", store.forget_empty(id).map(drop));
}

fn unshow(rootfs: &Rootfs, registry: &Registry, entry: &Entry) -> Result<()> {
    // Our file is mounted over the kernel's, and without it the container sees the kernel's again.
    for name in Sysctl::ALL.map(Sysctl::name) {
        if let Some((shown, _)) = rootfs.look(&format!("/proc/sys/kernel/{name}"), false)?
            && filesystem::fs_type(&shown)? != filesystem::FsType::Proc
        {
            rootfs.hide(name)?;
        }
    }
    registry.remove_views(&entry.names.container_id)
}

fn unmount(rootfs: &Rootfs, inside: &str, source: &Path) -> Result<()> {
    let ours = file::open_dir(source).and_then(file::stat)?.id;
    match rootfs.look(inside, true)? {
        Some((dir, stat)) if stat.id == ours => rootfs.inside(|_| mount::detach_dir(&dir)),
        _ => Ok(()),
    }
}

/// Restores limits and filters: of a process that was there, its own; of a later one,
/// those of the first process.
fn put_back(entry: &Entry, before: &Before) -> Result<()> {
    let known: BTreeMap<(i32, u64), &Process> =
        before.processes.iter().map(|p| ((p.pid, p.start_time), p)).collect();
    let Some(first) = known.get(&(entry.init.pid, entry.init.start_time)) else { return Ok(()) };
    for (pid, process) in processes(entry)? {
        let Ok(start_time) = process.start_time() else { continue };
        let old = known.get(&(pid, start_time)).unwrap_or(first);
        let limits = SoftAndHard { soft: old.soft.finite(), hard: old.hard.finite() };
        let limited = limit::set_core_of(pid, limits);
        let filtered = old
            .filter
            .as_ref()
            .map_or(Ok(()), |f| process.write("coredump_filter", &format!("0x{f}")));
        // A process that has ended in the meantime needs neither.
        if process.start_time().is_ok() {
            limited.and(filtered)?;
        }
    }
    Ok(())
}

/// The differences from a container that was started with the hook, one line each.
fn differences(steps: &[Step], entry: &Entry, request: &Request) -> Vec<String> {
    let mut all = Vec::new();
    if !steps.contains(&Step::View) {
        all.push(
            "it may write the host's sysctls, so it goes on reading the host's core_pattern"
                .to_owned(),
        );
    }
    if entry.place.location == Location::Layer && request.wishes.pattern.directory().is_some() {
        all.push(
            "its cores go away with the container: no volume is mounted at the directory, and \
             something is in it"
                .to_owned(),
        );
    }
    if entry.place.location == Location::Memory {
        all.push("its cores go away with the container: the directory is memory-backed".to_owned());
    }
    all
}
