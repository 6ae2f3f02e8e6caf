//! The package that a program is of: `.note.package`, JSON that distributions put into every
//! program (systemd's "Package Metadata for Executable Files").

use crate::elf::note_of;
use crate::sys::proc::printable;
use object::LittleEndian as LE;
use object::elf::{FileHeader64, NoteType};
use serde::{Deserialize, Serialize};
use std::fmt;

const OWNER: &[u8] = b"FDO";
const KIND: NoteType = NoteType(0xcafe_1a7e);
/// Longest metadata, and longest value in it, in bytes.
const LONGEST: usize = 4096;
const LONGEST_VALUE: usize = 128;

/// A package of a distribution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its format, such as `deb`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The distribution, as in os-release(5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// The version of the distribution.
    #[serde(rename = "osVersion", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The architecture, in the words of the distribution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
}

impl Package {
    /// Reads the contents of a note segment.
    pub(super) fn in_notes(notes: &[u8], align: u64) -> Option<Self> {
        let json = note_of::<FileHeader64<LE>>(notes, LE, align, OWNER, KIND)?;
        let json = json.split(|b| *b == 0).next().filter(|json| json.len() <= LONGEST)?;
        let mut package: Package = serde_json::from_slice(json).ok()?;
        package.name = bounded(&package.name);
        let Package { version, format, os, os_version, architecture, .. } = &mut package;
        for value in [version, format, os, os_version, architecture] {
            *value = value.as_deref().map(bounded);
        }
        Some(package)
    }
}

fn bounded(text: &str) -> String {
    printable(text.as_bytes()).chars().take(LONGEST_VALUE).collect()
}

/// `name version (format of os)`.
impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(version) = &self.version {
            write!(f, " {version}")?;
        }
        match (&self.format, &self.os) {
            (Some(format), Some(os)) => write!(f, " ({format} of {os})"),
            (Some(one), None) | (None, Some(one)) => write!(f, " ({one})"),
            (None, None) => Ok(()),
        }
    }
}
