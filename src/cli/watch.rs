//! `watch`: looks every two seconds whether the kernel still hands crashes to this program,
//! and puts the pattern back where another program has overwritten it. The kernel tells
//! nobody of a sysctl's change.

use super::root::need_root;
use crate::config::Config;
use crate::sysctl;
use anyhow::Result;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(2);

/// After so many times in [`WHILE`] the pattern is left alone for as long: two programs that fight
/// for it must not keep the host busy.
const MOST: usize = 5;

/// See [`MOST`].
const WHILE: Duration = Duration::from_secs(60);

/// Restore kernel.core_pattern whenever another program has overwritten it, until stopped.
///
/// It checks every two seconds, since the kernel does not announce a change.
/// oci-coredump.service runs this command; `install` enables the service where systemd runs.
///
/// Example: oci-coredump watch
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Check once, and end.
    #[arg(long)]
    once: bool,
}

/// Looks once, or goes on until it is stopped by a signal.
///
/// # Errors
/// The configuration cannot be read, or with `--once` the pattern not be put back.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    need_root()?;
    match args.once {
        true => sysctl::mend(&Config::load()?).map(|_| ExitCode::SUCCESS),
        false => keep(),
    }
}

/// Goes on until it is stopped by a signal.
pub(super) fn keep() -> ! {
    let mut mended: Vec<Instant> = Vec::new();
    let mut last_error = None;
    loop {
        // Read each time: what is asked for may have changed since this has started.
        match Config::load().and_then(|config| sysctl::mend(&config)) {
            Ok(true) => mended.push(Instant::now()),
            Ok(false) => last_error = None,
            // Said once, not every two seconds.
            Err(e) if last_error.as_ref() != Some(&e.to_string()) => {
                log::error!("kernel.core_pattern cannot be put back, trying again: {e:#}");
                last_error = Some(e.to_string());
            }
            Err(_) => {}
        }
        mended.retain(|at| at.elapsed() < WHILE);
        if mended.len() >= MOST {
            log::error!(
                "another program has set kernel.core_pattern {MOST} times within {} seconds, \
                 leaving it \
                 alone for as long: containers have no cores meanwhile",
                WHILE.as_secs()
            );
            std::thread::sleep(WHILE);
            mended.clear();
        }
        std::thread::sleep(EVERY);
    }
}
