//! Executables and libraries of crashes, one file for each content, for use after their container
//! is gone. Only root can read them, since they may be private.
//!
//! A new file is written under a name that only one process can have, and is
//! renamed when it is complete.

use crate::corefile::is_name;
use crate::sys::{Errno, OwnedFd, file};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds. A younger file may belong to a crash whose record does not name it yet; an older
/// unfinished file was left behind.
const SETTLED: i64 = 600;

/// Directory with a subdirectory for each account, which has a hard link to each binary
/// that counts for the account.
const BY: &str = "by";

/// A binary that counts for an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Its name in the store.
    pub id: String,
    /// Bytes that it has on disk.
    pub bytes: u64,
    /// When a crash needed it last, in seconds since 1970.
    pub needed: i64,
}

/// The opened directory of the kept binaries.
#[derive(Debug)]
pub(crate) struct KeptBinaries(OwnedFd);

fn unfinished(id: &str) -> OsString {
    format!("{id}.new").into()
}

impl KeptBinaries {
    /// The binaries in this directory.
    pub(super) fn new(dir: OwnedFd) -> Self {
        KeptBinaries(dir)
    }

    /// The size in bytes of a kept binary.
    pub(crate) fn size(&self, id: &str) -> Option<u64> {
        Some(file::stat_at(&self.0, id.as_ref()).ok().filter(|s| s.regular)?.size)
    }

    /// The size in bytes of a kept binary that a crash needs from now on. It is not removed until
    /// the crash's record can name it.
    pub(crate) fn take(&self, id: &str) -> Option<u64> {
        file::touch(&self.0, id.as_ref()).ok()?;
        self.size(id)
    }

    /// All of them: name and bytes on disk.
    pub(crate) fn all(&self) -> Result<Vec<(String, u64)>> {
        let names = file::names(&self.0)?;
        let ids = names.iter().filter_map(|n| n.to_str()).filter(|n| is_name(n));
        Ok(ids
            .filter_map(|id| {
                Some((id.to_owned(), file::stat_at(&self.0, id.as_ref()).ok()?.allocated))
            })
            .collect())
    }

    /// Creates the unfinished file of a binary, to be written; `None` if
    /// another process is writing it.
    pub(crate) fn begin(&self, id: &str) -> Option<OwnedFd> {
        let name = unfinished(id);
        match file::create_readable(&self.0, &name, 0o600) {
            Err(Errno::EXIST)
                if file::stat_at(&self.0, &name).is_ok_and(|s| is_settled(s.modified)) =>
            {
                file::unlink(&self.0, &name).ok()?;
                file::create_readable(&self.0, &name, 0o600).ok()
            }
            made => made.ok(),
        }
    }

    /// Whether a process is writing this binary at this moment, as it seems.
    pub(crate) fn is_begun(&self, id: &str) -> bool {
        file::stat_at(&self.0, &unfinished(id)).is_ok_and(|s| !is_settled(s.modified))
    }

    /// The unfinished file is complete: gives it its name.
    pub(crate) fn finish(&self, id: &str) -> Result<()> {
        file::rename_new(&self.0, &unfinished(id), id.as_ref()).map(drop)
    }

    /// Removes the unfinished file of a binary that is not going to be complete.
    pub(crate) fn abandon(&self, id: &str) -> Result<()> {
        file::unlink(&self.0, &unfinished(id))
    }

