//! The dispatcher: what the kernel starts for every crash. `crash` says who crashed and whose
//! container it was, `policy` decides, `writer` makes the file and `copy` fills it, `after` keeps
//! the record. Crashes of no container go to the earlier handler, by `forward`.
//!
//! The order is part of the defence: pin; gather; verify again; decide; take a slot; say who
//! crashed, in a first record, while the writer takes on the crasher's credentials; make the file,
//! not before that record is there; stream; record. The ELF is never looked at with privileges.
//!
//! Who crashed is in the error of whatever fails before that record. It is not a line of its own in
//! the log before everything else: how many lines an account may have in a minute can be looked up
//! only when it is known whose process it was, and whoever crashes often would fill the log.

mod after;
mod copy;
mod core_dump;
mod core_place;
mod crash;
mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
mod policy;
pub(crate) mod server;
mod slots;
mod without_core;
mod writer;

use crate::cause::Cause;
use crate::config::Config;
use crate::limits::Limits;
use crate::record::signal_name;
use crate::registry::{Entry, Registry};
use crate::sys::{descriptor, process};
use anyhow::{Context, Result};
use copy::pages;
use core_dump::with_core;
use crash::arguments::Crash;
use crash::container_crash::{ContainerCrash, comm};
use crash::container_root::ContainerRoot;
use crash::facts::Facts;
use crash::origin::{self, Origin};
use crash::transport::Transport;
use forward::{CrashOwner, sparingly};
use policy::plan::{self, CorePlan, Decision};
use slots::slot_for;
use std::ffi::OsString;
use without_core::without_core;

/// `oci-coredump handle`, started by the kernel. The kernel lets the crashed process go when the
/// core is whole and its record written; after that this goes on with the summary, with the
/// executable and libraries, and with what `vacuum` removes.
///
/// # Errors
/// What could not be done, and who crashed.
pub fn handle(args: &[OsString]) -> Result<()> {
    process::not_dumpable()?;
    dispatch_named(Crash::from_arguments(args)?)
}

/// Handles a crash whose core comes on stdin. Its error says who crashed.
fn dispatch_named(crash: Crash) -> Result<()> {
    let (pid, signal) = (crash.said.host_pid, signal_name(crash.said.signal));
    let what = format!("process {pid} ({}) died of {signal}", comm(&crash));
    dispatch(crash, &what).context(what)
}

/// `what`: whose crash it was and of what, for messages.
fn dispatch(crash: Crash, what: &str) -> Result<()> {
    if crash.pidfd.is_none() && crash.transport == Transport::Pipe {
        // All of the core will come through the pipe: the kernel fills it while the facts are
        // gathered.
        descriptor::enlarge_pipe(descriptor::stdin(), pages::CHUNK);
    }
    let config = Config::load_or_default();
    // Slots are taken in it, also those of users, whose registries are elsewhere.
    let registry = Registry::open().or_else(|| Registry::create().ok());
    crate::report::count_lines_in(registry.as_ref().and_then(|r| r.forwarded_dir().ok()));
    let mut facts = match Facts::gather(&crash) {
        Ok(facts) => facts,
        Err(e) => {
            sparingly(registry.as_ref(), "unknown", || {
                log::error!("{what}: {e:#}, treating it as the host's")
            });
            // Nothing is known of it, so it gets none of the slots that are the host's own.
            let owner = CrashOwner { uid: crash.said.uid, is_contained: true };
            forward::hand_on(crash, owner, registry, &config);
            return Ok(());
        }
    };
    let origin = origin::identify(&facts, registry.as_ref())?;
    let mut account_dir = None;
    if let Origin::Container { entry, .. } = &origin {
        account_dir = registry.as_ref().and_then(|r| r.limits_dir(&entry.account()).ok());
        crate::report::count_lines_in(account_dir.as_ref().and_then(|dir| dir.try_clone().ok()));
        if crash.said.dump_mode == 2 {
            facts.container_root = Some(ContainerRoot::of(
                &facts.mounts,
                facts.user_ns.as_ref(),
                &facts.status.credentials,
                entry,
            ));
        }
    }
    let (entry, file) = match plan::plan(&crash, &facts, origin) {
        Decision::Forward => {
            let owner = CrashOwner::of(&crash, &facts);
            // The earlier handler starts as the kernel would start it: with nothing of ours open.
            drop(facts);
            forward::hand_on(crash, owner, registry, &config);
            return Ok(());
        }
        Decision::NoCore(entry, cause) => (entry, Err(cause)),
        Decision::Write(entry, file) => (entry, Ok(file)),
    };
    let (crash, facts, entry) = (&crash, &facts, &*entry);
    let (registry, account_dir, config) = (registry.as_ref(), account_dir.as_ref(), &config);
    in_container(&ContainerCrash { crash, facts, entry, registry, account_dir, config }, file)
}

/// `file`: what the plan is, or why there is to be no core.
fn in_container(case: &ContainerCrash<'_>, file: Result<CorePlan, Cause>) -> Result<()> {
    let limits = limits_for(case.config, case.entry);
    let planned = file.and_then(|file| Ok((file, slot_for(case, &limits)?)));
    match planned {
        Ok((file, slot)) => {
            let patience = plan::patience(&limits);
            let file = CorePlan { patience, min_free: limits.min_free, ..file };
            with_core(case, &file, slot)
        }
        Err(cause) => without_core(case, &cause),
    }
}

/// The host's limits, lowered by the container's own. A user's containers have slots in any case.
fn limits_for(config: &Config, entry: &Entry) -> Limits {
    match config.limits.lowered(&entry.limits) {
        limits if entry.user.is_some() => limits.with_slots(),
        limits => limits,
    }
}
