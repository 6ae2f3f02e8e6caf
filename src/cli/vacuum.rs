//! `vacuum`: removes the oldest crashes.

use super::selection::Chosen;
use super::{query, table};
use crate::report::one_line;
use crate::vacuum::Rules;
use anyhow::{Result, ensure};
use std::io::Write;

/// Applies the rules, and prints what they remove.
pub(super) fn run(
    out: &mut impl Write,
    chosen: &Chosen,
    rules: Rules,
    dry_run: bool,
) -> Result<()> {
    if !dry_run {
        super::private::sweep();
    }
    let Some(inventory) = chosen.inventory()? else {
        writeln!(out, "nothing to do: no records in {}", chosen.store.display())?;
        return Ok(());
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
    if !dry_run {
        inventory.tidy(&plan);
    }
    let (count, bytes) = (plan.crashes.len() - left, table::size(bytes.saturating_add(unneeded)));
    writeln!(
        out,
        "{count} of {} crashes, {bytes}{}",
        inventory.items.len(),
        if dry_run { " would go" } else { " freed" }
    )?;
    ensure!(left == 0, "{left} crashes could not be removed");
    Ok(())
}
