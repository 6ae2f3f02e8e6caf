//! What has been uploaded, and how far: a file for each crash, which is whole at every moment, also
//! after a loss of power. The helper reads `uploaded` of it.

use crate::regular_file::open_regular;
use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes: 10,000 parts have about 2 MiB.
const MAX: u64 = 16 << 20;

/// An object that has been uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Uploaded {
    /// Where it is.
    pub url: String,
    /// When it was there, RFC 3339 in UTC.
    pub time: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Size and hash of a content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub size: u64,
    pub sha256: String,
}

/// One crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// The directory below the URL. It stays the one that the upload began with.
    pub key: String,
    /// The content that an upload is about to become visible with: whether it has is asked then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The bundle or core, else the record. There: the crash is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploaded: Option<Uploaded>,
    /// When the webhook was told. Written before it is: it is told once at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// When the event was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
}

/// An upload in parts that has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parts {
    /// The storage's name for the upload.
    pub id: String,
    /// The parts that are there, from the first.
    pub parts: Vec<Part>,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub id: String,
    pub size: u64,
    pub sha256: String,
}

/// The directory of the states, locked for this process.
pub(crate) struct States {
    dir: PathBuf,
    handle: File,
    _lock: File,
}

impl States {
    /// Opens the directory, making it if it does not exist.
    ///
    /// # Errors
    /// It cannot be made, or another process uploads by it.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let shown = || format!("state {}", dir.display());
        std::fs::create_dir_all(dir).with_context(shown)?;
        let lock = File::create(dir.join(".lock")).with_context(shown)?;
        if lock.try_lock().is_err() {
            bail!("{}: another oci-coredump-ship works on it", shown());
        }
        let handle = File::open(dir).with_context(shown)?;
        Ok(States { dir: dir.to_owned(), handle, _lock: lock })
    }

    fn path(&self, id: &str, kind: &str) -> PathBuf {
        self.dir.join(format!("{id}.{kind}"))
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        let mut text = Vec::new();
        let file = open_regular(path, OFlags::NOFOLLOW).ok()?;
        file.take(MAX).read_to_end(&mut text).ok()?;
        let read = serde_json::from_slice(&text);
        read.inspect_err(|e| log::warn!("{} is damaged, ignoring: {e}", path.display())).ok()
    }

    /// Replaces a file. When this returns, the new content survives a loss of power; until then
    /// the old one does.
    fn write(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        let shown = || format!("write {}", path.display());
        let temporary = self.dir.join(".new");
        let mut file = File::create(&temporary).with_context(shown)?;
        file.write_all(&serde_json::to_vec(value)?).with_context(shown)?;
        file.sync_all().with_context(shown)?;
        std::fs::rename(&temporary, path).with_context(shown)?;
        self.handle.sync_all().with_context(shown)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The state of a crash; `None` if nothing was begun.
    pub(crate) fn load(&self, id: &str) -> Option<State> {
        self.read(&self.path(id, "json"))
    }

    pub(crate) fn save(&self, id: &str, state: &State) -> Result<()> {
        self.write(&self.path(id, "json"), state)
    }

    pub(crate) fn parts(&self, id: &str) -> Option<Parts> {
        self.read(&self.path(id, "parts"))
    }

    pub(crate) fn save_parts(&self, id: &str, parts: &Parts) -> Result<()> {
        self.write(&self.path(id, "parts"), parts)
    }

    pub(crate) fn forget_parts(&self, id: &str) -> Result<()> {
        self.remove(&self.path(id, "parts"))
    }

    /// The crashes that have a state.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        let shown = || format!("state {}", self.dir.display());
        for entry in std::fs::read_dir(&self.dir).with_context(shown)? {
            let name = entry.with_context(shown)?.file_name();
            ids.extend(name.to_str().and_then(|n| n.strip_suffix(".json")).map(str::to_owned));
        }
        Ok(ids)
    }

    pub(crate) fn forget(&self, id: &str) -> Result<()> {
        self.forget_parts(id)?;
        self.remove(&self.path(id, "json"))
    }
}
