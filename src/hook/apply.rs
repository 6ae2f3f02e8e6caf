//! Applies a plan step by step. If a step fails, those before it are undone, the last one first.

use super::inside::{self, Undo};
use super::plan::{self, HookPlan, Step};
use super::request::Request;
use super::rootfs::{CreatedMounts, Rootfs};
use super::volume;
use crate::bytes::Limit;
use crate::config::Config;
use crate::pattern::COMPRESSED;
use crate::record::Location;
use crate::registry::{DumpPlace, Entry, Init, Registry, Sysctl};
use crate::store::Store;
use crate::sys::limit::{self, SoftAndHard};
use crate::sys::proc::Proc;
use crate::sys::process::Who;
use crate::sys::{mount, ns};
use crate::sysctl;
use anyhow::{Context, Result};
use std::path::Path;

/// What the steps work on.
pub(super) struct Site<'a> {
    pub registry: &'a Registry,
    pub config: &'a Config,
    /// The user whose hook this is.
    pub who: Who,
    /// The container's init process, by its directory in /proc.
    pub process: Proc,
    /// PID of the container's init process.
    pub pid: i32,
}

/// Applies the plan: first the steps that touch the container, in a child and under no lock; then
/// those that touch its processes, the registry and the kernel. `find` opens its file system.
///
/// # Errors
/// The step that failed. Then nothing of the plan is left.
pub(super) fn apply(
    site: &Site<'_>,
    request: &Request,
    plan: &HookPlan,
    find: impl FnOnce() -> Result<Rootfs>,
) -> Result<()> {
    let mut entry = Entry {
        names: request.names.clone(),
        init: init(site)?,
        pattern: request.wishes.pattern.to_string(),
        append_pid: site.config.core_uses_pid,
        limit: request.wishes.limit.unwrap_or_default(),
        compress: request.wishes.compress,
        early: request.wishes.early && site.config.allow_early_release,
        no_upload: !request.wishes.upload,
        limits: request.wishes.limits.clone(),
        place: DumpPlace::default(),
        termination_log: request.bundle.termination_log(),
        refused: None,
        soft_limit: None,
        store: (site.who != Who::Root).then(|| site.config.store.clone()),
        user: None,
    };
    let (place, inside) = inside::run(|undo| {
        // Needed until the child ends: undoing a step uses it.
        let rootfs: &Rootfs = Box::leak(Box::new(find()?));
        let mut place = None;
        for step in &plan.steps {
            in_container(site, rootfs, request, step, &mut place, undo)
                .with_context(|| step.to_string())?;
        }
        Ok(place)
    })?;
    entry.place = place.unwrap_or_default();
    let mut undo: Vec<(String, Undo<'_>)> = Vec::new();
    let mut rest = || -> Result<()> {
        for step in &plan.steps {
            on_host(site, request, step, &mut entry, &mut undo)
                .with_context(|| step.to_string())?;
        }
        Ok(())
    };
    if let Err(e) = rest() {
        for (what, back) in undo.into_iter().rev() {
            if let Err(e) = back() {
                log::warn!("cannot undo `{what}`, ignoring: {e:#}");
            }
        }
        if let Err(e) = inside.undo() {
            log::warn!("cannot undo what was done in the container, ignoring: {e:#}");
        }
        return Err(e);
    }
    inside.keep()?;
    if entry.place.location.is_lost_with_container() {
        log::info!(
            "container {}: cores of {:?} go away with the container ({})",
            entry.names.container_id,
            entry.pattern,
            why_lost(&entry)
        );
    }
    Ok(())
}

fn why_lost(entry: &Entry) -> &'static str {
    match entry.place.location {
        Location::Memory => "the directory is memory-backed",
        Location::OwnVolume => "its engine removes that volume with it",
        _ => "no volume is mounted there, and the directory is not empty or not fixed",
    }
}

