//! `uninstall`: restores the kernel's settings and the configuration of engines.

use super::private;
use super::root::need_root;
use super::service;
use crate::config::{Config, RUN_DIR};
use crate::engine::{self, Engine};
use crate::registry::Registry;
use crate::store::Store;
use crate::sys::user::{self, RunBy};
use crate::sysctl::{self, Saved};
use crate::users;
use anyhow::{Context, Result};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Restore the kernel's settings, and remove what this program keeps in /run.
///
/// kernel.core_pattern, core_uses_pid and core_pipe_limit get their previous values back,
/// unless another program has changed them since. Cores and records stay, unless --purge is
/// given. The file in sysctl.d is removed, and the service is stopped and disabled. The
/// configuration of every engine that uses this program is restored first.
///
/// With an ENGINE: only restore that engine's configuration.
///
/// Example: oci-coredump uninstall --purge
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Restore this engine's configuration.
    engine: Option<Engine>,
    /// Print what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also remove the cores and records in the store.
    #[arg(long, conflicts_with = "engine")]
    purge: bool,
}

const NOT_TAKEN_OVER: &str = "kernel.core_pattern was not taken over";

/// Restores the engine that is named, or everything.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    match args.engine {
        Some(engine) => uninstall_engine(out, engine, args.dry_run)?,
        None => all(out, args.dry_run, args.purge)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn uninstall_engine(out: &mut impl Write, engine: Engine, dry_run: bool) -> Result<()> {
    if !dry_run {
        need_root()?;
    }
    engine::uninstall(out, engine, dry_run)
}

pub(super) fn all(out: &mut impl Write, dry_run: bool, purge: bool) -> Result<()> {
    // An unreadable configuration must not prevent this.
    let config = Config::load().unwrap_or_else(|e| {
        log::warn!("{e:#}, using the defaults");
        Config::default()
    });
    if let RunBy::User(uid) = user::run_by() {
        return uninstall_of_user(out, uid, dry_run, purge);
    }
    if !dry_run {
        need_root()?;
    }
    let engines = engine::uninstall_all(out, dry_run);
    if dry_run {
        announce(out, &config, purge)?;
        return engines;
    }
    // The services first, or they would restore our pattern.
    service::disable();
    private::sweep();
    private::remove_locks();
    // The previous values are known even without a store.
    let had_store = config.store.exists();
    restore_pattern(out, &config)?;
    remove(out, Path::new(RUN_DIR))?;
    // The store has the log by which an engine that failed can be restored later.
    if purge && engines.is_err() {
        writeln!(
            out,
            "{} stays: it has what the engines' configuration was before; `uninstall --purge` \
             again when they can be restored",
            config.store.display()
        )?;
    }
    match (purge && engines.is_ok(), had_store) {
        (true, true) => purge_store(out, &config.store)?,
        // Made just now, to look into.
        (true, false) => Store::purge(&config.store).map(drop)?,
        (false, _) => tidy(out, &config.store)?,
    }
    engines
}

/// What would be done on the host, beside the engines.
fn announce(out: &mut impl Write, config: &Config, purge: bool) -> Result<()> {
    match Store::peek(config).and_then(|s| Saved::load(&s).unwrap_or(None)) {
        Some(s) => writeln!(
            out,
            "would write kernel.core_pattern = {:?}, core_uses_pid = {}, core_pipe_limit = {}",
            s.core_pattern, s.core_uses_pid, s.core_pipe_limit
        )?,
        None => writeln!(out, "{NOT_TAKEN_OVER}")?,
    }
    let store = if purge { format!(" and {}", config.store.display()) } else { String::new() };
    writeln!(out, "would remove {RUN_DIR}{store}")?;
    Ok(())
}

/// Gives the pattern back to whoever had it before, and says which containers lose theirs.
fn restore_pattern(out: &mut impl Write, config: &Config) -> Result<()> {
    let registry = Registry::own();
    let _lock = registry.as_ref().map(Registry::lock).transpose()?;
    let store = Store::peek(config).map_or_else(|| Store::open(config), Ok).or_else(|e| {
        log::warn!("{e:#}, using the default");
        Store::open(&Config::default())
    })?;
    let said = sysctl::restore(&store)?;
    writeln!(out, "{}", said.as_deref().unwrap_or(NOT_TAKEN_OVER))?;
    let in_force = |r: &Registry| {
        let ids = r.ids().unwrap_or_default();
        ids.iter().filter(|id| r.get(id).is_some_and(|e| e.is_in_force())).count()
    };
    let live = registry.as_ref().map_or(0, in_force);
    if live > 0 {
        writeln!(
            out,
            "{live} running container(s) lose their own core_pattern until they are started anew \
             with the hook in place"
        )?;
    }
    Ok(())
}

fn purge_store(out: &mut impl Write, store: &Path) -> Result<()> {
    if !store.exists() {
        return Ok(());
    }
    match Store::purge(store)? {
        false => writeln!(out, "removed {}", store.display())?,
        true => writeln!(
            out,
            "removed what is ours of {}: it stays, as it is a mount point or has other files",
            store.display()
        )?,
    }
    Ok(())
}

/// Removes what belongs to a user: registrations, records and cores. The
/// kernel's settings are root's.
fn uninstall_of_user(out: &mut impl Write, uid: u32, dry_run: bool, purge: bool) -> Result<()> {
    let store = users::own_store(uid)?;
    if purge && dry_run {
        writeln!(out, "would remove what is ours of {}", store.display())?;
    } else if purge {
        purge_store(out, &store)?;
    }
    let paths: Vec<PathBuf> = users::run_dir(uid).into_iter().collect();
    for path in paths {
        if dry_run {
            writeln!(out, "would remove {}", path.display())?;
        } else {
            remove(out, &path)?;
        }
    }
    if !dry_run {
        users::remove_made(uid);
    }
    if !dry_run && !purge {
        tidy(out, &store)?;
    }
    writeln!(out, "this is what user {uid} has of it; what the host has only root removes")?;
    Ok(())
}

/// Removes the empty parts of a store, and prints what stays.
fn tidy(out: &mut impl Write, store: &Path) -> Result<()> {
    if let Some(left) = Store::open_existing(store)?.map(|s| s.tidy()).transpose()?.flatten() {
        writeln!(out, "{left} stay in {} (--purge removes them)", store.display())?;
    }
    Ok(())
}

fn remove(out: &mut impl Write, path: &Path) -> Result<()> {
    const ATTEMPTS: usize = 10;
    // A crash that is still being worked on may make a file there meanwhile.
    let is_refilled = |removed: &std::io::Result<()>| {
        removed.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::DirectoryNotEmpty)
    };
    let mut attempts = (0..ATTEMPTS).map(|_| std::fs::remove_dir_all(path));
    let removed = attempts.find(|removed| !is_refilled(removed)).with_context(|| {
        format!("remove {}: crashes put files into it; end the containers first", path.display())
    })?;
    match removed {
        Ok(()) => writeln!(out, "removed {}", path.display())?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
            writeln!(out, "{} stays: a mount point is there", path.display())?;
        }
        Err(e) => return Err(e).with_context(|| format!("remove {}", path.display())),
    }
    Ok(())
}
