//! Crashes without a core, as many of them as there may be: the first few of a container in a
//! minute have a record each, and those beyond are counted in one record for each kind of reason.
//!
//! Which way a crash goes is decided in /run, under the lock of the container's account, without
//! touching the store. The count itself is in the record, under that file's own lock.

use crate::dump::after::ledger;
use crate::record::Record;
use crate::registry::Registry;
use crate::store::Records;
use crate::sys::{file, kernel};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

/// Records of their own that crashes without a core have in a minute, of each account.
const EACH_MINUTE: u32 = 5;

/// How long one record goes on counting before another one is begun, in milliseconds.
const COUNTED: u64 = 60 * 60 * 1000;

/// How long the lock of an account, or of a record, may be somebody else's.
const PATIENCE: Duration = Duration::from_secs(2);

/// Largest state that is read, in bytes.
const MAX: usize = 64 << 10;

const FILE: &str = "refusals";

/// What is remembered of an account.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Told {
    /// The minute since the boot in which `own` was counted.
    minute: u64,
    /// Records of their own in that minute.
    own: u32,
    /// By kind of reason: the record that counts, and when it was begun, in milliseconds since the
    /// boot.
    sums: BTreeMap<String, (String, u64)>,
}

/// How a crash without a core is told.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// In a record of its own.
    Own,
    /// In a new record, which counts from now on.
    Begin,
    /// In the record of this name.
    Count(String),
}

/// Decides. `now`: milliseconds since the boot.
fn decide(told: &mut Told, kind: &str, now: u64) -> Way {
    let minute = now / 60_000;
    if told.minute != minute {
        (told.minute, told.own) = (minute, 0);
    }
    if told.own < EACH_MINUTE {
        told.own += 1;
        return Way::Own;
    }
    match told.sums.get(kind) {
        Some((name, begun)) if now.saturating_sub(*begun) < COUNTED => Way::Count(name.clone()),
        _ => Way::Begin,
    }
}

/// The kind of a reason: the limit that acted, without its value, or that none did. A container can
/// choose numbers in reasons, but no kinds.
fn kind(record: &Record) -> &str {
    record.limit.as_deref().and_then(|limit| limit.split_whitespace().next()).unwrap_or("withheld")
}

/// Tells of a crash without a core. `most`: records that the account may have. Returns whether the
/// crash has a record of its own.
///
/// # Errors
/// It could not be told; the log has it then.
pub fn tell(
    registry: Option<&Registry>,
    account: &str,
    most: u64,
    records: &Records,
    record: &Record,
) -> Result<bool> {
    let Some(registry) = registry else {
        records.begin(record)?;
        return Ok(true);
    };
    let dir = registry.limits_dir(account)?;
    let lock = file::reopen_dir(&dir)?;
    ensure!(
        file::lock_within(&lock, PATIENCE)?,
        "the account {account} is locked by another process"
    );
    let text = file::open_read(&dir, FILE.as_ref()).ok();
    let text = text.and_then(|f| file::read_bounded(f, MAX, FILE).ok()).unwrap_or_default();
    // What is damaged is forgotten.
    let mut told: Told = serde_json::from_slice(&text).unwrap_or_default();
    let now = kernel::since_boot().as_millis() as u64;
    let way = decide(&mut told, kind(record), now);
    if way == Way::Begin {
        let name = Records::name_of(record);
        told.sums.insert(kind(record).to_owned(), (name.to_string_lossy().into_owned(), now));
    }
    if !matches!(way, Way::Count(_)) {
        let text = serde_json::to_vec(&told).context("refusals to JSON")?;
        file::replace(&dir, FILE.as_ref(), &text, 0o600)?;
    }
    drop(lock);
    let own = way == Way::Own;
    match way {
        Way::Own => {
            records.begin(record)?;
            ledger::remember(registry, account, most, records, record);
        }
        Way::Begin => {
            records.begin(&Record {
                count: Some(1),
                last: Some(record.time.clone()),
                ..record.clone()
            })?;
            ledger::remember(registry, account, most, records, record);
            log::warn!("{record}; further ones of this kind are counted in its record");
        }
        Way::Count(name) => {
            let count = records.count_one(OsStr::new(&name), &record.time, PATIENCE)?;
            if count.is_power_of_two() {
                log::warn!("{record} ({count} times by now)");
            }
        }
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_of_a_minute_and_then_one() {
        let mut told = Told::default();
        let mut ways = |kind: &str, now: u64, times: usize| -> Vec<Way> {
            let all: Vec<Way> = (0..times).map(|_| decide(&mut told, kind, now)).collect();
            if all.contains(&Way::Begin) {
                told.sums.insert(kind.to_owned(), (format!("{kind}-{now}"), now));
            }
            all
        };
        assert!(ways("rate", 0, 5).iter().all(|way| *way == Way::Own));
        assert_eq!(ways("rate", 1000, 1), [Way::Begin]);
        assert_eq!(
            ways("rate", 2000, 2),
            [Way::Count("rate-1000".into()), Way::Count("rate-1000".into())]
        );
        // Another kind has another record, and no further ones of its own.
        assert_eq!(ways("cores", 2000, 1), [Way::Begin]);
        // The next minute.
        assert_eq!(ways("rate", 60_000, 6)[4..], [Way::Own, Way::Count("rate-1000".into())]);
        // After an hour another record counts.
        assert_eq!(ways("rate", 60_500 + COUNTED, 6)[4..], [Way::Own, Way::Begin]);
    }

    #[test]
    fn kinds_are_few_whatever_the_container_does() {
        let with =
            |limit: Option<&str>| Record { limit: limit.map(str::to_owned), ..Record::default() };
        assert_eq!(kind(&with(Some("rate = 10/min"))), "rate");
        assert_eq!(kind(&with(Some("bytes = 512"))), "bytes");
        assert_eq!(kind(&with(None)), "withheld");
    }
}
