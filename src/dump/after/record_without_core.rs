//! The record of a crash without a core, of which there may be any number.
//!
//! Which crash has a record of its own is decided in /run, under the lock of the container's
//! account, without touching the store. The count of the others is in a record, under that file's
//! own lock.

use super::record_list;
use crate::dump::policy::refusals::{Refusals, Tally, decide, kind};
use crate::record::Record;
use crate::store::Records;
use crate::sys::file::{self, JsonFile};
use crate::sys::{OwnedFd, kernel};
use anyhow::{Result, ensure};
use std::ffi::OsStr;
use std::time::Duration;

/// How long the lock of an account, or of a record, may be somebody else's.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was told of the account already.
const FILE: JsonFile = JsonFile("refusals", 64 << 10);

/// Tells of a crash without a core. `account`: the directory of the account's limits; without one
/// each crash has a record of its own. `most`: records that the account may have. Returns whether
/// the crash has a record of its own.
///
/// # Errors
/// It could not be told; the log has it then.
pub(super) fn tell(
    account: Option<&OwnedFd>,
    most: u64,
    records: &Records,
    record: &Record,
) -> Result<bool> {
    let Some(dir) = account else {
        records.begin(record)?;
        return Ok(true);
    };
    let lock = file::reopen_dir(dir)?;
    ensure!(file::lock_within(&lock, PATIENCE)?, "the account is locked by another process");
    let mut told: Refusals = FILE.read(dir);
    let now = kernel::since_boot().as_millis() as u64;
    let way = decide(&mut told, kind(record), now);
    if way == Tally::Begin {
        let name = Records::name_of(record);
        told.sums.insert(kind(record).to_owned(), (name.to_string_lossy().into_owned(), now));
    }
    if !matches!(way, Tally::Count(_)) {
        FILE.replace(dir, &told)?;
    }
    drop(lock);
    let own = way == Tally::Own;
    match way {
        Tally::Own => {
            records.begin(record)?;
            note(dir, most, records, record);
        }
        Tally::Begin => {
            let first =
                Record { count: Some(1), last: Some(record.time.clone()), ..record.clone() };
            records.begin(&first)?;
            note(dir, most, records, record);
            log::warn!("{record}; further ones of this kind are counted in its record");
        }
        Tally::Count(name) => {
            let count = records.count_one(OsStr::new(&name), &record.time, PATIENCE)?;
            if count.is_power_of_two() {
                log::warn!("{record} ({count} times by now)");
            }
        }
    }
    Ok(own)
}

/// Adds the record to its account's list. A failure is only a warning: the record itself is there.
fn note(dir: &OwnedFd, most: u64, records: &Records, record: &Record) {
    if let Err(e) = record_list::add(dir, most, records, record) {
        let account = record.account.as_deref().unwrap_or_default();
        log::warn!("the records of account {account} cannot be counted, ignoring: {e:#}");
    }
}
