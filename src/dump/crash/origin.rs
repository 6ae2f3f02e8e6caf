//! Whose process crashed: that of a registered container, or of none.

use super::facts::Facts;
use crate::registry::{self, Entry, Registry};
use crate::sys::proc::Proc;
use crate::sys::{OwnedFd, ns};
use anyhow::Result;

/// How many levels of parents or PID namespaces are walked at most; the kernel allows 32 nested PID
/// namespaces.
const DEPTH: usize = 64;

/// Where the crasher belongs.
#[derive(Debug)]
pub(crate) enum Origin {
    Container {
        entry: Box<Entry>,
        /// It came in by `exec`: its ancestors lead out of the container without passing its init.
        by_exec: bool,
    },
    /// No registered container: the earlier handler gets the crash.
    Unregistered,
}

/// Finds the container by mount namespace, else by cgroup, else by the PID namespaces above the
/// crasher's own.
///
/// A process in our own mount namespace is the host's, whatever else it shares with a container: a
/// path of the container would be the host's there.
pub(crate) fn identify(facts: &Facts, registry: Option<&Registry>) -> Result<Origin> {
    let own = ns::own("mnt")?;
    let found = match registry {
        Some(registry) if facts.mount_ns != own => look_up(facts, registry),
        _ => None,
    };
    let found = found.or_else(|| {
        facts.user_ns.as_ref().filter(|_| facts.mount_ns != own).and_then(|ns| of_user(facts, ns))
    });
    Ok(match found {
        Some(entry) => {
            Origin::Container { by_exec: came_by_exec(facts, &entry), entry: Box::new(entry) }
        }
        None => Origin::Unregistered,
    })
}

/// A user's registrations count for processes in a user namespace that he owns, over which he has
/// all capabilities anyway; they direct no other process's cores. (Root's own user namespaces are
/// for root's registry alone.)
fn of_user(facts: &Facts, user_ns: &OwnedFd) -> Option<Entry> {
    let uid = ns::owner(user_ns).filter(|uid| *uid != 0)?;
    look_up(facts, &Registry::of_user(uid)?)
}

fn look_up(facts: &Facts, registry: &Registry) -> Option<Entry> {
    by_mount_ns(facts, registry)
        .or_else(|| by_cgroup(facts, registry))
        .or_else(|| by_pid_ns(facts, registry))
}

fn in_cgroup_of(facts: &Facts, entry: &Entry) -> bool {
    entry
        .init
        .cgroup
        .as_ref()
        .is_some_and(|key| facts.cgroups.iter().flat_map(registry::cgroup_keys).any(|k| k == *key))
}

/// The inode number alone may have been another container's before: it counts with the number that
/// is never reused, with the init still there, or with the cgroup as well.
fn by_mount_ns(facts: &Facts, registry: &Registry) -> Option<Entry> {
    let entry = registry.find(&registry::mount_key(facts.mount_ns))?;
    // Damaged: it does not say who its init was.
    if entry.refused.is_some() {
        return Some(entry);
    }
    let same = match (entry.init.mount_ns_id, facts.mount_ns_id) {
        (Some(a), Some(b)) => a == b,
        _ => entry.init_lives() || in_cgroup_of(facts, &entry),
    };
    same.then_some(entry)
}

fn by_cgroup(facts: &Facts, registry: &Registry) -> Option<Entry> {
    let keys = facts.cgroups.iter().flat_map(registry::cgroup_keys);
    // Engines name a container's cgroup by its ID, so that one cannot be another container's later.
    let bound = |e: &Entry| {
        e.init_lives() || e.init.cgroup.as_ref().is_some_and(|c| c.contains(&e.names.container_id))
    };
    keys.filter_map(|k| registry.find(&k)).find(bound)
}

/// A sandbox inside the container (a browser's, say) has its own mount and PID namespace; one of
/// the PID namespaces above is the container's.
fn by_pid_ns(facts: &Facts, registry: &Registry) -> Option<Entry> {
    let mut next = Some(facts.pid_ns.try_clone().ok()?);
    for _ in 0..DEPTH {
        let here = next?;
        let entry = registry.find(&registry::pid_key(ns::inode(&here).ok()?));
        if let Some(entry) = entry.filter(Entry::init_lives) {
            return Some(entry);
        }
        next = ns::parent(&here);
    }
    None
}

const HOST_INIT: i32 = 1;

/// Whether its soft RLIMIT_CORE is another one than 0.
fn has_own_limit(process: &Proc) -> bool {
    process.core_limit().is_ok_and(|limit| limit.soft != Some(0))
}

/// Whether a soft RLIMIT_CORE of 0 is the engine's: the crasher came in by `exec`, whose processes
/// inherit nothing of what the hook set, and no process on the way from there to it has another
/// soft limit. Else a program in the container has set it to 0 on purpose: gpg does, for its
/// secrets.
///
/// Walks up the parents. A process whose parent has ended is the init's child, so only what an
/// engine put in from outside leaves the container.
fn came_by_exec(facts: &Facts, entry: &Entry) -> bool {
    // Without a PID namespace of its own a container's orphans go to the host: nothing can be said.
    if entry.init.pid_ns.is_none() {
        return false;
    }
    let mut parent = facts.status.parent;
    // The process whose PPid `parent` is; `None`: the crasher.
    let mut below: Option<Proc> = None;
    for _ in 0..DEPTH {
        if parent == entry.init.pid {
            return false;
        }
        if parent == 0 {
            return true;
        }
        // Only `status`: the namespaces of the host's init may be closed to us (an init that is not
        // dumpable), and it is the parent of everything that came in by a detached exec.
        match Proc::open(parent).and_then(|process| Ok((process.status()?, process))) {
            // What started it from outside: where that has another soft limit, so had what it
            // started. The host's init has only adopted it, and tells nothing.
            Ok((status, process)) if status.ns_tgid.len() < 2 => {
                return parent == HOST_INIT || !has_own_limit(&process);
            }
            Ok((_, process)) if has_own_limit(&process) => return false,
            Ok((status, process)) => {
                parent = status.parent;
                below = Some(process);
            }
            // It has ended since, as an engine's `exec` does when its process is started: there is
            // another parent now.
            Err(_) => match below.as_ref().unwrap_or(&facts.task).status() {
                Ok(status) if status.parent != parent => parent = status.parent,
                _ => return false,
            },
        }
    }
    false
}
