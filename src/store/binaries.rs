//! Executables and libraries of crashes, one file for each content, for the time when their
//! container has gone. They may be private: only root reads them.
//!
//! A new one is written under a name that only one process can have, and gets
//! its own when it is whole.

use crate::corefile::is_name;
use crate::sys::{Errno, OwnedFd, file};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is younger may belong to a crash whose record does not say so yet; an unfinished file that
/// is older was left behind.
const SETTLED: i64 = 600;

/// Below it each account has a directory, with a hard link to each binary that counts for it.
const BY: &str = "by";

/// One that an account has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub id: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// When it was needed last, in seconds since 1970.
    pub needed: i64,
}

/// The kept binaries, open.
#[derive(Debug)]
pub struct Binaries(OwnedFd);

fn unfinished(id: &str) -> OsString {
    format!("{id}.new").into()
}

impl Binaries {
    /// Those in this directory.
    pub(super) fn new(dir: OwnedFd) -> Self {
        Binaries(dir)
    }

    /// The size in bytes of a kept one.
    pub fn size(&self, id: &str) -> Option<u64> {
        Some(file::stat_at(&self.0, id.as_ref()).ok().filter(|s| s.regular)?.size)
    }

    /// The same, of one that is needed from now on: it stays until that can be seen by its record.
    pub fn take(&self, id: &str) -> Option<u64> {
        file::touch(&self.0, id.as_ref()).ok()?;
        self.size(id)
    }

    /// All of them: name and bytes on disk.
    pub fn all(&self) -> Result<Vec<(String, u64)>> {
        let names = file::names(&self.0)?;
        let ids = names.iter().filter_map(|n| n.to_str()).filter(|n| is_name(n));
        Ok(ids
            .filter_map(|id| {
                Some((id.to_owned(), file::stat_at(&self.0, id.as_ref()).ok()?.allocated))
            })
            .collect())
    }

    /// A new file for a binary, to be written; `None` if another process has that in hand.
    pub fn begin(&self, id: &str) -> Option<OwnedFd> {
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

    /// It is whole: from now on it has its name.
    pub fn finish(&self, id: &str) -> Result<()> {
        file::rename_new(&self.0, &unfinished(id), id.as_ref()).map(drop)
    }

    /// It did not come about.
    pub fn abandon(&self, id: &str) -> Result<()> {
        file::unlink(&self.0, &unfinished(id))
    }

    /// Removes one, whoever has it.
    pub fn remove(&self, id: &str) -> Result<()> {
        if let Ok(by) = file::open_subdir(&self.0, BY.as_ref()) {
            for account in file::names(&by)? {
                if let Ok(dir) = file::open_subdir(&by, &account) {
                    file::unlink(dir, id.as_ref())?;
                }
            }
        }
        file::unlink(&self.0, id.as_ref())
    }

    /// Which accounts there are.
    pub fn accounts(&self) -> Result<Vec<String>> {
        let Ok(by) = file::open_subdir(&self.0, BY.as_ref()) else { return Ok(Vec::new()) };
        Ok(file::names(&by)?.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    /// What an account has: names, bytes on disk and when they were needed last, the oldest first.
    pub fn of_account(&self, account: &str) -> Result<Vec<Held>> {
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

    /// Whether one counts for an account.
    pub fn has(&self, account: &str, id: &str) -> bool {
        let by = file::open_subdir(&self.0, BY.as_ref());
        by.and_then(|by| file::open_subdir(by, account.as_ref()))
            .and_then(|dir| file::stat_at(dir, id.as_ref()))
            .is_ok()
    }

    /// Counts one for an account. What several accounts have counts for each of them, and stays
    /// until the last gives it up.
    ///
    /// # Errors
    /// It has gone.
    pub fn claim(&self, account: &str, id: &str) -> Result<()> {
        file::link(&self.0, id.as_ref(), self.account(account)?, id.as_ref())
    }

    /// The account gives one up. It goes where no other one has it.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn give_up(&self, account: &str, id: &str) -> Result<()> {
        file::unlink(self.account(account)?, id.as_ref())?;
        match file::stat_at(&self.0, id.as_ref()) {
            Ok(stat) if stat.links == 1 => file::unlink(&self.0, id.as_ref()),
            _ => Ok(()),
        }
    }

    /// For who adds to an account: one at a time, or two that know nothing of each other would have
    /// its share twice. `None`: another one is at it for longer than `time`.
    pub fn alone(&self, account: &str, time: Duration) -> Result<Option<OwnedFd>> {
        let dir = self.account(account)?;
        Ok(file::lock_within(&dir, time)?.then_some(dir))
    }

    fn account(&self, account: &str) -> Result<OwnedFd> {
        file::make_dir(file::make_dir(&self.0, BY.as_ref(), 0o700)?, account.as_ref(), 0o700)
    }

    /// Which of them nothing needs, with their bytes on disk. Not those that were kept just now.
    pub fn unneeded(&self, needed: &BTreeSet<String>) -> Result<Vec<(String, u64)>> {
        let mut all = self.all()?;
        all.retain(|(id, _)| {
            !needed.contains(id)
                && file::stat_at(&self.0, id.as_ref()).is_ok_and(|s| is_settled(s.modified))
        });
        Ok(all)
    }

    /// Removes them all.
    pub fn clear(&self) -> Result<()> {
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

    /// Removes what was left behind by a helper that was killed, and accounts
    /// that have nothing any more.
    pub fn sweep(&self) -> Result<()> {
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

/// Whether a file that was written then is nobody's any more who is still at it.
pub fn is_settled(modified: i64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    // A clock that was set back makes it so as well.
    !(0..=SETTLED).contains(&(now - modified))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn one_at_a_time_and_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let kept =
            Binaries(file::open_subdir(file::open_dir(dir.path()).unwrap(), ".".as_ref()).unwrap());
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
        // It was kept just now; later nothing needs it.
        assert_eq!(kept.unneeded(&BTreeSet::new()).unwrap(), []);
        let old = std::fs::File::open(dir.path().join(id)).unwrap();
        old.set_modified(UNIX_EPOCH).unwrap();
        assert_eq!(kept.unneeded(&BTreeSet::from([id.to_owned()])).unwrap(), []);
        assert_eq!(kept.unneeded(&BTreeSet::new()).unwrap().len(), 1);
        // Another crash has come that needs it, and has not said so yet.
        assert_eq!(
            (kept.take(id), kept.take("content-00112233445566778899aabbccddeeff")),
            (Some(5), None)
        );
        assert_eq!(kept.unneeded(&BTreeSet::new()).unwrap(), []);
        // A helper that was killed left its file; the next one takes over.
        let left = std::fs::File::from(kept.begin(id).unwrap());
        left.set_modified(UNIX_EPOCH).unwrap();
        assert!(kept.begin(id).is_some());
    }
}
