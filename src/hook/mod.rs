//! The OCI hook: `state` -> `request` -> `plan` -> `apply`. Reports in one line, and exits with 0
//! unless the container or the administrator requires the core pattern.

mod apply;
mod bounded_child;
mod change;
mod config_json;
mod context;
mod explain;
#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
mod plan;
mod processes;
mod remarks;
mod request;
mod rootfs;
pub(crate) mod running_container;
mod state;
mod subpath;
mod unsupported_runtime;

use crate::bytes::Limit;
use crate::config::{Config, Mode};
use crate::record::Names;
use crate::registry::{Entry, InitProcess, Registry, RemovedContainer};
use crate::store::Store;
use crate::sys::proc::Proc;
use crate::sys::user::{self, RunBy};
use crate::sys::{budget, file, ns, selinux, text};
use crate::{report, sysctl, users, vacuum};
use anyhow::{Context, Result, bail, ensure};
use context::{HookContext, Targets};
use request::{Asked, Request};
use rootfs::Rootfs;
use state::State;
use std::time::{Duration, Instant};

pub use explain::{Explanation, explain};
pub use state::Stage;

/// Time limit for all waits of a hook together: engines end a hook that exceeds its time-out (10
/// seconds in our configuration), and the container with it.
const BUDGET: Duration = Duration::from_secs(8);

/// An error, and whether the container must not start.
#[derive(Debug)]
pub struct Failure {
    /// Why the request was refused or could not be carried out.
    pub error: anyhow::Error,
    /// Whether the container (`oci-coredump/required`) or the administrator (`strict`)
    /// requires the core pattern.
    pub stop: bool,
}

/// Runs `oci-coredump hook [STAGE]`, with the state on stdin. Without a stage it
/// is derived from the state.
///
/// # Errors
/// The cause. In poststart and poststop it never stops a container.
pub fn run(stage: Option<Stage>) -> Result<(), Failure> {
    budget::begin(BUDGET);
    let config = Config::load_or_default();
    let failure = |error, stop: bool| Failure { error, stop };
    // Another program may have set the kernel's pattern since, and then no running
    // container would get cores.
    if let Err(e) = sysctl::mend(&config) {
        log::warn!("kernel.core_pattern cannot be put back, ignoring: {e:#}");
    }
    let state = read_state()
        .map_err(|e| failure(e, config.strict && stage.is_some_and(Stage::may_fail)))?;
    let stage = stage.unwrap_or_else(|| Stage::of(&state, is_registered(&state)));
    let named = |e: anyhow::Error| e.context(format!("container {}", state.id));
    match stage {
        Stage::CreateRuntime => {
            create(&state, &config).map_err(|f| failure(named(f.error), f.stop))
        }
        Stage::Poststart => poststart(&state).map_err(|e| failure(named(e), false)),
        Stage::Poststop => poststop(&state, &config).map_err(|e| failure(named(e), false)),
    }
}

fn read_state() -> Result<State> {
    State::parse(&file::read_bounded(std::io::stdin().lock(), state::MAX, "the state on stdin")?)
}

/// The entry of the state's container, if it is of the same process: IDs are reused.
fn entry_of(state: &State) -> Option<Entry> {
    let entry = Registry::own()?.get(&state.id)?;
    (state.process().ok()? == entry.init.pid && entry.init_lives()).then_some(entry)
}

fn is_registered(state: &State) -> bool {
    entry_of(state).is_some()
}

fn create(state: &State, config: &Config) -> Result<(), Failure> {
    let soft = |error| Failure { error, stop: config.strict };
    match request::read(state, config).map_err(soft)? {
        Asked::Nothing { .. } => Ok(()),
        // prestart and createRuntime may both be configured, and a runtime may call twice.
        _ if is_registered(state) => Ok(()),
        Asked::Refused { names, required, why } => {
            let why = anyhow::Error::new(why);
            note_refusal(state, names, &why);
            Err(Failure {
                error: why.context("the request is refused"),
                stop: required || config.strict,
            })
        }
        Asked::Request { request, required } => {
            let names = request.names.clone();
            honour(state, config, &request).map_err(|error| {
                note_refusal(state, names, &error);
                Failure {
                    error: error.context(format!(
                        "the request for core pattern {:?} cannot be honoured",
                        request.wishes.pattern.to_string()
                    )),
                    stop: required || config.strict,
                }
            })
        }
    }
}

fn honour(state: &State, config: &Config, request: &Request) -> Result<()> {
    let run_by = user::run_by();
    if let RunBy::User(uid) = run_by {
        check_installed(uid, config)?;
    }
    let pid = state.process()?;
    let process = Proc::open(pid)?;
    if run_by != RunBy::Root && user::effective_uid() != 0 {
        // The runtime was started outside any user namespace by a user: what may be done to the
        // container is done from within its own.
        ns::enter(process.namespace("user")?, ns::NamespaceKind::User)?;
        ns::copy_mounts()?;
    }
    let registry = Registry::create()?;
    // Engines choose IDs, and two engines may choose the same one. The entry belongs to the first.
    if let Some(other) = registry.get(&state.id).filter(|e| e.is_in_force()) {
        ensure!(
            other.init.pid == pid,
            "another container with this ID runs already (process {}), and keeps it",
            other.init.pid
        );
    }
    let plan = plan::plan(request, config);
    for warning in &plan.warnings {
        log::warn!("container {}: {warning}", state.id);
    }
    log::debug!("container {}: {plan}", state.id);
    let mut config = config.clone();
    users::adapt(&mut config)?;
    let find = || {
        let mut rootfs =
            Rootfs::find(&Proc::open(pid)?, pid, request.bundle.rootfs(&state.bundle))?;
        rootfs.label = request.bundle.mount_label().filter(|_| selinux::is_on()).map(str::to_owned);
        Ok(rootfs)
    };
    let hook = HookContext {
        registry: &registry,
        config: &config,
        run_by,
        id: &state.id,
        init: processes::init_process(pid, &process)?,
        process,
        targets: Targets::Init,
    };
    apply::apply(&hook, request, &plan, find).map(drop)
}

