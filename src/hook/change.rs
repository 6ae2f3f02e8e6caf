//! What the steps of a plan change, each with its undo. Changes can be kept in a file and reverted
//! by a later process: `enable` does so for as long as its container runs.

use super::bounded_child;
use super::context::HookContext;
use super::processes::{self, Previous};
use super::rootfs::Rootfs;
use crate::bytes::Limit;
use crate::store::Store;
use crate::sys::resolve::Want;
use crate::sys::rlimit::{self, SoftAndHard};
use crate::sys::{file, filesystem, mount};
use crate::sysctl;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::path::PathBuf;

/// The changes of one container, each list in the order in which they were made.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Changes {
    /// In its file system, and to what it sees there. They were made first.
    pub in_container: Vec<InContainer>,
    /// To its processes, the registry and the kernel.
    pub on_host: Vec<OnHost>,
}

/// A change that takes the container's file system to revert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum InContainer {
    Directory(PathBuf),
    /// The container has a directory in the store.
    StoreDirectory,
    /// A directory of the host was mounted.
    Mount {
        /// Where in the container.
        onto: PathBuf,
        source: PathBuf,
    },
    /// The files that the container sees as its sysctls were written.
    ViewFile,
    /// The one of this name in /proc/sys/kernel was mounted over the kernel's.
    View(String),
}

/// A change that nothing of the container is needed for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum OnHost {
    /// RLIMIT_CORE of processes, soft and hard.
    Limits(Vec<Previous<(Limit, Limit)>>),
    /// Their `coredump_filter`, as /proc gives it: hexadecimal digits.
    Filters(Vec<Previous<String>>),
    /// The container was registered. The PID of its first process and the time when that started
    /// tell it from a later container with the same ID.
    Registration { pid: i32, start_time: u64 },
    /// Its pattern was written to the kernel.
    KernelPattern,
}

impl Changes {
    /// Reverts all, the last one first, each as far as possible. `find` opens the container's file
    /// system.
    pub(super) fn revert(
        self,
        hook: &HookContext<'_>,
        find: impl FnOnce() -> Result<Rootfs>,
    ) -> Left {
        let Changes { in_container, on_host } = self;
        let (on_host, mut why) = revert_each(on_host, |change| change.revert(hook));
        let mut left = Changes { on_host, ..Changes::default() };
        if !in_container.is_empty() {
            let reverted =
                bounded_child::run(|| Ok(revert_in_container(&in_container, hook, &find()?)));
            let (remaining, more) = reverted
                .unwrap_or_else(|e| (in_container.clone(), vec![cannot(&in_container, &e)]));
            left.in_container = remaining;
            why.extend(more);
        }
        Left { changes: left, why }
    }
}

/// What could not be reverted.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The changes that are still there, in their order.
    pub changes: Changes,
    /// Why, a line each.
    pub why: Vec<String>,
}

impl Left {
    /// Logs it, where something else has failed already and nothing more can be done.
    pub(super) fn log(&self, hook: &HookContext<'_>) {
        log_each(hook, &self.why);
    }
}

/// Reverts changes in the container, the last one first. In the child of [`bounded_child::run`].
/// Returns what is left, and why.
pub(super) fn revert_in_container(
    changes: &[InContainer],
    hook: &HookContext<'_>,
    rootfs: &Rootfs,
) -> (Vec<InContainer>, Vec<String>) {
    revert_each(changes.to_vec(), |change| change.revert(hook, rootfs))
}

/// Logs why changes are left.
pub(super) fn log_each(hook: &HookContext<'_>, why: &[String]) {
    for line in why {
        log::warn!("container {}: {line}, ignoring", hook.id);
    }
}

/// Reverts each, the last one first. Returns those that are left, in their order, and why.
fn revert_each<C: Debug>(
    changes: Vec<C>,
    revert: impl Fn(&C) -> Result<()>,
) -> (Vec<C>, Vec<String>) {
    let (mut left, mut why) = (Vec::new(), Vec::new());
    for change in changes.into_iter().rev() {
        if let Err(e) = revert(&change) {
            why.push(cannot(&change, &e));
            left.push(change);
        }
    }
    left.reverse();
    (left, why)
}

fn cannot(change: &impl Debug, error: &anyhow::Error) -> String {
    format!("cannot undo {change:?}: {error:#}")
}

impl InContainer {
    fn revert(&self, hook: &HookContext<'_>, rootfs: &Rootfs) -> Result<()> {
        match self {
            InContainer::Directory(path) => rootfs.remove_empty(path),
            InContainer::StoreDirectory => {
                Store::open(hook.config)?.forget_empty(hook.id).map(drop)
            }
            InContainer::Mount { onto, source } => {
                let ours = file::open_dir(source).and_then(file::stat)?.id;
                match rootfs.look(onto, Want::Directory)? {
                    Some((dir, stat)) if stat.id == ours => {
                        rootfs.in_mount_ns(|_| mount::detach_dir(&dir))
                    }
                    _ => Ok(()),
                }
            }
            InContainer::ViewFile => hook.registry.remove_views(hook.id),
            // Without our file, which is over the kernel's, the container sees the kernel's again.
            InContainer::View(name) => {
                match rootfs.look(format!("/proc/sys/kernel/{name}").as_ref(), Want::Any)? {
                    Some((shown, _))
                        if filesystem::fs_type(&shown)? != filesystem::FsType::Proc =>
                    {
                        rootfs.hide(name)
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl OnHost {
    fn revert(&self, hook: &HookContext<'_>) -> Result<()> {
        match self {
            OnHost::Limits(before) => processes::put_back(hook, before, |pid, _, (soft, hard)| {
                let limits = SoftAndHard { soft: soft.finite(), hard: hard.finite() };
                rlimit::set_core_of(pid, limits)
            }),
            OnHost::Filters(before) => processes::put_back(hook, before, |_, process, mask| {
                process.write("coredump_filter", &format!("0x{mask}"))
            }),
            OnHost::Registration { .. } => {
                let _lock = hook.registry.lock()?;
                hook.registry.remove(hook.id).map(drop)
            }
            OnHost::KernelPattern => {
                let store = Store::open(hook.config)?;
                let _lock = hook.registry.lock()?;
                sysctl::release(&store, hook.id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::cell::RefCell;

    #[test]
    fn what_cannot_be_reverted_is_left_in_its_order() {
        let tried = RefCell::new(Vec::new());
        let (left, why) = revert_each(vec![1, 2, 3, 4], |n| {
            tried.borrow_mut().push(*n);
            match n % 2 {
                0 => bail!("it is even"),
                _ => Ok(()),
            }
        });
        assert_eq!(*tried.borrow(), [4, 3, 2, 1]);
        assert_eq!(left, [2, 4]);
        assert_eq!(why, ["cannot undo 4: it is even", "cannot undo 2: it is even"]);
    }
}
