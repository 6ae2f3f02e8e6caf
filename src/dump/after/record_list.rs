//! The list of an account's records, and how many it may have.

use crate::record::Record;
use crate::report;
use crate::store::Records;
use crate::sys::{OwnedFd, file};
use crate::vacuum;
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The names of an account's records, the oldest first, a line each.
const NAMES: &str = "records";

/// Shortest name of a record with its line end, in bytes.
const SHORTEST: u64 = 26;

/// Largest list of names that is read, in bytes.
const MAX: usize = 16 << 20;

/// How long another process may have the list.
const PATIENCE: Duration = Duration::from_secs(2);

/// Notes a record of the account, and removes its oldest ones where it has more than `most`. One
/// whose core is in the store stays: those are removed by `vacuum` and `rm`, with their cores.
///
/// # Errors
/// It could not be noted.
pub(super) fn add(dir: &OwnedFd, most: u64, records: &Records, record: &Record) -> Result<()> {
    let mut list = file::open_append(dir, NAMES.as_ref()).context("open the list of records")?;
    let mut line = Records::name_of(record).into_encoded_bytes();
    line.push(b'\n');
    list.write_all(&line).context("write")?;
    let (after, added) = (file::stat(&list)?.size, line.len() as u64);
    if is_due(after - added.min(after), after, most) {
        trim(dir, most, records)?;
    }
    Ok(())
}

/// Whether the list, which was `before` bytes long and is `after` long now, may hold too many
/// names. Once for each eighth of `most`: where nothing can be removed, few look in vain.
fn is_due(before: u64, after: u64, most: u64) -> bool {
    let step = (most / 8).max(1).saturating_mul(SHORTEST);
    after > most.saturating_mul(SHORTEST) && before / step != after / step
}

/// Removes the oldest records until an eighth of `most` is free, so that this is done now and then
/// only.
fn trim(dir: &OwnedFd, most: u64, records: &Records) -> Result<()> {
    let lock = file::reopen_dir(dir)?;
    if !file::lock_within(&lock, PATIENCE)? {
        return Ok(());
    }
    let list = file::open_read(dir, NAMES.as_ref()).context("open the list of records")?;
    let text = file::read_bounded(list, MAX, "the list of records")?;
    let names: Vec<&[u8]> = text.split(|b| *b == b'\n').filter(|name| !name.is_empty()).collect();
    if names.len() as u64 <= most {
        return Ok(());
    }
    let surplus = names.len() - (most - most / 8) as usize;
    let (mut left, mut failed) = (Vec::new(), Vec::new());
    for name in &names[..surplus] {
        let name = OsStr::from_bytes(name);
        let removed = match records.read(name) {
            Some(record) if has_core_in_store(&record) => Ok(false),
            _ => records.remove(name).map(|()| true),
        };
        if !removed.as_ref().is_ok_and(|removed| *removed) {
            left.extend([name.as_bytes(), b"\n"]);
        }
        failed.extend(removed.err());
    }
    names[surplus..].iter().for_each(|name| left.extend([*name, b"\n"]));
    file::replace(dir, NAMES.as_ref(), &left.concat(), 0o600)?;
    report::all_or_first(failed)
}

fn has_core_in_store(record: &Record) -> bool {
    let container = record.host_dir.as_deref().map(Path::new);
    let store = container.and_then(|dir| dir.parent()?.parent());
    store.is_some_and(|store| vacuum::has_core_in_store(store, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_look_in_vain() {
        const LINE: u64 = 40;
        let looks = |most: u64, names: u64| {
            (0..names).filter(|n| is_due(n * LINE, (n + 1) * LINE, most)).count()
        };
        assert_eq!(looks(1000, 650), 0);
        // Each eighth of the most, however many there are already.
        assert!((10..=16).contains(&(looks(1000, 2000) - looks(1000, 1000))));
        assert_eq!(looks(1, 10), 10);
        assert_eq!(looks(u64::MAX, 1000), 0);
    }
}
