//! Applies a plan step by step. If a step fails, what was changed is reverted, the last change
//! first.

use super::change::{self, Changes, InContainer, OnHost};
use super::inside;
use super::plan::{self, HookPlan, Step};
use super::processes::{self, CORE_LIMIT};
use super::remarks;
use super::request::Request;
use super::rootfs::Rootfs;
use super::site::Site;
use super::subpath;
use crate::config::MakeDirectories;
use crate::pattern::{COMPRESSED, Pattern};
use crate::record::Location;
use crate::registry::views::Sysctl;
use crate::registry::{DumpPlace, Entry, Init, Registry};
use crate::store::Store;
use crate::sys::mount;
use crate::sys::user::Who;
use crate::sysctl;
use anyhow::Result;
use std::path::Path;

/// What came of a plan.
pub(super) struct Applied {
    /// The container, as it is registered.
    pub entry: Entry,
    pub changes: Changes,
    /// What could not be done for single processes, one line each.
    pub notes: Vec<String>,
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
    find: impl Fn() -> Result<Rootfs>,
) -> Result<Applied> {
    let (place, is_directory, in_container) = inside::run(|| {
        let rootfs = find()?;
        let (mut place, mut done) = (DumpPlace::default(), Vec::new());
        for step in &plan.steps {
            let result = in_container(site, &rootfs, request, step, &mut place, &mut done);
            if let Err(e) = result {
                change::log_each(site, &change::revert_inside(&done, site, &rootfs).1);
                return Err(e.context(step.to_string()));
            }
        }
        Ok((place, names_directory(&rootfs, &request.wishes.pattern), done))
    })?;
    let mut applied = Applied {
        entry: entry(site, request, plan, place),
        changes: Changes { in_container, on_host: Vec::new() },
        notes: Vec::new(),
    };
    let remark = remarks::names_directory(&request.wishes.pattern, site.config.core_uses_pid);
    if is_directory && !applied.entry.remarks.contains(&remark) {
        applied.entry.remarks.push(remark.clone());
    }
    if applied.entry.remarks.contains(&remark) {
        log::warn!("container {}: {remark}", site.id);
    }
    for step in &plan.steps {
        if let Err(e) = on_host(site, request, step, &mut applied) {
            applied.changes.revert(site, find).log(site);
            return Err(e.context(step.to_string()));
        }
    }
    if applied.entry.place.location.is_lost_with_container() {
        log::info!(
            "container {}: cores of {:?} go away with the container ({})",
            site.id,
            request.wishes.pattern,
            why_lost(&applied.entry)
        );
    }
    Ok(applied)
}

/// The entry of a container, before its limit is set.
fn entry(site: &Site<'_>, request: &Request, plan: &HookPlan, place: DumpPlace) -> Entry {
    Entry {
        names: request.names.clone(),
        init: site.init.clone(),
        pattern: Some(request.wishes.pattern.clone()),
        append_pid: site.config.core_uses_pid,
        limit: request.wishes.limit.unwrap_or_default(),
        compress: request.wishes.compress,
        early: request.wishes.early && site.config.allow_early_release,
        no_upload: !request.wishes.upload,
        existing: request.wishes.existing.unwrap_or(site.config.existing),
        keep: request.wishes.keep.unwrap_or(site.config.keep),
        make_directories: match site.config.make_directories {
            MakeDirectories::Store => place.location == Location::Store,
            MakeDirectories::Anywhere => true,
            MakeDirectories::Nowhere => false,
        },
        share: request.wishes.share,
        limits: request.wishes.limits.clone(),
        remarks: plan.remarks.clone(),
        place,
        termination_log: request.bundle.termination_log(),
        refused: None,
        soft_limit: None,
        store: (site.who != Who::Root).then(|| site.config.store.clone()),
        user: None,
    }
}

/// Whether the pattern's path is a directory in the container.
fn names_directory(rootfs: &Rootfs, pattern: &Pattern) -> bool {
    let path = pattern.to_string();
    let is_plain = !pattern.is_relative() && !path.contains('%');
    is_plain && matches!(rootfs.look(path.as_ref(), true), Ok(Some(_)))
}

fn why_lost(entry: &Entry) -> &'static str {
    match entry.place.location {
        Location::Memory => "the directory is memory-backed",
        Location::OwnVolume => "its engine removes that volume with it",
        _ => "no volume is mounted there, and the directory is not empty or not fixed",
    }
}