    /// Removes a binary, whichever accounts have it.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        if let Ok(by) = file::open_subdir(&self.0, BY.as_ref()) {
            for account in file::names(&by)? {
                if let Ok(dir) = file::open_subdir(&by, &account) {
                    file::unlink(dir, id.as_ref())?;
                }
            }
        }
        file::unlink(&self.0, id.as_ref())
    }

    /// The accounts that have a directory.
    pub(crate) fn accounts(&self) -> Result<Vec<String>> {
        let Ok(by) = file::open_subdir(&self.0, BY.as_ref()) else { return Ok(Vec::new()) };
        Ok(file::names(&by)?.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    /// The binaries of an account, the one that was needed longest ago first.
    pub(crate) fn of_account(&self, account: &str) -> Result<Vec<Held>> {
        let Ok(by) = file::open_subdir(&self.0, BY.as_ref()) else { return Ok(Vec::new()) };
        let Ok(dir) = file::open_subdir(by, account.as_ref()) else { return Ok(Vec::new()) };
        let held = |name: OsString| {
            let stat = file::stat_at(&dir, &name).ok()?;
            let id = name.into_string().ok()?;
            Some(Held { id, bytes: stat.allocated, needed: stat.modified })
        };
        let mut all: Vec<Held> = file::names(&dir)?.into_iter().filter_map(held).collect();
        all.sort_by_key(|held| held.needed);
        Ok(all)
    }

    /// Whether a binary counts for an account.
    pub(crate) fn has(&self, account: &str, id: &str) -> bool {
        let by = file::open_subdir(&self.0, BY.as_ref());
        by.and_then(|by| file::open_subdir(by, account.as_ref()))
            .and_then(|dir| file::stat_at(dir, id.as_ref()))
            .is_ok()
    }

    /// Makes a binary count for an account. A binary of several accounts counts for each of them,
    /// and stays until the last one gives it up.
    ///
    /// # Errors
    /// The binary is gone.
    pub(crate) fn claim(&self, account: &str, id: &str) -> Result<()> {
        file::link(&self.0, id.as_ref(), self.account(account)?, id.as_ref())
    }

    /// Makes a binary count no longer for an account. If no other account has it, it is removed.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn give_up(&self, account: &str, id: &str) -> Result<()> {
        file::unlink(self.account(account)?, id.as_ref())?;
        match file::stat_at(&self.0, id.as_ref()) {
            Ok(stat) if stat.links == 1 => file::unlink(&self.0, id.as_ref()),
            _ => Ok(()),
        }
    }

    /// A lock for adding to an account: two processes that do not know of each other could use its
    /// share twice. `None` if another process holds it for longer than `time`.
    pub(crate) fn alone(&self, account: &str, time: Duration) -> Result<Option<OwnedFd>> {
        let dir = self.account(account)?;
        Ok(file::lock_within(&dir, time)?.then_some(dir))
    }

    fn account(&self, account: &str) -> Result<OwnedFd> {
        file::make_dir(file::make_dir(&self.0, BY.as_ref(), 0o700)?, account.as_ref(), 0o700)
    }

    /// The binaries that no core needs, with their bytes on disk, except
    /// those that were kept just now.
    pub(crate) fn unneeded(&self, needed: &BTreeSet<String>) -> Result<Vec<(String, u64)>> {
        let mut all = self.all()?;
        all.retain(|(id, _)| {
            !needed.contains(id)
                && file::stat_at(&self.0, id.as_ref()).is_ok_and(|s| is_settled(s.modified))
        });
        Ok(all)
    }

    /// Removes all binaries and the links of all accounts.
    pub(crate) fn clear(&self) -> Result<()> {
        let clear = |dir: &OwnedFd| -> Result<()> {
            for name in file::names(dir)?.iter().filter(|name| *name != BY) {
                if let Err(e) = file::unlink(dir, name) {
                    log::warn!("kept binary {name:?} cannot be removed, ignoring: {e:#}");
                }
            }
            Ok(())
        };
        clear(&self.0)?;
        let Ok(by) = file::open_subdir(&self.0, BY.as_ref()) else { return Ok(()) };
        for account in file::names(&by)? {
            file::open_subdir(&by, &account).context("open an account").and_then(|d| clear(&d))?;
            file::remove_empty_dir(&by, &account)?;
        }
        file::remove_empty_dir(&self.0, BY.as_ref()).map(drop)
    }

    /// Removes unfinished files that a killed helper left, and accounts without binaries.
    pub(crate) fn sweep(&self) -> Result<()> {
        if let Ok(by) = file::open_subdir(&self.0, BY.as_ref()) {
            for account in file::names(&by)? {
                file::remove_empty_dir(&by, &account)?;
            }
        }
        for name in file::names(&self.0)? {
            let left = name.to_str().and_then(|n| n.strip_suffix(".new")).is_some_and(is_name);
            if left && file::stat_at(&self.0, &name).is_ok_and(|s| is_settled(s.modified)) {
                let removed = file::unlink(&self.0, &name);
                if let Err(e) = removed {
                    log::warn!("unfinished binary {name:?} cannot be removed, ignoring: {e:#}");
                }
            }
        }
        Ok(())
    }
}

/// Whether a file modified at this time, in seconds since 1970, is too old to be still in use by
/// the process that wrote it.
pub(crate) fn is_settled(modified: i64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    // A modification time in the future counts as old too: the clock was set back.
    !(0..=SETTLED).contains(&(now - modified))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn one_at_a_time_and_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptBinaries(
            file::open_subdir(file::open_dir(dir.path()).unwrap(), ".".as_ref()).unwrap(),
        );
        let id = "00112233-00112233445566778899aabbccddeeff";
        let mut first = std::fs::File::from(kept.begin(id).unwrap());
        assert!(kept.begin(id).is_none(), "two processes write the same file");
        first.write_all(b"hello").unwrap();
        assert_eq!((kept.size(id), kept.all().unwrap()), (None, vec![]));
        kept.finish(id).unwrap();
        assert_eq!(kept.size(id), Some(5));
        kept.begin(id).unwrap();
        kept.abandon(id).unwrap();
        assert_eq!(kept.size(id), Some(5));
        // It was kept just now; no core needs it later.
        assert_eq!(kept.unneeded(&BTreeSet::new()).unwrap(), []);
        let old = std::fs::File::open(dir.path().join(id)).unwrap();
        old.set_modified(UNIX_EPOCH).unwrap();
        assert_eq!(kept.unneeded(&BTreeSet::from([id.to_owned()])).unwrap(), []);
        assert_eq!(kept.unneeded(&BTreeSet::new()).unwrap().len(), 1);
        // Another crash needs it and has no record of that yet.
        assert_eq!(
            (kept.take(id), kept.take("content-00112233445566778899aabbccddeeff")),
            (Some(5), None)
        );
        assert_eq!(kept.unneeded(&BTreeSet::new()).unwrap(), []);
        // A killed helper left its unfinished file; the next helper takes over.
        let left = std::fs::File::from(kept.begin(id).unwrap());
        left.set_modified(UNIX_EPOCH).unwrap();
        assert!(kept.begin(id).is_some());
    }
}
