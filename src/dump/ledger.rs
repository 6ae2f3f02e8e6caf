//! Where the record of a crash goes, and how many records an account may have.

use crate::config::Config;
use crate::record::{Outcome, Record};
use crate::registry::Registry;
use crate::store::{RecordFile, Records, Store};
use crate::sys::{OwnedFd, file, process};
use crate::vacuum;
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// The names of an account's records, the oldest first, a line each.
const NAMES: &str = "records";

/// Shortest name of a record with its line end, in bytes.
const SHORTEST: u64 = 26;

/// Largest list of names that is read, in bytes.
const MAX: usize = 16 << 20;

/// How long another process may have the list.
const PATIENCE: Duration = Duration::from_secs(2);

/// The record of one crash.
pub struct Ledger {
    records: Result<Records>,
    /// Once something could be said.
    file: Option<RecordFile>,
}

impl Ledger {
    /// Opens the store. That it cannot be opened is said where there is something to write.
    pub fn open(config: &Config) -> Self {
        Ledger { records: Store::open(config).and_then(|s| s.records()), file: None }
    }

    /// The directory of the records.
    ///
    /// # Errors
    /// It could not be opened.
    pub fn records(&self) -> Result<&Records> {
        self.records.as_ref().map_err(|e| anyhow::anyhow!("{e:#}"))
    }

    /// Says what is known now. If that cannot be saved it is in the log all the same.
    pub fn say(&mut self, record: &Record) {
        let said = match (&mut self.file, &self.records) {
            (Some(file), _) => file.add(record),
            (None, Ok(records)) => records.begin(record).map(|file| self.file = Some(file)),
            (None, Err(e)) => Err(anyhow::anyhow!("{e:#}")),
        };
        if let Err(e) = said {
            log::error!("cannot save the record of this crash: {e:#}: {record}");
        }
    }

    /// What became of the core. The process is let go when it is in the record, and does not wait for
    /// the log.
    pub fn close(&mut self, record: &Record) {
        self.say(record);
        process::release_stdin();
        match record.outcome {
            Outcome::Written => log::info!("{record}"),
            _ => log::warn!("{record}"),
        }
    }
}

/// Notes a record of the account, and removes its oldest ones where it has more than `most`. One whose
/// core is in the store stays: those are removed by `vacuum` and `rm`, with their cores.
pub fn remember(registry: &Registry, account: &str, most: u64, records: &Records, record: &Record) {
    let attempt = || -> Result<()> {
        let dir = registry.limits_dir(account)?;
        let mut list =
            file::open_append(&dir, NAMES.as_ref()).context("open the list of records")?;
        let mut line = Records::name_of(record).into_encoded_bytes();
        line.push(b'\n');
        list.write_all(&line).context("write")?;
        let may_be_too_many = file::stat(&list)?.size > most.saturating_mul(SHORTEST);
        if may_be_too_many { trim(&dir, most, records) } else { Ok(()) }
    };
    if let Err(e) = attempt() {
        log::warn!("the records of account {account} cannot be counted, ignoring: {e:#}");
    }
}

/// Removes the oldest records until an eighth of `most` is free, so that this is done now and then only.
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
    let mut left = Vec::new();
    for name in &names[..surplus] {
        let name = OsStr::from_bytes(name);
        match records.read(name) {
            Some(record) if vacuum::has_core_in_store(&record) => {
                left.extend([name.as_bytes(), b"\n"])
            }
            _ => records.remove(name)?,
        }
    }
    names[surplus..].iter().for_each(|name| left.extend([*name, b"\n"]));
    file::replace(dir, NAMES.as_ref(), &left.concat(), 0o600)
}