/// The part of a step that touches the container.
fn in_container<'a>(
    site: &'a Site<'_>,
    rootfs: &'a Rootfs,
    request: &'a Request,
    step: &Step,
    place: &mut Option<DumpPlace>,
    undo: &mut Vec<(String, Undo<'a>)>,
) -> Result<()> {
    let id = request.names.container_id.as_str();
    let mut later = |back: Undo<'a>| undo.push((step.to_string(), back));
    match step {
        Step::Directory { inside, volume } => {
            let mut made = CreatedMounts::default();
            let found = rootfs.directory(inside, &mut made);
            later(Box::new(move || {
                made.undo();
                Ok(())
            }));
            let (onto, found) = found?;
            let store = Store::open(site.config)?;
            let source = store.container_path(id);
            let mut here = plan::place(found, inside, volume.as_ref(), &source.to_string_lossy());
            if let Some((_, source)) = &mut here.mount
                && let Ok(Some(lasting)) = volume::on_itself(Path::new(source.as_str()))
            {
                *source = lasting.to_string_lossy().into_owned();
            }
            if here.location == Location::Store {
                let dir = store.container_dir(id, rootfs.owner)?;
                later(Box::new(move || store.forget_empty(id).map(drop)));
                rootfs.give_label(&dir)?;
                // A user's store uses that user's own disk quota.
                let is_writable = site.who != Who::Root || site.config.container_writes_store();
                let tree = mount::clone_tree(&dir, !is_writable)?;
                rootfs.attach(&tree, &onto)?;
                later(Box::new(move || rootfs.detach(&tree)));
            }
            *place = Some(here);
        }
        Step::View => {
            later(Box::new(|| site.registry.remove_views(id)));
            let suffix = if request.wishes.compress { COMPRESSED } else { "" };
            let append_pid = site.config.core_uses_pid;
            let (pattern, uses_pid) = request.wishes.pattern.as_sysctls(append_pid, suffix);
            let values = [pattern, u8::from(uses_pid).to_string()];
            for (sysctl, value) in Sysctl::ALL.into_iter().zip(values) {
                let view = site.registry.make_view(id, sysctl, &value)?;
                rootfs.give_label(&view)?;
                // A container whose request failed must see the host's values, which are those in
                // effect for it.
                if rootfs.show(sysctl.name(), &mount::clone_tree(&view, true)?)? {
                    later(Box::new(move || rootfs.hide(sysctl.name())));
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// The part of a step that touches only the host: files in /run, the state of the store, sysctls.
/// The registry is locked for each write by itself.
fn on_host<'a>(
    site: &'a Site<'_>,
    request: &'a Request,
    step: &Step,
    entry: &mut Entry,
    undo: &mut Vec<(String, Undo<'a>)>,
) -> Result<()> {
    let id = request.names.container_id.as_str();
    let mut later = |back: Undo<'a>| undo.push((step.to_string(), back));
    match step {
        Step::Directory { .. } | Step::View => {}
        Step::Limit(soft, may_raise) => {
            let old = site.process.limit("Max core file size")?;
            entry.soft_limit = Some(set_core_limit(site.pid, old, *soft, *may_raise)?);
            later(Box::new(move || limit::set_core_of(site.pid, old)));
        }
        Step::Filter(mask) => {
            let old = site.process.read("coredump_filter")?;
            site.process.write("coredump_filter", &format!("{mask:#x}"))?;
            later(Box::new(move || {
                let old = format!("0x{}", String::from_utf8_lossy(&old).trim());
                site.process.write("coredump_filter", &old)
            }));
        }
        Step::Register => {
            let _lock = site.registry.lock()?;
            site.registry.put(entry)?;
            later(Box::new(|| {
                let _lock = site.registry.lock()?;
                site.registry.remove(id).map(drop)
            }));
        }
        // Checked before: the kernel starts this program already.
        Step::Dispatch if site.who != Who::Root => {}
        Step::Dispatch => {
            let store = Store::open(site.config)?;
            let _lock = site.registry.lock()?;
            let helper = std::env::current_exe().context("readlink(/proc/self/exe)")?;
            if sysctl::take_over(&store, &helper)? {
                log::info!("kernel.core_pattern now starts {}", helper.display());
            }
        }
        Step::Kernel => {
            let store = Store::open(site.config)?;
            let _lock = site.registry.lock()?;
            let lives = |id: &str| site.registry.get(id).is_some_and(|e| e.init_lives());
            sysctl::claim(&store, site.config, id, &request.wishes.pattern, lives)?;
        }
    }
    Ok(())
}

/// Sets a soft limit, and the hard limit with it if that is lower and may be raised.
/// Returns the resulting soft limit.
pub(super) fn set_core_limit(
    pid: i32,
    old: SoftAndHard,
    soft: Limit,
    may_raise: bool,
) -> Result<Limit> {
    let hard = Limit::from(old.hard);
    if soft > hard {
        let both = SoftAndHard { soft: soft.finite(), hard: soft.finite() };
        if may_raise && limit::set_core_of(pid, both).is_ok() {
            return Ok(soft);
        }
        log::warn!(
            "process {pid}: the hard RLIMIT_CORE is {hard} and cannot be raised to {soft}, using \
             {hard}"
        );
    }
    let soft = soft.min(hard);
    limit::set_core_of(pid, SoftAndHard { soft: soft.finite(), hard: old.hard })?;
    Ok(soft)
}

/// The identity by which the dispatcher recognises this container. Nothing in it may be the host's
/// own, or every crash on the host would count as the container's.
fn init(site: &Site<'_>) -> Result<Init> {
    let mount_ns = site.process.namespace("mnt")?;
    let status = site.process.status()?;
    // PID 1 of its own PID namespace, which is neither the host's nor one
    // shared with another container.
    let first = status.ns_tgid.len() > 1 && status.ns_tgid.last() == Some(&1);
    Ok(Init {
        pid: site.pid,
        start_time: site.process.start_time()?,
        mount_ns: ns::inode(&mount_ns)?,
        mount_ns_id: ns::mount_ns_id(&mount_ns),
        pid_ns: if first { Some(ns::inode(site.process.namespace("pid")?)?) } else { None },
        cgroup: own_cgroup(site)?,
        pod_uid: crate::registry::pod_uid(&site.process.cgroups()?),
    })
}

/// Its cgroup in the first hierarchy in which that is neither ours nor the root: v2 before v1.
fn own_cgroup(site: &Site<'_>) -> Result<Option<String>> {
    let ours = Proc::open(std::process::id() as i32)?.cgroups()?;
    let mut theirs = site.process.cgroups()?;
    theirs.sort_by_key(|g| !g.controllers.is_empty());
    Ok(theirs
        .iter()
        .filter(|g| !ours.contains(g))
        .find_map(|g| crate::registry::cgroup_keys(g).into_iter().next()))
}

/// Records a refusal for poststart and `doctor`.
pub(super) fn refuse(registry: &Registry, entry: Entry) {
    if let Err(e) = registry.put(&entry) {
        log::warn!(
            "cannot note the refusal of container {}, ignoring: {e:#}",
            entry.names.container_id
        );
    }
}
