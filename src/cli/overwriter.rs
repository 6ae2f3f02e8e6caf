//! Whose core a file is that has the name of an older crash's core.

use super::query::Query;
use super::selection::Chosen;
use crate::record::Record;
use crate::store::Records;
use crate::sys::file::FileIdentity;
use anyhow::Result;
use serde::Serialize;
use std::cell::OnceCell;
use std::collections::HashMap;

/// A crash whose core has taken the name of an older one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Overwriter {
    /// When it was, RFC 3339 in UTC.
    pub time: String,
    /// The process, in its own PID namespace.
    pub pid: i32,
    /// Its record, as the MATCH `record=` takes it.
    pub record: String,
}

/// All records that know their file, by its inode number. They are read when the first one is
/// asked for, which few readers do.
pub(super) struct Overwriters<'a> {
    chosen: &'a Chosen,
    by_inode: OnceCell<HashMap<u64, Vec<(FileIdentity, Overwriter)>>>,
}

impl<'a> Overwriters<'a> {
    /// Of a store.
    pub(super) fn new(chosen: &'a Chosen) -> Self {
        Overwriters { chosen, by_inode: OnceCell::new() }
    }

    /// The crash, other than this record's, whose core a file is.
    ///
    /// # Errors
    /// The records cannot be read.
    pub(super) fn of(&self, record: &Record, file: &FileIdentity) -> Result<Option<&Overwriter>> {
        let all = match self.by_inode.get() {
            Some(all) => all,
            None => {
                let all = self.read()?;
                self.by_inode.get_or_init(|| all)
            }
        };
        let own = Records::id_of(record);
        let others = all.get(&file.id.inode()).into_iter().flatten();
        Ok(others
            .filter(|(identity, other)| identity.is_same_file(file) && other.record != own)
            .map(|(_, other)| other)
            .next_back())
    }

    fn read(&self) -> Result<HashMap<u64, Vec<(FileIdentity, Overwriter)>>> {
        let mut all: HashMap<u64, Vec<_>> = HashMap::new();
        let everything = Query::default();
        for record in self.chosen.crashes(&everything)?.iter().flat_map(|crashes| crashes.iter()) {
            if let Some(identity) = record.identity {
                let id = Records::id_of(&record);
                let other = Overwriter { time: record.time, pid: record.pid, record: id };
                all.entry(identity.id.inode()).or_default().push((identity, other));
            }
        }
        Ok(all)
    }
}

/// What is to be said of a core that was overwritten. `by`: the crash, if a record knows it.
pub(super) fn describe(by: Option<&Overwriter>, time: impl Fn(&str) -> String) -> String {
    match by {
        Some(by) => format!("overwritten by the crash of {}", time(&by.time)),
        None => "overwritten by another file, which no record knows".into(),
    }
}
