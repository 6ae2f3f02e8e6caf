//! The records of a store, read one after the other: memory does not grow with the store, and the
//! newest few cost no more than these.

use super::query::Query;
use crate::record::Record;
use crate::store::Records;
use crate::store::uploads::Uploads;
use anyhow::Result;
use std::ffi::OsString;

/// The records that match a query. Their names sort by time.
#[derive(Debug)]
pub(super) struct Crashes<'a> {
    records: Records,
    /// The oldest first.
    names: Vec<OsString>,
    uploads: Uploads,
    query: &'a Query,
}

impl<'a> Crashes<'a> {
    /// Of the records in a directory, and what is known of their uploads.
    pub(super) fn of(records: Records, uploads: Uploads, query: &'a Query) -> Result<Self> {
        let mut names = records.names()?;
        names.retain(|name| query.may_take(name));
        Ok(Crashes { records, names, uploads, query })
    }

    /// Reads them, the oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = Record> {
        let found = self.names.iter().filter_map(|name| self.records.read(name));
        found
            .filter(|record| self.query.takes(record))
            .map(|record| Record { uploaded: self.uploads.of(&record), ..record })
    }

    /// The newest ones, the oldest of them first.
    pub(super) fn newest(&self, most: usize) -> Vec<Record> {
        let mut found: Vec<Record> = self.iter().rev().take(most).collect();
        found.reverse();
        found
    }
}
