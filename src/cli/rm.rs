//! `rm`: removes the matching crashes, each with its core if that is in the store.

use super::query::{self, Query};
use super::selection::{Chosen, no_match};
use crate::report::one_line;
use crate::vacuum::{Item, Rules};
use anyhow::{Result, bail, ensure};
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

/// The options of the command line besides MATCH.
#[derive(Debug)]
pub(super) struct Options {
    /// Do not ask for confirmation.
    pub yes: bool,
    /// Print what would be removed, and remove nothing.
    pub dry_run: bool,
}

/// Removes them one by one. A failure is printed, and the next one is tried.
///
/// # Errors
/// The removal was not confirmed, or the store cannot be read.
pub(super) fn run(
    out: &mut impl Write,
    chosen: &Chosen,
    query: &Query,
    options: &Options,
) -> Result<ExitCode> {
    let inventory = chosen.inventory()?;
    let items: Vec<&Item> =
        inventory.iter().flat_map(|s| s.select(|record| query.takes(record))).collect();
    let Some(inventory) = &inventory else {
        return no_match("rm", &chosen.store);
    };
    if items.is_empty() {
        return no_match("rm", &chosen.store);
    }
    let verb = if options.dry_run { "would remove" } else { "removed" };
    if !options.yes && !options.dry_run {
        confirm(out, &items)?;
    }
    let mut left = 0;
    for item in &items {
        let what = describe(item);
        if !options.dry_run
            && let Err(e) = inventory.remove(item)
        {
            log::error!("rm: {what} stays: {e:#}");
            left += 1;
            continue;
        }
        writeln!(out, "{verb} {what}")?;
    }
    if !options.dry_run
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
        "{} crashes match: nobody can be asked here, say --yes to remove them, --dry-run to see \
         them",
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
