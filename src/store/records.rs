//! The records: a file for each crash, and in it a line of JSON for each time that more was known of it. The last whole line holds.
//!
//! A helper that is killed, or for which there is no room any more, leaves the line before; and for a crash one file is made, which is most of what a record costs.

use super::binaries;
use crate::record::Record;
use crate::sys::watch::Watch;
use crate::sys::{OwnedFd, file};
use anyhow::{Context, Result, ensure};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Largest file that is read, in bytes: three lines with paths of 4 KiB, of which each byte is escaped.
const MAX: usize = 1 << 20;

/// How long a record that cannot be read stays.
const DAMAGED: Duration = Duration::from_secs(24 * 3600);

/// The directory of the records, open.
#[derive(Debug)]
pub struct Records(OwnedFd);

/// The file of one crash, open for what is to come.
#[derive(Debug)]
pub struct RecordFile {
    file: File,
    /// Where the next line goes.
    end: u64,
}

impl RecordFile {
    /// Adds what is known now. A line that could not be written whole is none, and the next one takes its place.
    ///
    /// A file that was removed meanwhile stays removed.
    pub fn add(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record).context("record to JSON")?;
        line.push(b'\n');
        // What nobody can read would be lost, and the line before with it.
        ensure!(
            self.end as usize + line.len() <= MAX,
            "a line of {} bytes would make the record larger than {MAX} bytes",
            line.len()
        );
        self.file.write_all_at(&line, self.end).context("write")?;
        self.end += line.len() as u64;
        Ok(())
    }
}

impl Records {
    pub(super) fn new(dir: OwnedFd) -> Self {
        Records(dir)
    }

    /// Begins the file of a crash with what is known at first.
    ///
    /// # Errors
    /// It could not be written: then there is no file either.
    pub fn begin(&self, record: &Record) -> Result<RecordFile> {
        let name = name(record);
        let mut begun = RecordFile { file: file::create_new(&self.0, &name, 0o600)?, end: 0 };
        match begun.add(record) {
            Ok(()) => Ok(begun),
            Err(e) => {
                let _ = file::unlink(&self.0, &name);
                Err(e)
            }
        }
    }

    /// The name of the file of this crash.
    pub fn name_of(record: &Record) -> OsString {
        name(record)
    }

    /// Counts one more crash in a record that stands for several, and returns how many it stands for.
    /// `patience`: how long another process may have it.
    ///
    /// # Errors
    /// It has gone, or cannot be written: then one crash is not counted.
    pub fn count_one(&self, name: &OsStr, time: &str, patience: Duration) -> Result<u64> {
        let file =
            file::open_to_change(&self.0, name).with_context(|| format!("open record {name:?}"))?;
        ensure!(
            file::lock_within(&file, patience)?,
            "record {name:?} is locked by another process"
        );
        let text = file::read_bounded(&file, MAX, "record")?;
        let mut record = last(&text)?.with_context(|| format!("record {name:?} is empty"))?;
        let count = record.crashes().saturating_add(1);
        (record.count, record.last) = (Some(count), Some(time.to_owned()));
        let mut line = serde_json::to_vec(&record).context("record to JSON")?;
        line.push(b'\n');
        // In the place of the old one, which is shorter or of the same length: a reader sees either.
        file.write_all_at(&line, 0).context("write")?;
        Ok(count)
    }

    /// The names of all records, the oldest first.
    pub fn names(&self) -> Result<Vec<OsString>> {
        let mut names = file::names(&self.0)?;
        names.retain(|n| n.as_bytes().ends_with(b".jsonl"));
        names.sort_unstable();
        Ok(names)
    }

    /// How many files there are, whatever they are.
    pub fn count(&self) -> Result<usize> {
        Ok(file::names(&self.0)?.len())
    }

    /// Reads one record. `None` if it has gone or is only being made, or is damaged, which is said.
    pub fn read(&self, name: &OsStr) -> Option<Record> {
        self.text(name).unwrap_or_else(|e| {
            if !file::is_missing(&e) {
                log::warn!("record {name:?} is not readable, ignoring: {e:#}");
            }
            None
        })
    }

