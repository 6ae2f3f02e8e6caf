//! The core in the store that a record describes.

use crate::record::{Location, Record};
use crate::registry::check_id;
use crate::store::tree;
use crate::sys::file::FileId;
use crate::sys::{OwnedFd, file, proc};
use std::ffi::OsString;
use std::path::Path;

/// The core in the store of one record.
pub(super) struct StoredCore {
    /// Its directory.
    pub dir: OwnedFd,
    /// Its name there.
    pub name: OsString,
    /// Device and inode number.
    pub id: FileId,
    /// Bytes on disk that removing it frees.
    pub bytes: u64,
}

impl StoredCore {
    /// The record's core, if the file still is the one that the record describes. The directory
    /// may be the container's: links in it do not lead out of it, and the file itself is never
    /// followed if it is a link.
    ///
    /// The record cannot choose the directory: only the one that this store has for the
    /// record's container is searched.
    pub(super) fn of(store: &Path, r: &Record) -> Option<Self> {
        let path = r.host_bytes().filter(|_| r.location == Location::Store)?;
        check_id(&r.names.container_id).ok()?;
        let dir = store.join("containers").join(&r.names.container_id);
        let path = Path::new(proc::os(path.strip_prefix(r.host_dir.as_ref()?.as_bytes())?));
        let (dir, name) = tree::parent(&file::open_dir(&dir).ok()?, path)?;
        let found = file::identity_at(&dir, name).ok()?;
        let stat = file::stat_at(&dir, name).ok()?;
        let same = r.identity.is_none_or(|identity| identity.is_same_file(&found));
        let bytes = if stat.links == 1 { stat.allocated } else { 0 };
        same.then(|| StoredCore { dir, name: name.to_owned(), id: found.id, bytes })
    }
}

/// Whether the core of a record is in the store. For records that this project wrote.
pub(crate) fn has_core_in_store(store: &Path, record: &Record) -> bool {
    StoredCore::of(store, record).is_some()
}
