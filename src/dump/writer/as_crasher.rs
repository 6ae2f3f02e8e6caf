//! Short tasks in a child that has become the crasher, bounded in memory and time. The parent only
//! reads what it reports.

use super::crasher::become_crasher;
use crate::dump::crash::facts::Facts;
use crate::dump::policy::plan::CorePlan;
use crate::sys::cgroup::{self, Groups};
use crate::sys::sandbox::{self, Meanwhile, SandboxBounds};
use crate::sys::{AsFd, BorrowedFd, OwnedFd, child, descriptor, process, resolve, rlimit};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fs::File as Open;
use std::io::Write;
use std::time::Duration;

/// How long a child has to end after it was killed or has closed its pipe.
const LAST: Duration = Duration::from_secs(1);

/// How long a child whose work nobody waits for lets all other processes run first. On a host whose
/// processors are always busy it would otherwise never end, and no crash there would have a stack.
const STEPS_BACK: Duration = Duration::from_secs(5);

/// How urgent the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// The crashed process waits for this, or others for its slot.
    Now,
    /// Nobody waits for it, so the child runs at a lower priority at first, and ends with its
    /// parent. The parent does not: others wait for what it holds in the store.
    Later,
}

/// Whose control groups the child runs in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Charge<'a> {
    /// The crasher's control groups.
    Crasher,
    /// The same, as long as the process of this pidfd lives. Its end is the end of the container,
    /// whose groups must be empty then.
    Until(&'a OwnedFd),
    /// None: the container is going.
    Nobody,
}

/// Runs `work` in a child that has become the crasher, within bounds, and returns what it reported,
/// a line of JSON each. Damaged lines are left out.
pub(crate) fn run<T: for<'d> Deserialize<'d>>(
    facts: &Facts,
    core_file: &CorePlan,
    bounds: &SandboxBounds,
    urgency: Urgency,
    charge: Charge<'_>,
    files: &[BorrowedFd<'_>],
    work: impl FnOnce(&OwnedFd, &mut Open),
) -> Result<Vec<T>> {
    let (read, write) = descriptor::pipe()?;
    let groups = match charge {
        Charge::Nobody => Groups::default(),
        _ => Groups::open(&facts.cgroups),
    };
    let child = child::fork_into(groups.unified(), |there| {
        groups.enter(there);
        let mut out = Open::from(write);
        // The crashed process must not wait where this child hangs in a file system.
        descriptor::release_stdin();
        if urgency == Urgency::Later {
            process::step_back();
        }
        let ready = || -> Result<OwnedFd> {
            let own = resolve::own_files()?;
            let keep = [files, &[out.as_fd(), own.as_fd()]].concat();
            become_crasher(facts, core_file, keep)?;
            // Not before: it would be forgotten with the change of the rights.
            if urgency == Urgency::Later {
                process::end_with_parent();
            }
            rlimit::bound_own(bounds.memory, bounds.cpu, bounds.file)?;
            Ok(own)
        };
        match ready() {
            Ok(own) => work(&own, &mut out),
            Err(_) => return 1,
        }
        0
    })?;
    let pid = child.id().as_raw_nonzero().get();
    let mut leave = || cgroup::leave(&facts.cgroups, pid);
    let mut hurry = || process::step_forward(pid);
    let mut meanwhile = Meanwhile::default();
    if let Charge::Until(process) = charge {
        meanwhile.readable = Some((process, &mut leave));
    }
    if urgency == Urgency::Later {
        meanwhile.late = Some((STEPS_BACK, &mut hurry));
    }
    let (said, cut) = sandbox::listen_beside(&read, bounds, meanwhile);
    // A child that hangs in the container's file system cannot be killed, and is left behind.
    if cut.is_some() { child.end_now() } else { child.end_within(LAST) }?;
    Ok(said.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// Reports one thing to the parent.
pub(crate) fn say(out: &mut Open, line: &impl Serialize) {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    let _ = out.write_all(&text);
}
