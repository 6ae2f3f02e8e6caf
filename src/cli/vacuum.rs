//! `vacuum`: removes the oldest crashes.

use super::{Chosen, query, table};
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

/// Parses a size: `500M`, `2G`, `1.5GiB`, `unlimited`. K is 1,024.
///
/// # Errors
/// States the rule.
pub(super) fn parse_size(text: &str) -> Result<u64> {
    Ok(crate::limits::bytes(text)?.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1K", 1024),
            ("1.5M", 3 << 19),
            ("2GiB", 2 << 30),
            ("2 gb", 2 << 30),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "G", "-1", "1X", "1.2.3M", "inf", "99999999999999999999"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
