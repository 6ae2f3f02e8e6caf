//! What `oci-coredump-ship` has uploaded: its own files, one for each crash. That program is not
//! root's; what it says decides only what is shown, and what vacuum may take for safe elsewhere.

use super::Records;
use crate::record::{Record, Uploaded};
use crate::sys::{OwnedFd, file};
use serde::Deserialize;
use std::path::Path;

/// Largest file that is read, in bytes.
const MAX: usize = 64 << 10;

/// Longest URL that is taken, in bytes.
const LONGEST: usize = 4096;

/// The opened directory, if there is one.
#[derive(Debug)]
pub(crate) struct Uploads(Option<OwnedFd>);

#[derive(Deserialize)]
struct State {
    uploaded: Option<Uploaded>,
}

impl Uploads {
    /// Opens the directory; one that is not there has nothing.
    pub(crate) fn open(path: &Path) -> Self {
        Uploads(file::open_dir(path).and_then(file::reopen_dir).ok())
    }

    /// Where and when a crash was uploaded, if it was.
    pub(crate) fn of(&self, record: &Record) -> Option<Uploaded> {
        let name = Records::id_of(record) + ".json";
        let file = file::open_read(self.0.as_ref()?, name.as_ref()).ok()?;
        let text = file::read_bounded(file, MAX, "state of an upload").ok()?;
        let state: State = serde_json::from_slice(&text).ok()?;
        state.uploaded.filter(|uploaded| uploaded.url.len() <= LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_states_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut record =
            Record { time: "2026-01-02T03:04:05Z".into(), host_pid: 7, ..Record::default() };
        record.names.container_id = "0123456789abcdef".into();
        let path = dir.path().join("20260102T030405Z-7-0123456789ab.json");
        let said = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Uploads::open(dir.path()).of(&record)
        };
        let there = r#"{"key": "k", "uploaded":
            {"url": "s3://b/x", "time": "t", "size": 7, "sha256": "ab"}}"#;
        assert_eq!(said(there).unwrap().url, "s3://b/x");
        assert_eq!(said(&there.replace("s3", &"s".repeat(5000))), None);
        for text in ["", "{", "[]", r#"{"key": "k"}"#, r#"{"uploaded": {"url": 7}}"#] {
            assert_eq!(said(text), None, "{text}");
        }
        assert_eq!(Uploads::open(&dir.path().join("nowhere")).of(&record), None);
    }
}
