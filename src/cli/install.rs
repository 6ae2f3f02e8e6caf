//! `install` and `uninstall`: set the kernel's pattern and configure engines, and undo that.

use crate::config::{Config, Mode, RUN_DIR};
use crate::engine::{self, Engine};
use crate::registry::Registry;
use crate::store::Store;

use crate::sys::user::{self, Who};
use crate::sysctl::{self, Saved};
use crate::users;
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The path under which the kernel will find this program, with links resolved.
fn helper() -> Result<PathBuf> {
    std::env::current_exe().context("readlink(/proc/self/exe)")
}

pub(super) fn need_root(verb: &str) -> Result<()> {
    ensure!(
        user::is_host_root(),
        "{verb}: only root of the host may do it; run it with sudo, outside of any container"
    );
    Ok(())
}

/// Makes the kernel hand crashes to this program now.
pub(super) fn install(out: &mut impl Write, dry_run: bool) -> Result<()> {
    let config = Config::load()?;
    let helper = helper()?;
    let pattern = sysctl::dispatch_pattern(&helper).context("install")?;
    sysctl::check_helper(&helper).context("install")?;
    let now = sysctl::core_pattern()?;
    if config.mode == Mode::Kernel {
        writeln!(
            out,
            "mode = \"kernel\": each container's own pattern goes into the kernel when it starts; \
             nothing to do now"
        )?;
        return Ok(());
    }
    if dry_run {
        writeln!(out, "would make {RUN_DIR} and {}", config.store.display())?;
        writeln!(out, "would save kernel.core_pattern = {now:?} and write {pattern:?}")?;
        return Ok(());
    }
    need_root("install")?;
    let registry = Registry::create()?;
    let _lock = registry.lock()?;
    let store = Store::open(&config)?;
    let changed = sysctl::take_over(&store, &helper).context("install")?;
    writeln!(
        out,
        "kernel.core_pattern = {pattern:?}{}",
        if changed { "" } else { " (it was already)" }
    )?;
    let earlier = Saved::load_or_default(&store).core_pattern;
    writeln!(out, "crashes outside of registered containers still go to {earlier:?}")?;
    sysctl::write_drop_in(sysctl::Until::Removed, &pattern);
    systemctl(&["enable", "--now"]);
    Ok(())
}

/// The systemd unit that restores the pattern.
const UNIT: &str = "oci-coredump.service";

/// Calls systemctl for our unit, if both exist. A failure is only logged: the
/// host works without the unit.
fn systemctl(what: &[&str]) {
    let places =
        ["/usr/lib/systemd/system", "/etc/systemd/system", "/usr/local/lib/systemd/system"];
    let is_there = |dir: &&str| Path::new(dir).join(UNIT).exists();
    if !Path::new("/run/systemd/system").is_dir() || !places.iter().any(is_there) {
        return;
    }
    let done = std::process::Command::new("/usr/bin/systemctl").args(what).arg(UNIT).output();
    match done {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            log::warn!("systemctl {} {UNIT}, ignoring: {said}", what.join(" "));
        }
        Err(e) => log::warn!("cannot start systemctl, ignoring: {e}"),
    }
}

/// Configures an engine to use this program.
pub(super) fn install_engine(
    out: &mut impl Write,
    engine: Engine,
    options: &engine::Options,
    dry_run: bool,
) -> Result<()> {
    if !dry_run {
        need_root("install")?;
    }
    sysctl::check_helper(&helper()?).context("install")?;
    engine::install(out, engine, options, dry_run)
}

/// Configures every engine that is found. A failure with one does not prevent the others.
pub(super) fn install_detected(
    out: &mut impl Write,
    options: &engine::Options,
    dry_run: bool,
) -> Result<()> {
    let engines = engine::detect::detect();
    ensure!(
        !engines.is_empty(),
        "install --detect: no docker, containerd, podman or CRI-O is on this host"
    );
    let mut failed = None;
    for engine in engines {
        if let Err(e) = install_engine(out, engine, options, dry_run) {
            log::error!("{e:#}");
            failed = Some(engine);
        }
    }
    failed.map_or(Ok(()), |engine| {
        Err(anyhow::anyhow!("install --detect: {} was not told", engine.name()))
    })
}

