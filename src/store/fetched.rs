//! Files that debuginfod servers gave, by build-id, and for a while also which ones no server has:
//!
//! ```text
//! <store>/debuginfod/<build-id>.debuginfo       0600: debug information
//! <store>/debuginfod/<build-id>.executable      the executable or library itself
//! <store>/debuginfod/<build-id>.<kind>.absent   empty: no server had it then
//! ```
//!
//! Of a user other than root the directory is `~/.cache/oci-coredump/debuginfod`. A new file has a
//! name only when it is whole and its build-id was checked. When a file was needed last is its
//! modification time.

use crate::bytes::Limit;
use crate::corefile::files::FileKind;
use crate::sys::new_file::NewFile;
use crate::sys::{OwnedFd, file, user};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// How long it is remembered that no server has a file, as elfutils does.
const ABSENT: Duration = Duration::from_secs(600);
const ABSENT_SUFFIX: &str = ".absent";

/// A file of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchedFile {
    /// Its name in the directory.
    pub name: String,
    /// Bytes that it has on disk.
    pub bytes: u64,
    /// When it was needed last, in seconds since 1970.
    pub needed: i64,
}

/// What is known of a file.
#[derive(Debug)]
pub(crate) enum CacheState {
    /// It was fetched before.
    Here(File),
    /// No server had it a short time ago.
    Absent,
    /// Nothing.
    Unknown,
}

/// The opened directory.
#[derive(Debug)]
pub(crate) struct Fetched(OwnedFd);

fn name(kind: FileKind, build_id: &str) -> String {
    format!("{build_id}.{}", kind.name())
}

/// Whether the file that was needed at this time is unused for longer than `most`.
fn is_unused(needed: i64, most: Option<u64>) -> bool {
    most.is_some_and(|most| file::age(needed) > Duration::from_secs(most))
}

impl Fetched {
    /// Opens the directory, making it if it is missing.
    ///
    /// # Errors
    /// It cannot be made, or is not this user's alone.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let shown = || format!("cache {}", path.display());
        let dir = file::make_path(path, 0o700).and_then(file::reopen_dir).with_context(shown)?;
        Self::checked(dir).with_context(shown)
    }

    /// Opens the directory if it exists and is this user's alone.
    pub(crate) fn look(path: &Path) -> Option<Self> {
        Self::checked(file::open_dir(path).and_then(file::reopen_dir).ok()?).ok()
    }

    fn checked(dir: OwnedFd) -> Result<Self> {
        let stat = file::stat(&dir)?;
        let is_own = stat.uid == user::effective_uid() && stat.mode & 0o022 == 0;
        ensure!(is_own, "it must be this user's, and writable for nobody else");
        Ok(Fetched(dir))
    }

    /// Whether the file was fetched, or asked for in vain.
    pub(crate) fn find(&self, kind: FileKind, build_id: &str) -> CacheState {
        let name = name(kind, build_id);
        let opened = file::open_read(&self.0, name.as_ref());
        let own = opened.ok().filter(|f| f.metadata().is_ok_and(|meta| meta.is_file()));
        if let Some(file) = own {
            let _ = file::touch(&self.0, name.as_ref());
            return CacheState::Here(file);
        }
        match file::stat_at(&self.0, (name + ABSENT_SUFFIX).as_ref()) {
            Ok(stat) if file::age(stat.modified) < ABSENT => CacheState::Absent,
            _ => CacheState::Unknown,
        }
    }

    /// A file to write what comes to. It has no name yet.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn create(&self) -> Result<NewFile> {
        NewFile::create(&self.0)
    }

    /// Gives a file its name that is whole, and whose build-id was checked.
    ///
    /// # Errors
    /// It cannot be named.
    pub(crate) fn keep(&self, new: NewFile, kind: FileKind, build_id: &str) -> Result<()> {
        let name = name(kind, build_id);
        file::unlink(&self.0, format!("{name}{ABSENT_SUFFIX}").as_ref())?;
        new.name(name.as_ref())
    }

    /// Remembers that no server has a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn note_absent(&self, kind: FileKind, build_id: &str) -> Result<()> {
        let name = name(kind, build_id) + ABSENT_SUFFIX;
        file::replace(&self.0, name.as_ref(), b"", 0o600)
    }

    /// All files, the one that was needed longest ago first.
    pub(crate) fn all(&self) -> Result<Vec<FetchedFile>> {
        let fetched = |name: std::ffi::OsString| {
            let stat = file::stat_at(&self.0, &name).ok().filter(|stat| stat.regular)?;
            let name = name.into_string().ok()?;
            Some(FetchedFile { name, bytes: stat.allocated, needed: stat.modified })
        };
        let mut all: Vec<_> = file::names(&self.0)?.into_iter().filter_map(fetched).collect();
        all.sort_by_key(|file| file.needed);
        Ok(all)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        file::unlink(&self.0, name.as_ref())
    }

    /// Removes what was not needed for `max_unused` seconds and, of the rest, what was needed
    /// longest ago, until there is room for `room` bytes more in `max_total`.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(crate) fn make_room(&self, max_unused: Option<u64>, max: Limit, room: u64) -> Result<()> {
        let all = self.all()?;
        let most = max.finite().map_or(u64::MAX, |max| max.saturating_sub(room));
        for file in removable(&all, max_unused, most) {
            self.remove(&file.name)?;
        }
        Ok(())
    }
}

