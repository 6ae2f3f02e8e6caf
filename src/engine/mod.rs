//! The ways into the engines: what makes each of them call the hook, and the
//! limit that its `exec` gives.
//!
//! ```text
//! install ENGINE:    docker, containerd, podman, crio  --Plan-->  change  --> host, ledger
//!                    (text in, text out)                          undone by uninstall ENGINE
//! install --detect:  detect: which of them are installed
//! at run time:       runtime    Docker, ctr: an OCI runtime that edits the bundle and then
//!                               executes the real one
//!                    nri        containerd, CRI-O: a plugin that adjusts new containers
//!                    precreate  podman: edits the configuration before the runtime sees it
//! ```

pub mod change;
pub mod containerd;
pub mod crio;
pub mod detect;
pub mod docker;
mod hooks_dir;
pub mod look;
pub mod nri;
pub mod podman;
pub mod precreate;
pub mod runtime;
pub mod spec;

use crate::config::Config;
use anyhow::{Context, Result};
use change::{Change, Ledger, Plan};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The name by which this program is an OCI runtime.
pub const RUNTIME_NAME: &str = "oci-coredump-runtime";

/// An engine that can be told of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// By its daemon.json: a runtime that wraps the real one.
    Docker,
    /// By an NRI plugin (containerd 2, and 1.7 where NRI is switched on), or by the base
    /// specification of its CRI plugin.
    Containerd,
    /// By hooks.d.
    Podman,
    /// By hooks.d.
    Crio,
}

impl Engine {
    /// All of them.
    pub const ALL: [Engine; 4] = [Engine::Docker, Engine::Containerd, Engine::Podman, Engine::Crio];

    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Docker => "docker",
            Engine::Containerd => "containerd",
            Engine::Podman => "podman",
            Engine::Crio => "crio",
        }
    }

    /// The engine's own configuration, where nothing else is said.
    fn config(self) -> &'static Path {
        Path::new(match self {
            Engine::Docker => "/etc/docker/daemon.json",
            Engine::Containerd => "/etc/containerd/config.toml",
            Engine::Podman => "/etc/containers/containers.conf",
            Engine::Crio => "/etc/crio/crio.conf",
        })
    }

    /// Takes only our own part out of a file which somebody else has changed since. `before`: what
    /// it was before us, if it was.
    fn without_us(self, text: &str, before: Option<&str>) -> Result<Option<String>> {
        match self {
            Engine::Docker => docker::remove(text).map(Some),
            Engine::Containerd => containerd::remove(text, before).map(Some),
            // These are whole files of our own.
            Engine::Podman | Engine::Crio => Ok(None),
        }
    }
}

/// How an engine is to be told.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// The engine's configuration file, where it is not the usual one.
    #[arg(long, value_name = "FILE", requires = "engine")]
    pub config: Option<PathBuf>,
    /// containerd: by which way; else what this containerd can do.
    #[arg(long, requires = "engine")]
    pub way: Option<containerd::Way>,
    /// docker: only for containers that are started with `--runtime oci-coredump`.
    #[arg(long, requires = "engine")]
    pub no_default: bool,
    /// podman: set RLIMIT_CORE in the configuration too, by a precreate hook. CRI-O
    /// does not read its directory.
    #[arg(long, requires = "engine")]
    pub precreate: bool,
}

/// This program, where engines will find it.
#[derive(Clone, Debug)]
pub struct Program {
    /// The binary.
    pub path: PathBuf,
}

impl Program {
    /// This very one.
    pub fn own() -> Result<Self> {
        Ok(Program { path: std::env::current_exe().context("readlink(/proc/self/exe)")? })
    }

    /// The link by which it is a runtime.
    pub fn runtime(&self) -> PathBuf {
        self.path.with_file_name(RUNTIME_NAME)
    }

    /// Its path as text: configurations are text.
    pub fn text(&self) -> Result<&str> {
        self.path.to_str().context("the path of this program is not UTF-8")
    }
}

fn plan(engine: Engine, config: &Path, options: &Options, program: &Program) -> Result<Plan> {
    match engine {
        Engine::Docker => docker::plan(config, options, program),
        Engine::Containerd => containerd::plan(config, options, program),
        Engine::Podman => podman::plan(config, options, program),
        Engine::Crio => crio::plan(config, program),
    }
}

/// Whether installing would give the engine an NRI plugin to start by itself.
///
/// # Errors
/// Its configuration cannot be read or understood.
pub fn takes_plugin(engine: Engine, options: &Options) -> Result<bool> {
    let config = options.config.as_deref().unwrap_or(engine.config());
    let plan = plan(engine, config, options, &Program::own()?)
        .with_context(|| format!("install {}", engine.name()))?;
    Ok(engine == Engine::Containerd
        && plan.changes.iter().any(|c| matches!(c, Change::Link { .. })))
}

/// Tells an engine of this program.
///
/// # Errors
/// What cannot be read, understood or written; nothing is left half done.
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
        let ledger = Ledger::of(&Config::load()?, engine.name())?;
        ledger.apply(&plan.changes).with_context(context)?;
        new.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    if new.is_empty() {
        writeln!(out, "{}: everything is in place already", engine.name())?;
    }
    plan.notes.iter().try_for_each(|n| writeln!(out, "note: {n}"))?;
    Ok(())
}

/// Makes an engine forget this program: every file as it was, or, where somebody else has changed
/// it since, without our part.
///
/// # Errors
/// What cannot be put back; the rest is, and what is left can be tried again.
pub fn uninstall(out: &mut impl Write, engine: Engine, dry_run: bool) -> Result<()> {
    let context = || format!("uninstall {}", engine.name());
    let Some(ledger) = Ledger::peek(&config_or_default(), engine.name())? else {
        writeln!(out, "{}: nothing was installed", engine.name())?;
        return Ok(());
    };
    let lines = ledger
        .undo(dry_run, |text, before| engine.without_us(text, before))
        .with_context(context)?;
    lines.iter().try_for_each(|l| writeln!(out, "{l}"))?;
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
    Ok(())
}

/// Makes every engine forget this program: its configuration must not name a program that is gone.
pub fn uninstall_all(out: &mut impl Write, dry_run: bool) -> Result<()> {
    for engine in Engine::ALL {
        if Ledger::peek(&config_or_default(), engine.name())?.is_some() {
            uninstall(out, engine, dry_run)?;
        }
    }
    Ok(())
}

/// The engines that were told of this program, and what is no longer as it was left then.
pub fn told(config: &Config) -> Vec<(Engine, Result<Vec<PathBuf>>)> {
    let state = |engine: Engine| {
        Ledger::peek(config, engine.name())
            .and_then(|ledger| ledger.map(|l| l.disturbed()).transpose())
            .transpose()
    };
    Engine::ALL.into_iter().filter_map(|engine| Some((engine, state(engine)?))).collect()
}

/// A configuration that cannot be read must not keep the host from being put back.
fn config_or_default() -> Config {
    Config::load().unwrap_or_default()
}

/// The text of a file; `None` when it is not there.
fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
    }
}
