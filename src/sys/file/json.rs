//! A value in a file of JSON, which is read and replaced as a whole. Whoever changes it holds a
//! lock meanwhile.

use super::{open_read, read_bounded, replace};
use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::fd::AsFd;

/// Such a file: its name in its directory, and its largest size in bytes.
pub(crate) struct JsonFile(pub &'static str, pub usize);

impl JsonFile {
    /// Reads the value. What is missing, damaged or too large counts as the default.
    pub(crate) fn read<T: DeserializeOwned + Default>(&self, dir: impl AsFd) -> T {
        let JsonFile(name, most) = *self;
        let text = open_read(dir, name.as_ref()).ok();
        let text = text.and_then(|file| read_bounded(file, most, name).ok()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Replaces the file, which only its owner can read.
    pub(crate) fn replace(&self, dir: impl AsFd, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec(value).with_context(|| format!("{} to JSON", self.0))?;
        replace(dir, self.0.as_ref(), &text, 0o600)
    }
}
