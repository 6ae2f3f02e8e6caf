//! What is kept of an account between two crashes: a directory for each, for which see
//! [`super::Entry::account`]. Its lock guards all that is changed in it.
//!
//! ```text
//! slot-<n>, memory     the dumps at a time, tokens and cores: `dump::slots`
//! after-<n>            the summaries at a time
//! records, refusals    the account's records, and crashes that are counted in one of them
//! kept                 the files of the last core, which are not read again for the next one
//! lines                how many lines of it the log has had
//! ```

use super::{Registry, check_id};
use crate::sys::file;
use anyhow::{Context, Result};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The account of all containers together, and the account of crashes that
/// go to the earlier handler.
const HOST: &str = ".host";
const FORWARDED: &str = ".forwarded";

/// How long an account is remembered after the last crash that was counted for it.
const ACCOUNTS: Duration = Duration::from_secs(7 * 24 * 3600);

impl Registry {
    /// The directory in which the dispatcher keeps the state of an account's limits between
    /// crashes; for accounts see [`super::Entry::account`].
    pub(crate) fn limits_dir(&self, account: &str) -> Result<OwnedFd> {
        check_id(account.strip_prefix('.').unwrap_or(account))?;
        let all = match self.limits.get() {
            Some(all) => all,
            None => {
                let all = file::make_dir(&self.run, "limits".as_ref(), 0o700)?;
                self.limits.get_or_init(|| all)
            }
        };
        file::make_dir(all, account.as_ref(), 0o700)
    }

    /// The directory for the limits of all containers together.
    pub(crate) fn host_limits_dir(&self) -> Result<OwnedFd> {
        self.limits_dir(HOST)
    }

    /// The directory for the limits of crashes that go to the earlier handler.
    pub(crate) fn forwarded_dir(&self) -> Result<OwnedFd> {
        self.limits_dir(FORWARDED)
    }

    /// Removes the directory of one account and everything in it.
    pub(crate) fn forget_limits(&self, account: &str) -> Result<()> {
        let Ok(all) = file::open_subdir(&self.run, "limits".as_ref()) else { return Ok(()) };
        let Ok(dir) = file::open_subdir(&all, account.as_ref()) else { return Ok(()) };
        for name in file::names(&dir)? {
            file::unlink(&dir, &name)?;
        }
        file::remove_empty_dir(&all, account.as_ref()).map(drop)
    }

    /// Removes the accounts that outlive their containers and have had no crash for a week. There
    /// may be many, so this does not run under the registry's lock.
    pub(crate) fn forget_old_accounts(&self) -> Result<()> {
        let Ok(all) = file::open_subdir(&self.run, "limits".as_ref()) else { return Ok(()) };
        for name in file::names(&all)? {
            let Some(account) = name.to_str().filter(|n| n.starts_with('.')) else { continue };
            if matches!(account, HOST | FORWARDED) {
                continue;
            }
            let newest = |dir: &OwnedFd| -> Result<i64> {
                let times = file::names(dir)?.into_iter();
                let times = times.filter_map(|n| Some(file::stat_at(dir, &n).ok()?.modified));
                Ok(times.max().unwrap_or(0))
            };
            let age = file::open_subdir(&all, &name)
                .context("open an account")
                .and_then(|dir| newest(&dir))
                .map(file::age)?;
            if age > ACCOUNTS {
                self.forget_limits(account)?;
            }
        }
        Ok(())
    }
}
