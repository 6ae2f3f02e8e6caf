//! `vacuum`: removes the oldest crashes.

use super::selection::Chosen;
use super::{clock, query, table};
use crate::bytes::Limit;
use crate::config::Config;
use crate::report::one_line;
use crate::vacuum::Rules;
use anyhow::{Result, ensure};
use jiff::Timestamp;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Remove the oldest crashes: their records, and their cores if these are in the store.
///
/// Cores on volumes and in containers are not touched. A crash is removed if any of the given
/// rules applies to it. Kept executables and libraries are removed with the last core that
/// needs them; what debuginfod servers gave counts for --max-size, and goes first. The rules in
/// `[vacuum]` of the configuration are applied automatically, after
/// crashes and when containers end.
///
/// Example: oci-coredump vacuum --max-age "2 weeks" --max-size 10G --dry-run
#[derive(Debug, clap::Args)]
#[command(group(
    clap::ArgGroup::new("rules")
        .args(["max_size", "max_age", "keep"])
        .multiple(true)
        .required(true)
))]
pub(super) struct Args {
    /// Most bytes on disk of all cores in the store and the files kept with them: 500M, 10G.
    #[arg(long, value_name = "SIZE")]
    max_size: Option<Limit>,
    /// Remove crashes older than this: 30d, "2 weeks", or a date.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = clock::argument)]
    max_age: Option<Timestamp>,
    /// Keep at most the newest N crashes.
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Print what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
    /// Use this store instead of the configured one.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl Args {
    /// The rules of the command line, with what the configuration says of uploads.
    fn rules(&self) -> Rules {
        let config = Config::load().unwrap_or_default();
        Rules {
            max_size: self.max_size.and_then(Limit::finite),
            since: self.max_age,
            keep: self.keep,
            ..Rules::configured(&config, jiff::Timestamp::now())
        }
    }
}

/// Applies the rules, and prints what they remove.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    let (rules, dry_run) = (args.rules(), args.dry_run);
    let chosen = Chosen::of(args.store.as_deref())?;
    if !dry_run {
        super::private::sweep();
    }
    let Some(inventory) = chosen.inventory()? else {
        writeln!(out, "nothing to do: no records in {}", chosen.store.display())?;
        return Ok(ExitCode::SUCCESS);
    };
    let plan = inventory.plan_removal(rules)?;
    let verb = if dry_run { "would remove" } else { "removed" };
    let (mut bytes, mut left) = (0u64, 0);
    for (item, size) in &plan.crashes {
        let what = format!(
            "{} {} of {}",
            item.record.time,
            item.record.comm,
            query::container(&item.record.names)
        );
        if !dry_run && let Err(e) = inventory.remove(item) {
            log::error!("vacuum: the crash {what:?} stays: {e:#}");
            left += 1;
            continue;
        }
        writeln!(out, "{verb} {} ({})", one_line(&what), table::size(*size))?;
        bytes = bytes.saturating_add(*size);
    }
    let unneeded =
        plan.unneeded.iter().map(|(_, bytes)| bytes).fold(0, |a: u64, b| a.saturating_add(*b));
    if !plan.unneeded.is_empty() {
        writeln!(
            out,
            "{verb} {} binaries that no core needs ({})",
            plan.unneeded.len(),
            table::size(unneeded)
        )?;
    }
    let fetched = plan.fetched.iter().map(|file| file.bytes).sum::<u64>();
    if fetched > 0 {
        writeln!(
            out,
            "{verb} {} files that debuginfod servers gave ({})",
            plan.fetched.len(),
            table::size(fetched)
        )?;
    }
    if !dry_run {
        inventory.tidy(&plan);
    }
    let (count, bytes) = (
        plan.crashes.len() - left,
        table::size(bytes.saturating_add(unneeded).saturating_add(fetched)),
    );
    writeln!(
        out,
        "{count} of {} crashes, {bytes}{}",
        inventory.items.len(),
        if dry_run { " would go" } else { " freed" }
    )?;
    ensure!(left == 0, "{left} crashes could not be removed");
    Ok(ExitCode::SUCCESS)
}
