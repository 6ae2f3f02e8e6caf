//! Enables the core pattern of a running container: applies the hook's plan now, and keeps the
//! changes in `/run/oci-coredump/enabled/<id>`, by which `disable` reverts them.

use super::apply;
use super::bounded_child;
use super::change::{Changes, OnHost};
use super::config_json::Bundle;
use super::context::{HookContext, Targets};
use super::plan::{self, ContainerStep};
use super::processes;
use super::request::Request;
use super::rootfs::Rootfs;
use super::subpath;
use crate::annotation::{self, Annotations};
use crate::config::Config;
use crate::record::{Location, Names};
use crate::registry::{Entry, InitProcess, Registry};
use crate::store::Store;
use crate::sys::proc::{MountPoint, Proc, mount_points};
use crate::sys::resolve::Want;
use crate::sys::user::RunBy;
use crate::sys::{OwnedFd, file};
use crate::sysctl;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Most bytes of a file of changes.
const MAX: usize = 4 << 20;

/// A running container that `enable` is to work on.
#[derive(Clone, Debug)]
pub(crate) struct RunningContainer {
    /// Its ID, and the names that its engine gives it.
    pub names: Names,
    /// PID of one of its processes.
    pub pid: i32,
}

/// Gives a running container its core pattern. `wishes` are the annotations that it would have had.
/// Returns remarks for the user, one line each.
///
/// # Errors
/// What could not be done. Nothing of it is left then.
pub(crate) fn enable(
    target: &RunningContainer,
    wishes: &Annotations,
    config: &Config,
) -> Result<Vec<String>> {
    let id = target.names.container_id.as_str();
    crate::registry::check_id(id)?;
    let (pid, process) = processes::first_of(target.pid)?;
    let mut wishes = wishes.clone();
    // Whoever asks for it here is told what is wrong, and asks again.
    wishes.entry("oci-coredump/required".into()).or_insert("true".into());
    let wishes = annotation::wishes(&wishes, None, None)?.context("no pattern")?;
    let directory = wishes.pattern.directory();
    let find = || Rootfs::running(&Proc::open(pid)?, pid);
    // Its file system may have a server that does not answer.
    let bundle = bounded_child::run(|| bundle(&process, &find()?, directory.as_deref()))?;
    let request =
        Request { wishes, names: target.names.clone(), engine: None, auto_remove: false, bundle };
    let plan = plan::plan(&request, config);
    let registry = Registry::create()?;
    if let Some(entry) = registry.get(id).filter(|e| e.is_in_force()) {
        let since = if changes_of(&registry, &entry).is_ok_and(|changes| changes.is_none()) {
            "since its start, by its annotations"
        } else {
            "it was enabled: `disable` it first"
        };
        bail!("it has the core pattern {:?} already, {since}", entry.pattern_text());
    }
    let hook = context_of(&registry, config, id, processes::init_process(pid, &process)?, process);
    let applied = apply::apply(&hook, &request, &plan, find)?;
    if let Err(e) = keep(&registry, id, &applied.changes) {
        applied.changes.revert(&hook, find).log(&hook);
        return Err(e);
    }
    let mut notes = [plan.warnings, applied.warnings].concat();
    notes.extend(differences(&plan.in_container, &applied.entry, &request));
    Ok(notes)
}

/// Undoes [`enable`]: the container is as it was before. Its cores stay.
///
/// # Errors
/// The container was not enabled; or something could not be undone. Then that is kept, and the
/// container stays registered, so that it can be disabled again.
pub(crate) fn disable(id: &str, config: &Config) -> Result<()> {
    let registry = Registry::open().context("no container is registered")?;
    let entry = registry.get(id).with_context(|| format!("container {id} is not registered"))?;
    let Some(changes) = changes_of(&registry, &entry)? else {
        bail!(
            "container {id} has its pattern since its start, by its annotations: that cannot be \
             taken back while it runs"
        );
    };
    let store = Store::open(config)?;
    if entry.init_lives() {
        let pid = entry.init.pid;
        let hook = context_of(&registry, config, id, entry.init, Proc::open(pid)?);
        revert(changes, &hook, || Rootfs::running(&Proc::open(pid)?, pid))?;
    } else {
        let _lock = registry.lock()?;
        registry.remove(id)?;
        registry.remove_views(id)?;
        sysctl::release(&store, id)?;
    }
    file::unlink(directory(&registry)?, id.as_ref())?;
    store.forget_empty(id).map(drop)
}