/// Of files, the one that was needed longest ago first: those that were not needed for `max_unused`
/// seconds, and the first of the others that leave more than `most` bytes.
pub(crate) fn removable(
    all: &[FetchedFile],
    max_unused: Option<u64>,
    most: u64,
) -> impl Iterator<Item = &FetchedFile> {
    let mut left: u64 = all.iter().map(|file| file.bytes).sum();
    all.iter().filter(move |file| {
        let ends = file.name.ends_with(ABSENT_SUFFIX) && file::age(file.needed) > ABSENT;
        let goes = ends || is_unused(file.needed, max_unused) || left > most && file.bytes > 0;
        left -= if goes { file.bytes } else { 0 };
        goes
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    const ID: &str = "00112233445566778899aabbccddeeff";

    fn keep(cache: &Fetched, id: &str, bytes: usize) {
        let new = cache.create().unwrap();
        new.file().write_all(&vec![1; bytes]).unwrap();
        cache.keep(new, FileKind::DebugInfo, id).unwrap();
    }

    #[test]
    fn what_was_fetched_and_what_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let cache = Fetched::open(&path).unwrap();
        let kind = FileKind::DebugInfo;
        assert!(matches!(cache.find(kind, ID), CacheState::Unknown));
        cache.note_absent(kind, ID).unwrap();
        assert!(matches!(cache.find(kind, ID), CacheState::Absent));
        assert!(matches!(cache.find(FileKind::Executable, ID), CacheState::Unknown));
        let absent = path.join(format!("{ID}.debuginfo.absent"));
        let long_ago = SystemTime::now() - 2 * ABSENT;
        File::open(&absent).unwrap().set_modified(long_ago).unwrap();
        assert!(matches!(cache.find(kind, ID), CacheState::Unknown));
        drop(cache.create().unwrap());
        keep(&cache, ID, 10);
        assert!(
            matches!(cache.find(kind, ID), CacheState::Here(f) if f.metadata().unwrap().len() == 10)
        );
        let names: Vec<_> = cache.all().unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(names, [format!("{ID}.debuginfo")]);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(format!("{ID}.debuginfo"))), 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Fetched::look(&path).is_none());
        assert!(format!("{:#}", Fetched::open(&path).unwrap_err()).contains("nobody else"));
    }

    #[test]
    fn what_was_needed_longest_ago_goes_first() {
        let of = |name: &str, bytes, days: u64| {
            let needed = SystemTime::now() - Duration::from_secs(days * 86400);
            let needed = needed.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
            FetchedFile { name: name.into(), bytes, needed }
        };
        let all = [
            of("a", 10, 9),
            of("x.absent", 0, 8),
            of("b", 10, 5),
            of("y.absent", 0, 0),
            of("c", 10, 0),
        ];
        let gone = |unused: Option<u64>, most| -> Vec<&str> {
            removable(&all, unused, most).map(|file| file.name.as_str()).collect()
        };
        assert_eq!(gone(None, 30), ["x.absent"]);
        assert_eq!(gone(None, 29), ["a", "x.absent"]);
        assert_eq!(gone(None, 0), ["a", "x.absent", "b", "c"]);
        assert_eq!(gone(Some(7 * 86400), u64::MAX), ["a", "x.absent"]);
    }

    #[test]
    fn room_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Fetched::open(dir.path()).unwrap();
        keep(&cache, ID, 100_000);
        cache.make_room(None, Limit::Finite(1 << 20), 0).unwrap();
        assert_eq!(cache.all().unwrap().len(), 1);
        cache.make_room(None, Limit::Finite(1 << 20), 1 << 20).unwrap();
        assert_eq!(cache.all().unwrap(), []);
    }
}