/// The part of a step that touches the container. Adds what it changes to `done`, also where it
/// fails later.
fn in_container(
    site: &Site<'_>,
    rootfs: &Rootfs,
    request: &Request,
    step: &Step,
    place: &mut DumpPlace,
    done: &mut Vec<InContainer>,
) -> Result<()> {
    match step {
        Step::Directory { inside, volume } => {
            let (onto, found) =
                rootfs.directory(inside, |made| done.push(InContainer::Directory(made)))?;
            let store = Store::open(site.config)?;
            let source = store.container_path(site.id);
            *place = plan::place(found, inside, volume.as_ref(), &source.to_string_lossy());
            if let Some((_, source)) = &mut place.mount
                && let Ok(Some(lasting)) = subpath::on_itself(Path::new(source.as_str()))
            {
                *source = lasting.to_string_lossy().into_owned();
            }
            if place.location == Location::Store {
                done.push(InContainer::StoreDirectory);
                let dir = store.container_dir(site.id, rootfs.owner)?;
                rootfs.give_label(&dir)?;
                // A user's store uses that user's own disk quota.
                let is_writable = site.who != Who::Root || site.config.container_writes_store();
                rootfs.attach(&mount::clone_tree(&dir, !is_writable)?, &onto)?;
                done.push(InContainer::Mount { onto: inside.into(), source });
            }
        }
        Step::View => {
            done.push(InContainer::ViewFile);
            let suffix = if request.wishes.compress { COMPRESSED } else { "" };
            let append_pid = site.config.core_uses_pid;
            let (pattern, uses_pid) = request.wishes.pattern.as_sysctls(append_pid, suffix);
            let values = [pattern, u8::from(uses_pid).to_string()];
            for (sysctl, value) in Sysctl::ALL.into_iter().zip(values) {
                let view = site.registry.make_view(site.id, sysctl, &value)?;
                rootfs.give_label(&view)?;
                // A container whose request failed must see the host's values, which are those in
                // effect for it.
                if rootfs.show(sysctl.name(), &mount::clone_tree(&view, true)?)? {
                    done.push(InContainer::View(sysctl.name().into()));
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// The part of a step that touches only the host: files in /run, the state of the store, sysctls.
/// Adds what it changes to `applied`, also where it fails later. The registry is locked for each
/// write by itself.
fn on_host(site: &Site<'_>, request: &Request, step: &Step, applied: &mut Applied) -> Result<()> {
    let Applied { entry, changes: Changes { on_host: done, .. }, notes } = applied;
    match step {
        Step::Directory { .. } | Step::View => {}
        Step::Limit(soft, may_raise) => {
            let mut before = Vec::new();
            let set = processes::set(site, "RLIMIT_CORE", &mut before, |pid, process| {
                let old = process.limit(CORE_LIMIT)?;
                let new = processes::set_core_limit(pid, process, old, *soft, *may_raise)?;
                if pid == site.init.pid {
                    entry.soft_limit = Some(new);
                }
                Ok((old.soft.into(), old.hard.into()))
            });
            done.push(OnHost::Limits(before));
            notes.extend(set?);
        }
        Step::Filter(mask) => {
            let mut before = Vec::new();
            let set = processes::set(site, "coredump_filter", &mut before, |_, process| {
                let old = process.read("coredump_filter")?;
                process.write("coredump_filter", &format!("{mask:#x}"))?;
                Ok(String::from_utf8_lossy(&old).trim().to_owned())
            });
            done.push(OnHost::Filters(before));
            notes.extend(set?);
        }
        Step::Register => {
            let _lock = site.registry.lock()?;
            let Init { pid, start_time, .. } = entry.init;
            done.push(OnHost::Registration { pid, start_time });
            site.registry.put(entry)?;
        }
        // Checked before: the kernel starts this program already.
        Step::Dispatch if site.who != Who::Root => {}
        Step::Dispatch => {
            let store = Store::open(site.config)?;
            let helper = sysctl::helper()?;
            let ours = sysctl::wanted(site.config, &helper)?;
            let _lock = site.registry.lock()?;
            if sysctl::take_over(&store, &helper, &ours)? {
                log::info!("kernel.core_pattern now leads to {}: {ours:?}", helper.display());
            }
        }
        Step::Kernel => {
            let store = Store::open(site.config)?;
            let _lock = site.registry.lock()?;
            done.push(OnHost::KernelPattern);
            let lives = |id: &str| site.registry.get(id).is_some_and(|e| e.init_lives());
            sysctl::claim(&store, site.config, site.id, &request.wishes.pattern, lives)?;
        }
    }
    Ok(())
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
