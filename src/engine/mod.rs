//! Configures the engines so that each of them starts the hook and gives its
//! `exec` processes the limit.
//!
//! ```text
//! install ENGINE:    docker, containerd, podman, crio  --EngineChanges-->  host, log
//!                    (text in, text out)                          undone by uninstall ENGINE
//! install --detect:  detect: which of them are installed
//! at run time:       runtime    Docker, ctr: an OCI runtime that edits the bundle and then
//!                               executes the real one
//!                    nri        containerd, CRI-O: a plugin that adjusts new containers
//! ```

#[cfg(test)]
mod cases;
pub(crate) mod change;
mod change_log;
pub(crate) mod containerd;
pub(crate) mod crio;
pub(crate) mod detect;
pub(crate) mod docker;
mod hooks_dir;
pub(crate) mod inspect;
pub mod nri;
mod options;
pub(crate) mod podman;
pub mod runtime;
pub(crate) mod spec;

pub use options::{Engine, Options, Program, RUNTIME_NAME};

use crate::config::Config;
use crate::report;
use anyhow::{Context, Result};
use change::{Change, EngineChanges};
use change_log::ChangeLog;
use std::io::Write;
use std::path::{Path, PathBuf};

fn plan(
    engine: Engine,
    config: &Path,
    options: &Options,
    program: &Program,
) -> Result<EngineChanges> {
    match engine {
        Engine::Docker => docker::plan(config, options, program),
        Engine::Containerd => containerd::plan(config, options, program),
        Engine::Podman => podman::plan(config, program),
        Engine::Crio => crio::plan(config, program),
    }
}

/// Whether installing would give the engine an NRI plugin that the engine starts itself.
///
/// # Errors
/// The engine's configuration cannot be read or understood.
pub fn takes_plugin(engine: Engine, options: &Options) -> Result<bool> {
    let config = options.config.as_deref().unwrap_or(engine.config());
    let plan = plan(engine, config, options, &Program::own()?)
        .with_context(|| format!("install {}", engine.name()))?;
    Ok(engine == Engine::Containerd
        && plan.changes.iter().any(|c| matches!(c, Change::Link { .. })))
}

/// Configures an engine to use this program.
///
/// # Errors
/// What cannot be read, understood or written. No partial change is left.
pub fn install(
    out: &mut impl Write,
    engine: Engine,
    options: &Options,
    dry_run: bool,
) -> Result<()> {
    let context = || format!("install {}", engine.name());
    let config = options.config.as_deref().unwrap_or(engine.config());
    let program = Program::own()?;
    let plan = plan(engine, config, options, &program).with_context(context)?;
    let new: Vec<String> =
        plan.changes.iter().filter(|c| !c.is_done()).map(Change::summary).collect();
    if dry_run {
        write!(out, "{plan}")?;
    } else {
        let log = ChangeLog::of(&Config::load()?, engine.name())?;
        log.apply(&plan.changes).with_context(context)?;
        new.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    if new.is_empty() {
        writeln!(out, "{}: everything is in place already", engine.name())?;
    }
    plan.notes.iter().try_for_each(|n| writeln!(out, "note: {n}"))?;
    Ok(())
}

/// Restores an engine's configuration: every file as it was, or, if another program has changed
/// it since, without our part.
///
/// # Errors
/// What cannot be restored. Everything else is, and the rest can be tried again.
pub fn uninstall(out: &mut impl Write, engine: Engine, dry_run: bool) -> Result<()> {
    let context = || format!("uninstall {}", engine.name());
    let Some(log) = ChangeLog::peek(&config_or_default(), engine.name())? else {
        writeln!(out, "{}: nothing was installed", engine.name())?;
        return Ok(());
    };
    let undone =
        log.undo(dry_run, |text, before| without_us(engine, text, before)).with_context(context)?;
    undone.lines.iter().try_for_each(|l| writeln!(out, "{l}"))?;
    match engine {
        Engine::Docker => writeln!(
            out,
            "note: `systemctl restart docker` before the program is removed (a reload keeps a \
             default runtime that is no longer configured); \
             containers that were made meanwhile name the runtime oci-coredump: make them anew"
        )?,
        Engine::Containerd => writeln!(
            out,
            "note: `systemctl restart containerd` before the program is removed; running \
             containers go on"
        )?,
        Engine::Podman | Engine::Crio => {}
    }
    report::all_or_first(undone.failed).with_context(context)
}

/// Removes only our part of a file that another program has changed since. `before`: its text
/// before our change, if it existed.
fn without_us(engine: Engine, text: &str, before: Option<&str>) -> Result<Option<String>> {
    match engine {
        Engine::Docker => docker::remove(text).map(Some),
        Engine::Containerd => containerd::remove(text, before).map(Some),
        // These files are entirely ours.
        Engine::Podman | Engine::Crio => Ok(None),
    }
}

/// Restores the configuration of every engine, so that none names a program that is gone. A failure
/// with one does not prevent the others.
///
/// # Errors
/// The first thing that cannot be restored; the others are logged.
pub fn uninstall_all(out: &mut impl Write, dry_run: bool) -> Result<()> {
    let mut failed = Vec::new();
    for engine in Engine::ALL {
        let done = match ChangeLog::peek(&config_or_default(), engine.name()) {
            Ok(None) => continue,
            Ok(Some(_)) => uninstall(out, engine, dry_run),
            Err(e) => Err(e),
        };
        failed.extend(done.err());
    }
    report::all_or_first(failed)
}

/// The engines that were configured, with the paths that are no longer as they were left.
pub fn told(config: &Config) -> Vec<(Engine, Result<Vec<PathBuf>>)> {
    let state = |engine: Engine| {
        ChangeLog::peek(config, engine.name())
            .and_then(|log| log.map(|l| l.disturbed()).transpose())
            .transpose()
    };
    Engine::ALL.into_iter().filter_map(|engine| Some((engine, state(engine)?))).collect()
}

/// The configuration, or the defaults if it cannot be read, which must not prevent a restoration.
fn config_or_default() -> Config {
    Config::load().unwrap_or_default()
}