/// Reverts the changes of a running container, its registration last. What is left is written to
/// its file.
fn revert(
    changes: Changes,
    hook: &HookContext<'_>,
    find: impl FnOnce() -> Result<Rootfs>,
) -> Result<()> {
    let Changes { in_container, on_host } = changes;
    let (registration, on_host) =
        on_host.into_iter().partition(|c| matches!(c, OnHost::Registration { .. }));
    let registration = Changes { on_host: registration, ..Changes::default() };
    let mut left = Changes { in_container, on_host }.revert(hook, find);
    if left.why.is_empty() {
        left = registration.revert(hook, || bail!("nothing of it is in the container"));
    } else {
        left.changes.on_host.extend(registration.on_host);
    }
    if left.why.is_empty() {
        return Ok(());
    }
    write(directory(hook.registry)?, hook.id, &left.changes)?;
    bail!(
        "container {} is disabled in part, what is left is kept in {}/enabled/{}; remove the \
         cause and disable it again: {}",
        hook.id,
        crate::config::RUN_DIR,
        hook.id,
        left.why.join("; ")
    )
}

fn context_of<'a>(
    registry: &'a Registry,
    config: &'a Config,
    id: &'a str,
    init: InitProcess,
    process: Proc,
) -> HookContext<'a> {
    HookContext { registry, config, run_by: RunBy::Root, id, process, init, targets: Targets::All }
}

/// The registered container that a user means by an ID, the beginning of one, or a name.
///
/// # Errors
/// There is none, or there are several.
pub(crate) fn find(word: &str) -> Result<String> {
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

fn directory(registry: &Registry) -> Result<OwnedFd> {
    file::make_dir(registry.dir(), "enabled".as_ref(), 0o700)
}

/// Writes the changes of a container to its file, and removes the files of containers that are
/// gone.
fn keep(registry: &Registry, id: &str, changes: &Changes) -> Result<()> {
    let dir = directory(registry)?;
    let is_gone = |name: &str| registry.get(name).is_none();
    for old in file::names(&dir)?.iter().filter(|name| name.to_str().is_none_or(is_gone)) {
        if let Err(e) = file::unlink(&dir, old) {
            log::warn!("enabled/{} cannot be removed, ignoring: {e:#}", old.display());
        }
    }
    write(dir, id, changes)
}

fn write(dir: OwnedFd, id: &str, changes: &Changes) -> Result<()> {
    file::replace(dir, id.as_ref(), &serde_json::to_vec(changes)?, 0o600)
}

/// The changes by which a container was enabled; `None` if it was not. The file of an earlier
/// container with the same ID does not count.
///
/// # Errors
/// The file cannot be read.
fn changes_of(registry: &Registry, entry: &Entry) -> Result<Option<Changes>> {
    let id = entry.names.container_id.as_str();
    let file = match file::open_read(directory(registry)?, id.as_ref()) {
        Err(crate::sys::Errno::NOENT) => return Ok(None),
        other => other.with_context(|| format!("open enabled/{id}"))?,
    };
    let text = file::read_bounded(file, MAX, "the changes of the container")?;
    let changes = serde_json::from_slice(&text).with_context(|| {
        format!(
            "enabled/{id} is of another version of this program, and its changes end with the \
             container"
        )
    })?;
    let InitProcess { pid, start_time, .. } = entry.init;
    let own = OnHost::Registration { pid, start_time };
    Ok(Some(changes).filter(|changes: &Changes| changes.on_host.contains(&own)))
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
        let theirs = rootfs.look(&wanted.target, Want::Directory).ok()??.1.id;
        let same = |path: &PathBuf| {
            file::open_dir(path).and_then(file::stat).is_ok_and(|s| s.id == theirs)
        };
        subpath::sources(wanted, &host).into_iter().find(same)
    }))
}

/// The differences from a container that was started with the hook, one line each.
fn differences(steps: &[ContainerStep], entry: &Entry, request: &Request) -> Vec<String> {
    let mut all = Vec::new();
    if !steps.contains(&ContainerStep::View) {
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
