//! Crashes whose executable and libraries are still being copied into the store: that goes on after
//! the process was let go, and until it is done there are no names in a stack.

use crate::record::Record;
use crate::store::{Records, Store};
use jiff::{SignedDuration, Timestamp};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long such a crash is waited for.
const WAIT: Duration = Duration::from_secs(10);

/// How often it is looked at.
const AGAIN: Duration = Duration::from_millis(100);

/// No copy takes longer after the core was whole: with an older record, the helper was killed.
const LONGEST: SignedDuration = SignedDuration::from_secs(120);

/// Whether its files are still being copied.
pub(super) fn is_copied(record: &Record) -> bool {
    let written = SignedDuration::try_from_secs_f64(record.seconds.unwrap_or(0.0));
    let whole = record.time.parse::<Timestamp>().ok().zip(written.ok());
    let whole = whole.and_then(|(begun, took)| begun.checked_add(took).ok());
    record.keeping && whole.is_some_and(|at| Timestamp::now().duration_since(at) < LONGEST)
}

/// The record when its files are there, or after some seconds.
pub(super) fn wait(record: Record, store: &Path) -> Record {
    let (begun, name) = (Instant::now(), Records::name_of(&record));
    let mut now = record;
    while is_copied(&now) && begun.elapsed() < WAIT {
        std::thread::sleep(AGAIN);
        let read = || Store::open_existing(store).ok()??.existing_records().ok()??.read(&name);
        match read() {
            Some(record) => now = Record { uploaded: now.uploaded, ..record },
            None => break,
        }
    }
    now
}