    fn text(&self, name: &OsStr) -> Result<Option<Record>> {
        last(&file::read_bounded(file::open_read(&self.0, name)?, MAX, "record")?)
    }

    /// Removes a record; a missing one is no error.
    pub fn remove(&self, name: &OsStr) -> Result<()> {
        file::unlink(&self.0, name)
    }

    /// Removes what helpers left that were killed before they had said anything, empty files, and what has
    /// been damaged for a day.
    pub fn sweep(&self) -> Result<()> {
        for name in self.names()? {
            let Ok(stat) = file::stat_at(&self.0, &name) else { continue };
            let is_empty = stat.size == 0 && binaries::is_settled(stat.modified);
            let is_damaged = || file::age(stat.modified) > DAMAGED && self.text(&name).is_err();
            if stat.regular
                && (is_empty || is_damaged())
                && let Err(e) = file::unlink(&self.0, &name)
            {
                log::warn!("record {name:?} cannot be read or removed, ignoring: {e:#}");
            }
        }
        Ok(())
    }

    /// Starts watching for what is added from now on.
    pub fn watch(&self) -> Result<Watch> {
        Watch::directory(&self.0)
    }
}

/// The last whole record of a file; an empty file has none.
///
/// # Errors
/// There is something, but no record.
pub fn last(text: &[u8]) -> Result<Option<Record>> {
    let mut last = None;
    for record in serde_json::Deserializer::from_slice(text).into_iter() {
        match record {
            Ok(record) => last = Some(record),
            Err(_) if last.is_some() => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(last)
}

/// Sorts by time; unique since a PID dies once in a second.
fn name(record: &Record) -> OsString {
    let time: String = record.time.chars().filter(char::is_ascii_alphanumeric).collect();
    let id: String = record.names.container_id.chars().take(12).collect();
    format!("{time}-{}-{id}.jsonl", record.host_pid).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Outcome;

    fn record(outcome: Outcome) -> Record {
        Record { time: "2026-01-01T00:00:00Z".into(), outcome, ..Record::default() }
    }

    fn lines(records: &[Record]) -> Vec<u8> {
        records
            .iter()
            .flat_map(|r| serde_json::to_vec(r).unwrap().into_iter().chain([b'\n']))
            .collect()
    }

    #[test]
    fn the_last_whole_line_holds() {
        let (started, written) = (record(Outcome::Started), record(Outcome::Written));
        let (one, both) =
            (lines(std::slice::from_ref(&started)), lines(&[started.clone(), written.clone()]));
        assert_eq!(last(&one).unwrap(), Some(started.clone()));
        assert_eq!(last(&both).unwrap(), Some(written.clone()));
        // Killed, or out of space, in the middle of the second.
        for end in one.len()..both.len() - 1 {
            assert_eq!(last(&both[..end]).unwrap(), Some(started.clone()), "{end}");
        }
        // A longer line did not come whole, and a shorter one took its place.
        assert_eq!(last(&[&both, &both[both.len() - 9..]].concat()).unwrap(), Some(written));
        assert_eq!(last(b"").unwrap(), None);
        for damaged in [&one[..one.len() / 2], b"[]", b"{}", b"\xff"] {
            last(damaged).unwrap_err();
        }
    }

    #[test]
    fn a_file_grows_and_stays_removed() {
        let dir = tempfile::tempdir().unwrap();
        let records =
            Records(file::open_subdir(file::open_dir(dir.path()).unwrap(), ".".as_ref()).unwrap());
        let mut file = records.begin(&record(Outcome::Started)).unwrap();
        let [name] = &records.names().unwrap()[..] else { panic!("not one file") };
        assert_eq!(records.read(name).unwrap().outcome, Outcome::Started);
        assert!(
            records.begin(&record(Outcome::Started)).is_err(),
            "one crash took another one's place"
        );
        file.add(&record(Outcome::Written)).unwrap();
        assert_eq!(records.read(name).unwrap().outcome, Outcome::Written);
        records.remove(name).unwrap();
        file.add(&record(Outcome::Written)).unwrap();
        assert_eq!((records.count().unwrap(), records.read(name)), (0, None));
    }
}
