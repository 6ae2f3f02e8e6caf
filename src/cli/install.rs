//! `install`: sets the kernel's pattern, and configures engines.

use super::root::need_root;
use super::service;
use crate::config::{Config, KernelInterface, Mode, RUN_DIR};
use crate::engine::{self, Engine};
use crate::registry::Registry;
use crate::store::Store;
use crate::sysctl::{self, Saved};
use anyhow::{Result, ensure};
use std::io::Write;
use std::process::ExitCode;

/// Make the kernel hand crashes to this program now, not only when the first container asks.
///
/// The previous kernel.core_pattern is saved, and its handler keeps getting all crashes
/// that are no registered container's. Where systemd runs,
/// /etc/sysctl.d/61-oci-coredump.conf sets the pattern at every boot, and
/// oci-coredump.service, if its unit is installed, puts it back when another program
/// overwrites it. Run this as root, from the path at which the program will stay.
///
/// With an ENGINE: configure that engine to use this program, and do nothing else. podman and
/// CRI-O need it only if they do not read the standard hooks.d directory.
///
/// Example: oci-coredump install docker --dry-run
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configure this engine.
    engine: Option<Engine>,
    #[command(flatten)]
    options: engine::Options,
    /// Configure every engine that is found on this host.
    #[arg(long, conflicts_with = "engine")]
    detect: bool,
    /// Print what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Configures the engine that is named, every engine, or the kernel.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    match args.engine {
        Some(engine) => install_engine(out, engine, &args.options, args.dry_run)?,
        None if args.detect => install_detected(out, &args.options, args.dry_run)?,
        None => install(out, args.dry_run)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the kernel hand crashes to this program now.
fn install(out: &mut impl Write, dry_run: bool) -> Result<()> {
    let config = Config::load()?;
    let helper = sysctl::helper()?;
    let pattern = sysctl::wanted(&config, &helper)?;
    sysctl::check_helper(&helper)?;
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
    need_root()?;
    let registry = Registry::create()?;
    let lock = registry.lock()?;
    let store = Store::open(&config)?;
    let changed = sysctl::take_over(&store, &helper, &pattern)?;
    writeln!(
        out,
        "kernel.core_pattern = {pattern:?}{}",
        if changed { "" } else { " (it was already)" }
    )?;
    let earlier = Saved::load_or_default(&store).core_pattern;
    writeln!(out, "crashes outside of registered containers still go to {earlier:?}")?;
    sysctl::write_drop_in(sysctl::Until::Removed, &sysctl::dispatch_pattern(&helper)?);
    // A service that starts takes the same lock, to lead crashes to itself.
    drop(lock);
    service::enable(&config);
    if config.kernel_interface != KernelInterface::Pipe {
        let way = match sysctl::is_socket()? {
            true => "crashes come through the coredump socket",
            false => {
                "crashes come through the pipe until `oci-coredump serve` runs; `oci-coredump \
                 doctor` says more"
            }
        };
        writeln!(out, "{way}")?;
    }
    Ok(())
}

/// Configures an engine to use this program.
pub(super) fn install_engine(
    out: &mut impl Write,
    engine: Engine,
    options: &engine::Options,
    dry_run: bool,
) -> Result<()> {
    if !dry_run {
        need_root()?;
    }
    sysctl::check_helper(&sysctl::helper()?)?;
    engine::install(out, engine, options, dry_run)
}

/// Configures every engine that is found. A failure with one does not prevent the others.
fn install_detected(out: &mut impl Write, options: &engine::Options, dry_run: bool) -> Result<()> {
    let engines = engine::detect::detect();
    ensure!(!engines.is_empty(), "no docker, containerd, podman or CRI-O is on this host");
    let mut failed = Vec::new();
    for engine in engines {
        if let Err(e) = install_engine(out, engine, options, dry_run) {
            log::error!("{e:#}");
            failed.push(engine.name());
        }
    }
    ensure!(failed.is_empty(), "could not configure {}", failed.join(", "));
    Ok(())
}