/// A user's hook cannot set the kernel's pattern; root must have done that.
fn check_installed(uid: u32, config: &Config) -> Result<()> {
    ensure!(
        config.mode == Mode::Dispatch,
        "mode = \"kernel\" is for root's containers, this one is user {uid}'s"
    );
    let now = sysctl::core_pattern()?;
    let program = std::env::current_exe().unwrap_or_default();
    ensure!(
        sysctl::is_ours(&now),
        "kernel.core_pattern is {now:?}, and only root may change it: for the containers of user \
         {uid} the administrator must run `{} install` once",
        program.display()
    );
    Ok(())
}

/// Records the refusal for `doctor`, `info` and `list`, and so that a call without a stage is taken
/// for poststart. An entry of a container that lives and was not
/// refused is kept.
fn note_refusal(state: &State, names: Names, why: &anyhow::Error) {
    let Ok(registry) = Registry::create() else { return };
    if registry.get(&state.id).is_some_and(|e| e.is_in_force()) {
        return;
    }
    let Ok(_lock) = registry.lock() else { return };
    let init = || -> Result<InitProcess> {
        let pid = state.process()?;
        Ok(InitProcess {
            pid,
            start_time: Proc::open(pid)?.start_time()?,
            ..InitProcess::default()
        })
    };
    apply::refuse(
        &registry,
        Entry {
            names,
            init: init().unwrap_or_default(),
            refused: Some(text::head(&format!("{why:#}"), 1024)),
            ..Entry::default()
        },
    );
}

/// Sets the limit again: runc sets the RLIMIT_CORE of config.json after the
/// createRuntime hooks, replacing ours.
fn poststart(state: &State) -> Result<()> {
    let Some(entry) = entry_of(state) else { return Ok(()) };
    let Some(soft) = entry.soft_limit else { return Ok(()) };
    let process = Proc::open(entry.init.pid)?;
    let old = process.core_limit()?;
    if Limit::from(old.soft) != soft {
        processes::set_core_limit(entry.init.pid, &process, old, soft, false)?;
    }
    Ok(())
}

/// Whether the container of an entry has ended, which may take a moment. If not, another
/// container of the same ID has.
fn has_ended(entry: &Entry) -> bool {
    let until = Instant::now() + budget::left(Duration::from_secs(1));
    while entry.init_lives() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10)); // not a child of ours
    }
    true
}

/// The container is gone: removes its registration; its cores stay.
fn poststop(state: &State, config: &Config) -> Result<()> {
    let Some(registry) = Registry::own() else { return Ok(()) };
    let known = registry.get(&state.id).filter(has_ended);
    let due = registry.sweep_is_due();
    if known.is_none() && !due {
        return Ok(());
    }
    let lock = registry.lock()?;
    let (mut gone, mut failed) = (Vec::new(), Vec::new());
    if let Some(entry) = known {
        registry.remove(&state.id)?;
        registry.remove_views(&state.id)?;
        gone.push(RemovedContainer { id: state.id.clone(), store: entry.store });
    }
    if due {
        gone.extend(registry.sweep()?);
    }
    let is_root = user::run_by() == RunBy::Root;
    if is_root && config.mode == Mode::Kernel {
        let store = Store::open(config)?;
        failed.extend(gone.iter().filter_map(|RemovedContainer { id, .. }| {
            let released = sysctl::release(&store, id);
            released.with_context(|| format!("kernel.core_pattern of container {id}")).err()
        }));
    }
    drop(lock);
    if due && let Err(e) = registry.forget_old_accounts() {
        log::warn!("old accounts of limits cannot be removed, ignoring: {e:#}");
    }
    if is_root {
        let store = Store::open(config)?;
        for RemovedContainer { id, .. } in gone {
            if let Err(e) = store.forget_empty(&id) {
                log::warn!(
                    "the dump directory of container {id} cannot be removed, ignoring: {e:#}"
                );
            }
        }
        failed.extend(vacuum::now_and_then(config).err());
        return report::all_or_first(failed);
    }
    // podman, which runs this stage itself, does not pass the user's home directory;
    // the entries have the store.
    let forget = |RemovedContainer { id, store }| match store
        .map(|s| Store::open_existing(&s))
        .transpose()?
    {
        Some(Some(store)) => store.forget_empty(&id).map(drop),
        _ => Ok(()),
    };
    failed.extend(gone.into_iter().filter_map(|container| forget(container).err()));
    report::all_or_first(failed)
}

/// Parses the stage on the command line.
///
/// # Errors
/// An unknown word, with the list of the known ones.
pub fn stage(word: Option<&str>) -> Result<Option<Stage>> {
    match word {
        None => Ok(None),
        Some(word) => match Stage::named(word) {
            Some(stage) => Ok(Some(stage)),
            None => bail!(
                "hook stage {word:?}: expected createRuntime, prestart, poststart, poststop, or \
                 none"
            ),
        },
    }
}
