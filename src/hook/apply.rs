//! Applies a plan step by step. If a step fails, what was changed is reverted, the last change
//! first.

use super::bounded_child;
use super::change::{self, Changes, InContainer, OnHost};
use super::context::HookContext;
use super::plan::{self, ContainerStep, HookPlan, HostStep};
use super::processes;
use super::remarks;
use super::request::Request;
use super::rootfs::Rootfs;
use super::subpath;
use crate::pattern::{COMPRESSED, Pattern};
use crate::record::Location;
use crate::registry::shown_sysctls::Sysctl;
use crate::registry::{DumpPlace, Entry, InitProcess, Registry};
use crate::store::Store;
use crate::sys::mount;
use crate::sys::resolve::Want;
use crate::sys::user::RunBy;
use crate::sysctl;
use anyhow::Result;
use std::path::Path;

/// What came of a plan.
pub(super) struct Applied {
    /// The container, as it is registered.
    pub entry: Entry,
    pub changes: Changes,
    /// What could not be done for single processes, one line each.
    pub warnings: Vec<String>,
}

/// Applies the plan: first the steps that touch the container, in a child and under no lock; then
/// those that touch its processes, the registry and the kernel. `find` opens its file system.
///
/// # Errors
/// The step that failed. Then nothing of the plan is left.
pub(super) fn apply(
    hook: &HookContext<'_>,
    request: &Request,
    plan: &HookPlan,
    find: impl Fn() -> Result<Rootfs>,
) -> Result<Applied> {
    let (place, is_directory, in_container) = bounded_child::run(|| {
        let rootfs = find()?;
        let (mut place, mut done) = (DumpPlace::default(), Vec::new());
        for step in &plan.in_container {
            let result = in_container(hook, &rootfs, request, step, &mut place, &mut done);
            if let Err(e) = result {
                change::log_each(hook, &change::revert_in_container(&done, hook, &rootfs).1);
                return Err(e.context(step.to_string()));
            }
        }
        Ok((place, names_directory(&rootfs, &request.wishes.pattern), done))
    })?;
    let mut applied = Applied {
        entry: entry(hook, request, plan, place),
        changes: Changes { in_container, on_host: Vec::new() },
        warnings: Vec::new(),
    };
    let remark = remarks::names_directory(&request.wishes.pattern, hook.config.core_uses_pid);
    if is_directory && !applied.entry.remarks.contains(&remark) {
        applied.entry.remarks.push(remark.clone());
    }
    if applied.entry.remarks.contains(&remark) {
        log::warn!("container {}: {remark}", hook.id);
    }
    for step in &plan.on_host {
        if let Err(e) = on_host(hook, request, step, &mut applied) {
            applied.changes.revert(hook, find).log(hook);
            return Err(e.context(step.to_string()));
        }
    }
    if applied.entry.place.location.is_lost_with_container() {
        log::info!(
            "container {}: cores of {:?} go away with the container ({})",
            hook.id,
            request.wishes.pattern,
            why_lost(&applied.entry)
        );
    }
    Ok(applied)
}

/// The entry of a container, before its limit is set.
fn entry(hook: &HookContext<'_>, request: &Request, plan: &HookPlan, place: DumpPlace) -> Entry {
    Entry {
        names: request.names.clone(),
        init: hook.init.clone(),
        pattern: Some(request.wishes.pattern.clone()),
        append_pid: hook.config.core_uses_pid,
        limit: request.wishes.limit.unwrap_or_default(),
        compress: request.wishes.compress,
        early_release: request.wishes.early_release && hook.config.allow_early_release,
        no_upload: !request.wishes.upload,
        existing: request.wishes.existing.unwrap_or(hook.config.existing),
        keep: request.wishes.keep.unwrap_or(hook.config.keep),
        make_directories: hook.config.make_directories.applies(place.location == Location::Store),
        share: request.wishes.share,
        limits: request.wishes.limits.clone(),
        remarks: plan.remarks.clone(),
        place,
        termination_log: request.bundle.termination_log(),
        refused: None,
        soft_limit: None,
        store: (hook.run_by != RunBy::Root).then(|| hook.config.store.clone()),
        user: None,
    }
}

/// Whether the pattern's path is a directory in the container.
fn names_directory(rootfs: &Rootfs, pattern: &Pattern) -> bool {
    let path = pattern.to_string();
    let is_plain = !pattern.is_relative() && !path.contains('%');
    is_plain && matches!(rootfs.look(path.as_ref(), Want::Directory), Ok(Some(_)))
}

fn why_lost(entry: &Entry) -> &'static str {
    match entry.place.location {
        Location::Memory => "the directory is memory-backed",
        Location::OwnVolume => "its engine removes that volume with it",
        _ => "no volume is mounted there, and the directory is not empty or not fixed",
    }
}

