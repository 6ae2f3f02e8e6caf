//! `rm`: removes the matching crashes, each with its core if that is in the store.

use super::query;
use super::selection::{MATCH, Which, no_match};
use super::usage::WrongUsage;
use crate::report::one_line;
use crate::vacuum::{Item, Rules};
use anyhow::{Result, bail, ensure};
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

/// Remove crashes: their records, and their cores if these are in the store.
///
/// A core on a volume or in a container's own layer does not belong to this program and stays;
/// its record is removed. A file that has the core's name but is a different file stays too.
///
/// Example: oci-coredump rm shop --until yesterday
#[derive(Debug, clap::Args)]
#[command(after_help = MATCH)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// Remove all crashes.
    #[arg(long)]
    all: bool,
    /// Do not ask for confirmation.
    #[arg(short, long, visible_alias = "force")]
    yes: bool,
    /// Print what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Removes them one by one. A failure is printed, and the next one is tried.
///
/// # Errors
/// The removal was not confirmed, or the store cannot be read.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    if !args.all && !args.which.is_any() {
        bail!(WrongUsage("say which crashes (MATCH, --since, --until), or --all".into()));
    }
    let (chosen, query) = args.which.choose()?;
    let inventory = chosen.inventory()?;
    let items: Vec<&Item> =
        inventory.iter().flat_map(|s| s.select(|record| query.takes(record))).collect();
    let Some(inventory) = &inventory else {
        return no_match(&chosen, &query);
    };
    if items.is_empty() {
        return no_match(&chosen, &query);
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    if !args.yes && !args.dry_run {
        confirm(out, &items)?;
    }
    let mut left = 0;
    for item in &items {
        let what = describe(item);
        if !args.dry_run
            && let Err(e) = inventory.remove(item)
        {
            log::error!("rm: {what} stays: {e:#}");
            left += 1;
            continue;
        }
        writeln!(out, "{verb} {what}")?;
    }
    if !args.dry_run
        && let Some(rest) = chosen.inventory()?
    {
        rest.tidy(&rest.plan_removal(Rules::default())?);
    }
    Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(item: &Item) -> String {
    let r = &item.record;
    let core = match item.has_core() {
        true => "its core",
        false => "its record alone: no core of it is in the store",
    };
    one_line(&format!("{} {} of {} ({core})", r.time, r.comm, query::container(&r.names)))
}

fn confirm(out: &mut impl Write, items: &[&Item]) -> Result<()> {
    ensure!(
        std::io::stdin().is_terminal(),
        "{} crash(es) match, and stdin is no terminal to confirm on: --yes removes them, --dry-run \
         lists them",
        items.len()
    );
    for item in items {
        writeln!(out, "{}", describe(item))?;
    }
    write!(out, "Remove {} crashes with their cores? [y/N] ", items.len())?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was removed");
    }
    Ok(())
}
