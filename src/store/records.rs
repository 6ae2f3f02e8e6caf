//! The records: a file for each crash, with a line of JSON for each stage of its dump. The last
//! complete line is the record.
//!
//! A helper that is killed, or for which there is no space left, leaves the line before. Each crash
//! creates only one file, which is most of what a record costs.

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

/// Largest file that is read, in bytes: three lines with paths of 4 KiB in
/// which each byte is escaped.
const MAX: usize = 1 << 20;

/// How long an unreadable record is kept before it is removed.
const DAMAGED: Duration = Duration::from_secs(24 * 3600);

/// The opened directory of the records.
#[derive(Debug)]
pub(crate) struct Records(OwnedFd);

/// The file of one crash, opened for further lines.
#[derive(Debug)]
pub(crate) struct RecordFile {
    file: File,
    /// Offset in bytes at which the next line is written.
    end: u64,
}

impl RecordFile {
    /// Adds a line with what is known now. If it could not be written completely, it does not
    /// count, and the next line overwrites it.
    ///
    /// A file that was removed in the meantime stays removed.
    pub(crate) fn add(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record).context("record to JSON")?;
        line.push(b'\n');
        // A file that is too large to be read would lose this line and the one before.
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

    /// Creates the file of a crash with its first line.
    ///
    /// # Errors
    /// It could not be written; then no file is left.
    pub(crate) fn begin(&self, record: &Record) -> Result<RecordFile> {
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

    /// The name of this crash's file.
    pub(crate) fn name_of(record: &Record) -> OsString {
        name(record)
    }

    /// The ID of a crash: the name of its file, without its ending.
    pub(crate) fn id_of(record: &Record) -> String {
        let name = name(record).to_string_lossy().into_owned();
        name.trim_end_matches(".jsonl").to_owned()
    }

    /// Counts one more crash in a record that stands for several, and returns the new number.
    /// `patience`: how long another process may hold the record's lock.
    ///
    /// # Errors
    /// The record is gone or cannot be written; then one crash is not counted.
    pub(crate) fn count_one(&self, name: &OsStr, time: &str, patience: Duration) -> Result<u64> {
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
        // Overwrites the old line, which is shorter or of the same length: a
        // reader sees one or the other.
        file.write_all_at(&line, 0).context("write")?;
        Ok(count)
    }

    /// The names of all records, the oldest first.
    pub(crate) fn names(&self) -> Result<Vec<OsString>> {
        let mut names = file::names(&self.0)?;
        names.retain(|n| n.as_bytes().ends_with(b".jsonl"));
        names.sort_unstable();
        Ok(names)
    }

    /// Number of files in the directory, of whatever kind.
    pub(crate) fn count(&self) -> Result<usize> {
        Ok(file::names(&self.0)?.len())
    }

    /// Reads one record. `None` if it is gone, still empty, or damaged; the last is logged.
    pub(crate) fn read(&self, name: &OsStr) -> Option<Record> {
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
    pub(crate) fn remove(&self, name: &OsStr) -> Result<()> {
        file::unlink(&self.0, name)
    }

    /// Removes empty files, which helpers leave that are killed before their first line, and
    /// records that have been damaged for a day.
    pub(crate) fn sweep(&self) -> Result<()> {
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

    /// Starts watching for files that are added from now on.
    pub(crate) fn watch(&self) -> Result<Watch> {
        Watch::directory(&self.0)
    }
}

/// The last complete record of a file; an empty file has none.
///
/// # Errors
/// The file is not empty but contains no record.
pub(crate) fn last(text: &[u8]) -> Result<Option<Record>> {
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

/// The name sorts by time. It is unique, since a PID is not reused within a second.
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
        // Killed, or out of space, in the middle of the second line.
        for end in one.len()..both.len() - 1 {
            assert_eq!(last(&both[..end]).unwrap(), Some(started.clone()), "{end}");
        }
        // A longer line was not written completely, and a shorter one overwrote it.
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