/// Takes a step in the container. Adds what it changes to `done`, also where it fails later.
fn in_container(
    hook: &HookContext<'_>,
    rootfs: &Rootfs,
    request: &Request,
    step: &ContainerStep,
    place: &mut DumpPlace,
    done: &mut Vec<InContainer>,
) -> Result<()> {
    match step {
        ContainerStep::Directory { path_in_container: path, volume } => {
            let (onto, found) =
                rootfs.directory(path, |made| done.push(InContainer::Directory(made)))?;
            let store = Store::open(hook.config)?;
            let source = store.container_path(hook.id);
            *place = plan::place(found, path, volume.as_ref(), &source.to_string_lossy());
            if let Some((_, source)) = &mut place.mount
                && let Ok(Some(lasting)) = subpath::on_itself(Path::new(source.as_str()))
            {
                *source = lasting.to_string_lossy().into_owned();
            }
            if place.location == Location::Store {
                done.push(InContainer::StoreDirectory);
                let dir = store.container_dir(hook.id, rootfs.owner)?;
                rootfs.give_label(&dir)?;
                // A user's store uses that user's own disk quota.
                let is_writable =
                    hook.run_by != RunBy::Root || hook.config.container_writes_store();
                rootfs.attach(&mount::clone_tree(&dir, !is_writable)?, &onto)?;
                done.push(InContainer::Mount { onto: path.into(), source });
            }
        }
        ContainerStep::View => {
            done.push(InContainer::ViewFile);
            let suffix = if request.wishes.compress { COMPRESSED } else { "" };
            let append_pid = hook.config.core_uses_pid;
            let (pattern, uses_pid) = request.wishes.pattern.as_sysctls(append_pid, suffix);
            let values = [pattern, u8::from(uses_pid).to_string()];
            for (sysctl, value) in Sysctl::ALL.into_iter().zip(values) {
                let view = hook.registry.make_view(hook.id, sysctl, &value)?;
                rootfs.give_label(&view)?;
                // A container whose request failed must see the host's values, which are those in
                // effect for it.
                if rootfs.show(sysctl.name(), &mount::clone_tree(&view, true)?)? {
                    done.push(InContainer::View(sysctl.name().into()));
                }
            }
        }
    }
    Ok(())
}

/// Takes a step on the host: files in /run, the state of the store, sysctls. Adds what it changes
/// to `applied`, also where it fails later. The registry is locked for each write by itself.
fn on_host(
    hook: &HookContext<'_>,
    request: &Request,
    step: &HostStep,
    applied: &mut Applied,
) -> Result<()> {
    let Applied { entry, changes: Changes { on_host: done, .. }, warnings } = applied;
    match step {
        HostStep::Limit(soft, may_raise) => {
            let mut before = Vec::new();
            let set = processes::set(hook, "RLIMIT_CORE", &mut before, |pid, process| {
                let old = process.core_limit()?;
                let new = processes::set_core_limit(pid, process, old, *soft, *may_raise)?;
                if pid == hook.init.pid {
                    entry.soft_limit = Some(new);
                }
                Ok((old.soft.into(), old.hard.into()))
            });
            done.push(OnHost::Limits(before));
            warnings.extend(set?);
        }
        HostStep::Filter(mask) => {
            let mut before = Vec::new();
            let set = processes::set(hook, "coredump_filter", &mut before, |_, process| {
                let old = process.read("coredump_filter")?;
                process.write("coredump_filter", &format!("{mask:#x}"))?;
                Ok(String::from_utf8_lossy(&old).trim().to_owned())
            });
            done.push(OnHost::Filters(before));
            warnings.extend(set?);
        }
        HostStep::Register => {
            let _lock = hook.registry.lock()?;
            let InitProcess { pid, start_time, .. } = entry.init;
            done.push(OnHost::Registration { pid, start_time });
            hook.registry.put(entry)?;
        }
        // Checked before: the kernel starts this program already.
        HostStep::Dispatch if hook.run_by != RunBy::Root => {}
        HostStep::Dispatch => {
            let store = Store::open(hook.config)?;
            let helper = sysctl::helper()?;
            let ours = sysctl::wanted(hook.config, &helper)?;
            let _lock = hook.registry.lock()?;
            if sysctl::take_over(&store, &helper, &ours)? {
                log::info!("kernel.core_pattern now leads to {}: {ours:?}", helper.display());
            }
        }
        HostStep::Kernel => {
            let store = Store::open(hook.config)?;
            let _lock = hook.registry.lock()?;
            done.push(OnHost::KernelPattern);
            let lives = |id: &str| hook.registry.get(id).is_some_and(|e| e.init_lives());
            sysctl::claim(&store, hook.config, hook.id, &request.wishes.pattern, lives)?;
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