/// Restores an engine's configuration.
pub(super) fn uninstall_engine(out: &mut impl Write, engine: Engine, dry_run: bool) -> Result<()> {
    if !dry_run {
        need_root("uninstall")?;
    }
    engine::uninstall(out, engine, dry_run)
}

/// Undoes everything.
pub(super) fn uninstall(out: &mut impl Write, dry_run: bool, purge: bool) -> Result<()> {
    // An unreadable configuration must not prevent this.
    let config = Config::load().unwrap_or_else(|e| {
        log::warn!("{e:#}, using the defaults");
        Config::default()
    });
    if let Who::User(uid) = user::who() {
        return uninstall_of_user(out, uid, dry_run, purge);
    }
    if !dry_run {
        need_root("uninstall")?;
    }
    engine::uninstall_all(out, dry_run)?;
    if dry_run {
        let saved = Store::peek(&config).and_then(|s| Saved::load(&s).unwrap_or(None));
        match saved {
            Some(s) => writeln!(
                out,
                "would write kernel.core_pattern = {:?}, core_uses_pid = {}, core_pipe_limit = {}",
                s.core_pattern, s.core_uses_pid, s.core_pipe_limit
            )?,
            None => writeln!(out, "kernel.core_pattern was not taken over")?,
        }
        writeln!(
            out,
            "would remove {RUN_DIR}{}",
            if purge { format!(" and {}", config.store.display()) } else { String::new() }
        )?;
        return Ok(());
    }
    // The service first, or it would restore our pattern.
    systemctl(&["disable", "--now"]);
    super::private::sweep();
    super::private::remove_locks();
    let registry = Registry::own();
    let _lock = registry.as_ref().map(Registry::lock).transpose()?;
    // The previous values are known even without a store.
    let had_store = config.store.exists();
    let store = Store::peek(&config).map_or_else(|| Store::open(&config), Ok);
    let store = store.or_else(|e| {
        log::warn!("{e:#}, using the default");
        Store::open(&Config::default())
    })?;
    match sysctl::restore(&store).context("uninstall")? {
        Some(said) => writeln!(out, "{said}")?,
        None => writeln!(out, "kernel.core_pattern was not taken over")?,
    }
    drop(store);
    let live = registry.as_ref().map_or(0, |r| {
        r.ids().map_or(0, |ids| {
            ids.iter()
                .filter(|i| r.get(i).is_some_and(|e| e.refused.is_none() && e.init_lives()))
                .count()
        })
    });
    if live > 0 {
        writeln!(
            out,
            "{live} running container(s) lose their own core_pattern until they are started anew \
             with the hook in place"
        )?;
    }
    remove(out, Path::new(RUN_DIR))?;
    match (purge, had_store) {
        (true, true) => purge_store(out, &config.store),
        // Made just now, to look into.
        (true, false) => Store::purge(&config.store).map(drop),
        (false, _) => tidy(out, &config.store),
    }
}

fn purge_store(out: &mut impl Write, store: &Path) -> Result<()> {
    if !store.exists() {
        return Ok(());
    }
    match Store::purge(store)? {
        false => writeln!(out, "removed {}", store.display())?,
        true => {
            writeln!(out, "removed what is ours of {}: other files are there", store.display())?
        }
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
    if let Some(left) = Store::look(store)?.map(|s| s.tidy()).transpose()?.flatten() {
        writeln!(out, "{left} stay in {} (--purge removes them)", store.display())?;
    }
    Ok(())
}

fn remove(out: &mut impl Write, path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => writeln!(out, "removed {}", path.display())?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("remove {}", path.display())),
    }
    Ok(())
}
