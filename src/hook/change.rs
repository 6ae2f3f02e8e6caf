//! What the steps of a plan change, each with its undo. Changes can be kept in a file and reverted
//! by a later process: `enable` does so for as long as its container runs.

use super::inside;
use super::processes::{self, Previous};
use super::rootfs::Rootfs;
use super::site::Site;
use crate::bytes::Limit;
use crate::store::Store;
use crate::sys::limit::{self, SoftAndHard};
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
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum InContainer {
    /// This directory was made.
    Directory(PathBuf),
    /// The container has a directory in the store.
    StoreDirectory,
    /// A directory of the host was mounted.
    Mount {
        /// Where in the container.
        onto: PathBuf,
        /// Which one.
        source: PathBuf,
    },
    /// The file that the container sees as its core_pattern was written.
    ViewFile,
    /// It was mounted over the kernel's.
    View,
}

/// A change that nothing of the container is needed for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum OnHost {
    /// RLIMIT_CORE of processes, soft and hard.
    Limits(Vec<Previous<(Limit, Limit)>>),
    /// Their `coredump_filter`, as /proc gives it: hexadecimal digits.
    Filters(Vec<Previous<String>>),
    /// The container was registered. Of which first process, by its PID and the time of its start:
    /// IDs are reused.
    Registration { pid: i32, start_time: u64 },
    /// Its pattern was written to the kernel.
    KernelPattern,
}

impl Changes {
    /// Reverts all, the last one first, each as far as possible: what fails is logged. `find` opens
    /// the container's file system.
    pub(super) fn revert(&self, site: &Site<'_>, find: impl FnOnce() -> Result<Rootfs>) {
        for change in self.on_host.iter().rev() {
            attempt(site, change, change.revert(site));
        }
        if self.in_container.is_empty() {
            return;
        }
        let reverted = inside::run(|| {
            revert_inside(&self.in_container, site, &find()?);
            Ok(())
        });
        attempt(site, &self.in_container, reverted);
    }
}

/// Reverts changes in the container, the last one first. In the child that [`inside::run`] makes.
pub(super) fn revert_inside(changes: &[InContainer], site: &Site<'_>, rootfs: &Rootfs) {
    for change in changes.iter().rev() {
        attempt(site, change, change.revert(site, rootfs));
    }
}

fn attempt(site: &Site<'_>, change: &impl Debug, result: Result<()>) {
    if let Err(e) = result {
        log::warn!("container {}: cannot undo {change:?}, ignoring: {e:#}", site.id);
    }
}

impl InContainer {
    fn revert(&self, site: &Site<'_>, rootfs: &Rootfs) -> Result<()> {
        match self {
            InContainer::Directory(path) => rootfs.remove_empty(path),
            InContainer::StoreDirectory => {
                Store::open(site.config)?.forget_empty(site.id).map(drop)
            }
            InContainer::Mount { onto, source } => {
                let ours = file::open_dir(source).and_then(file::stat)?.id;
                match rootfs.look(onto, true)? {
                    Some((dir, stat)) if stat.id == ours => {
                        rootfs.inside(|_| mount::detach_dir(&dir))
                    }
                    _ => Ok(()),
                }
            }
            InContainer::ViewFile => site.registry.remove_view(site.id),
            // Without our file, which is over the kernel's, the container sees the kernel's again.
            InContainer::View => match rootfs
                .look("/proc/sys/kernel/core_pattern".as_ref(), false)?
            {
                Some((shown, _)) if filesystem::fs_type(&shown)? != filesystem::FsType::Proc => {
                    rootfs.hide()
                }
                _ => Ok(()),
            },
        }
    }
}

impl OnHost {
    fn revert(&self, site: &Site<'_>) -> Result<()> {
        match self {
            OnHost::Limits(before) => processes::put_back(site, before, |pid, _, (soft, hard)| {
                let limits = SoftAndHard { soft: soft.finite(), hard: hard.finite() };
                limit::set_core_of(pid, limits)
            }),
            OnHost::Filters(before) => processes::put_back(site, before, |_, process, mask| {
                process.write("coredump_filter", &format!("0x{mask}"))
            }),
            OnHost::Registration { .. } => {
                let _lock = site.registry.lock()?;
                site.registry.remove(site.id).map(drop)
            }
            OnHost::KernelPattern => {
                let store = Store::open(site.config)?;
                let _lock = site.registry.lock()?;
                sysctl::release(&store, site.id)
            }
        }
    }
}
