//! The processes of a container: which is the first, by what the dispatcher knows them, and the
//! settings that each of them is given or given back.

use super::context::{HookContext, Targets};
use crate::bytes::Limit;
use crate::registry::{InitProcess, cgroup_keys, pod_uid};
use crate::sys::ns;
use crate::sys::proc::{self, Proc};
use crate::sys::rlimit::{self, SoftAndHard};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// How often new processes are looked for. A process that forks before its own setting is changed
/// has a child with the old one.
const ROUNDS: usize = 8;

/// A setting of one process, as it was before it was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Previous<T> {
    /// The process, by its PID and the time of its start.
    pub pid: i32,
    pub start_time: u64,
    /// The value; `None` if the process kept it.
    pub was: Option<T>,
}

impl<T> Previous<T> {
    fn is(&self, pid: i32, start_time: u64) -> bool {
        (self.pid, self.start_time) == (pid, start_time)
    }
}

/// The first process of the container that this process is in: of its PID
/// namespace, if it has its own.
pub(super) fn first_of(pid: i32) -> Result<(i32, Proc)> {
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

/// The identity by which the dispatcher recognises this container. Nothing in it may be the host's
/// own, or every crash on the host would count as the container's.
pub(super) fn init_process(pid: i32, process: &Proc) -> Result<InitProcess> {
    let mount_ns = process.namespace("mnt")?;
    let status = process.status()?;
    // PID 1 of its own PID namespace, which is neither the host's nor one
    // shared with another container.
    let first = status.ns_tgid.len() > 1 && status.ns_tgid.last() == Some(&1);
    Ok(InitProcess {
        pid,
        start_time: process.start_time()?,
        mount_ns: ns::inode(&mount_ns)?,
        mount_ns_id: ns::mount_ns_id(&mount_ns),
        pid_ns: if first { Some(ns::inode(process.namespace("pid")?)?) } else { None },
        cgroup: own_cgroup(process)?,
        pod_uid: pod_uid(&process.cgroups()?),
    })
}

/// Its cgroup in the first hierarchy in which that is neither ours nor the root: v2 before v1.
fn own_cgroup(process: &Proc) -> Result<Option<String>> {
    let ours = Proc::open(std::process::id() as i32)?.cgroups()?;
    let mut theirs = process.cgroups()?;
    theirs.sort_by_key(|g| !g.controllers.is_empty());
    Ok(theirs.iter().filter(|g| !ours.contains(g)).find_map(|g| cgroup_keys(g).into_iter().next()))
}

/// The container's processes: those in its mount namespace, its PID namespace or its cgroup.
fn all_of(init: &InitProcess) -> Result<Vec<(i32, Proc)>> {
    let of = |process: &Proc| {
        let space = |name: &str| process.namespace(name).and_then(ns::inode).ok();
        let group = |process: &Proc| {
            process.cgroups().is_ok_and(|all| {
                all.iter().flat_map(cgroup_keys).any(|k| Some(&k) == init.cgroup.as_ref())
            })
        };
        space("mnt") == Some(init.mount_ns)
            || init.pid_ns.is_some_and(|n| space("pid") == Some(n))
            || group(process)
    };
    Ok(proc::all()?
        .into_iter()
        .filter_map(|pid| Some((pid, Proc::open(pid).ok()?)))
        .filter(|(_, process)| of(process))
        .collect())
}

/// Changes a setting of the processes that the context is about; `set` changes one and returns the
/// previous value. Adds those to `done`. With [`Targets::All`], goes on until no new process
/// appears, and returns a line for each that keeps its setting, which is called `what`.
///
/// # Errors
/// The first process of a container that is about to start keeps its setting, or the processes
/// cannot be listed.
pub(super) fn set<T>(
    hook: &HookContext<'_>,
    what: &str,
    done: &mut Vec<Previous<T>>,
    mut set: impl FnMut(i32, &Proc) -> Result<T>,
) -> Result<Vec<String>> {
    if hook.targets == Targets::Init {
        let was = Some(set(hook.init.pid, &hook.process)?);
        done.push(Previous { pid: hook.init.pid, start_time: hook.init.start_time, was });
        return Ok(Vec::new());
    }
    let mut notes = Vec::new();
    for _ in 0..ROUNDS {
        let before = done.len();
        for (pid, process) in all_of(&hook.init)? {
            let Ok(start_time) = process.start_time() else { continue };
            if done.iter().any(|p| p.is(pid, start_time)) {
                continue;
            }
            match set(pid, &process) {
                Ok(was) => done.push(Previous { pid, start_time, was: Some(was) }),
                // It may have ended just now.
                Err(_) if process.start_time().is_err() => {}
                Err(e) => {
                    done.push(Previous { pid, start_time, was: None });
                    notes.push(format!("process {pid} of the container keeps its {what}: {e:#}"));
                }
            }
        }
        if done.len() == before {
            break;
        }
    }
    Ok(notes)
}

/// Gives the processes back what [`set`] has changed, by `put`: to one that was there, its own
/// value; to a later one, that of the first process.
///
/// # Errors
/// The first process that is still there and could not be given its value back; the others were.
pub(super) fn put_back<T>(
    hook: &HookContext<'_>,
    done: &[Previous<T>],
    put: impl Fn(i32, &Proc, &T) -> Result<()>,
) -> Result<()> {
    let known = |pid, start_time| done.iter().find(|p| p.is(pid, start_time));
    let Some(first) = known(hook.init.pid, hook.init.start_time) else { return Ok(()) };
    let all = match hook.targets {
        Targets::Init => vec![(hook.init.pid, Proc::open(hook.init.pid)?)],
        Targets::All => all_of(&hook.init)?,
    };
    let mut result = Ok(());
    for (pid, process) in all {
        let Ok(start_time) = process.start_time() else { continue };
        let Some(was) = &known(pid, start_time).unwrap_or(first).was else { continue };
        let done = put(pid, &process, was).with_context(|| format!("process {pid}"));
        // A process that has ended in the meantime needs nothing.
        if process.start_time().is_ok() {
            result = result.and(done);
        }
    }
    result
}

/// Sets a soft limit, and the hard limit with it if that is lower and may be raised.
/// Returns the resulting soft limit.
pub(super) fn set_core_limit(
    pid: i32,
    process: &Proc,
    old: SoftAndHard,
    soft: Limit,
    may_raise: bool,
) -> Result<Limit> {
    // An open directory of /proc speaks of no later process with the same PID, prlimit may.
    process.start_time().context("it has ended")?;
    let hard = Limit::from(old.hard);
    if soft > hard {
        let both = SoftAndHard { soft: soft.finite(), hard: soft.finite() };
        if may_raise && rlimit::set_core_of(pid, both).is_ok() {
            return Ok(soft);
        }
        log::warn!(
            "process {pid}: the hard RLIMIT_CORE is {hard} and cannot be raised to {soft}, using \
             {hard}"
        );
    }
    let soft = soft.min(hard);
    rlimit::set_core_of(pid, SoftAndHard { soft: soft.finite(), hard: old.hard })?;
    Ok(soft)
}
