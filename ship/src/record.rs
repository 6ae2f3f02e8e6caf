//! The fields of a crash's record (docs/records.md) that this program needs.

use crate::glob::matches;
use crate::regular_file::open_regular;
use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Largest record file, in bytes.
const MAX: u64 = 1 << 20;

/// The fields that `select` may name.
pub(crate) const FIELDS: [&str; 10] = [
    "container",
    "container_id",
    "pod",
    "namespace",
    "image",
    "exe",
    "comm",
    "signal",
    "location",
    "outcome",
];

/// One crash.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub time: String,
    pub container_id: String,
    pub container_name: Option<String>,
    pub pod_name: Option<String>,
    pub pod_namespace: Option<String>,
    pub pod_uid: Option<String>,
    pub image: Option<String>,
    pub pid: i32,
    pub signal: i32,
    pub signal_name: String,
    pub comm: String,
    pub exe: String,
    pub location: String,
    pub outcome: String,
    pub size: Option<u64>,
    pub disk_size: Option<u64>,
    pub reason: Option<String>,
    pub count: Option<u64>,
    /// `false`: the container does not want its crashes uploaded.
    pub upload: Option<bool>,
}

impl Record {
    /// Reads the last whole line of a record file; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read, or others than the owner of its directory could have written it.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>> {
        let mut text = Vec::new();
        let shown = || format!("read {:?}", path.display().to_string());
        let file = open_regular(path, OFlags::NOFOLLOW).with_context(shown)?;
        let (own, dir) = (file.metadata()?, path.parent().map(Path::metadata).transpose()?);
        ensure!(
            dir.is_none_or(|dir| dir.uid() == own.uid()) && own.mode() & 0o022 == 0,
            "{}: others than the owner of the store can write it",
            shown()
        );
        file.take(MAX + 1).read_to_end(&mut text).with_context(shown)?;
        ensure!(text.len() as u64 <= MAX, "{}: over 1 MiB", shown());
        let all = serde_json::Deserializer::from_slice(&text).into_iter::<Record>();
        Ok(all.map_while(Result::ok).last())
    }

    /// A field as text, empty where it is unknown.
    pub(crate) fn field(&self, name: &str) -> String {
        let text = match name {
            "container" => self.container_name.as_deref().unwrap_or(&self.container_id),
            "container_id" => &self.container_id,
            "pod" => self.pod_name.as_deref().unwrap_or_default(),
            "namespace" => self.pod_namespace.as_deref().unwrap_or_default(),
            "image" => self.image.as_deref().unwrap_or_default(),
            "exe" => &self.exe,
            "comm" => &self.comm,
            "signal" => &self.signal_name,
            "location" => &self.location,
            "outcome" => &self.outcome,
            "time" => return self.time.replace([':', '-'], ""),
            _ => "",
        };
        text.to_owned()
    }

    /// Whether the record is final, or its helper was killed more than a day ago.
    pub(crate) fn is_settled(&self, now: jiff::Timestamp) -> bool {
        let age = self.time.parse::<jiff::Timestamp>().map(|time| now.duration_since(time));
        self.outcome != "started" || age.is_ok_and(|age| age.as_hours() >= 24)
    }

    /// Whether the fields match all globs, and the container allows it.
    pub(crate) fn is_selected(&self, select: &std::collections::BTreeMap<String, String>) -> bool {
        self.upload != Some(false)
            && select.iter().all(|(field, glob)| matches(glob, &self.field(field)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_always_wins() {
        let select = [("pod".to_owned(), "shop-*".to_owned())].into();
        let mut record = Record { pod_name: Some("shop-0".into()), ..Record::default() };
        assert!(record.is_selected(&select) && record.is_selected(&Default::default()));
        record.upload = Some(false);
        assert!(!record.is_selected(&select) && !record.is_selected(&Default::default()));
        record.upload = None;
        record.pod_name = Some("bank".into());
        assert!(!record.is_selected(&select));
    }
}
