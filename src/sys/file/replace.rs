//! Files that a reader sees complete or not at all, and what depends on their age.

use super::open::{create_new, open_read, remove_empty_dir, reopen_dir, unlink, write_new};
use anyhow::{Context, Result};
use rustix::fs::{self, AtFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

/// Writes `content` as `name` below `dir`: a new file beside it, then a rename, so that a reader
/// sees the old or the new one complete.
pub(crate) fn replace(dir: impl AsFd, name: &OsStr, content: &[u8], mode: u32) -> Result<()> {
    let temp = temporary(name);
    match write_new(&dir, &temp, content, mode).and_then(|()| {
        fs::renameat(&dir, &temp, &dir, name).with_context(|| format!("renameat({name:?})"))
    }) {
        Ok(()) => Ok(()),
        Err(e) => {
            let _ = fs::unlinkat(&dir, &temp, AtFlags::empty());
            Err(e)
        }
    }
}

/// The same for what must survive a power failure: the bytes are on disk before the name is, and
/// the name when this returns. An empty directory in its place is removed.
pub(crate) fn replace_durably(
    dir: impl AsFd,
    name: &OsStr,
    content: &[u8],
    mode: u32,
) -> Result<()> {
    use std::io::Write;
    let temp = temporary(name);
    let attempt = || -> Result<()> {
        let mut file = create_new(&dir, &temp, mode)?;
        file.write_all(content).with_context(|| format!("write({name:?})"))?;
        fs::fsync(&file).with_context(|| format!("fsync({name:?})"))?;
        let rename = || fs::renameat(&dir, &temp, &dir, name);
        match rename() {
            Err(Errno::ISDIR) => {
                remove_empty_dir(&dir, name).map(drop).and_then(|()| Ok(rename()?))
            }
            other => other.map_err(Into::into),
        }
        .with_context(|| format!("renameat({name:?})"))?;
        // A descriptor of O_PATH cannot be synced.
        fs::fsync(reopen_dir(&dir)?).context("fsync of the directory")
    };
    attempt().inspect_err(|_| {
        let _ = fs::unlinkat(&dir, &temp, AtFlags::empty());
    })
}

fn temporary(name: &OsStr) -> OsString {
    let mut temp = name.to_os_string();
    temp.push(format!(".{}.new", std::process::id()));
    temp
}

/// Renames a file within a directory to a name that does not exist yet.
/// Returns whether that was so.
pub(crate) fn rename_new(dir: impl AsFd, from: &OsStr, to: &OsStr) -> Result<bool> {
    let made = match fs::linkat(&dir, from, &dir, to, AtFlags::empty()) {
        Err(Errno::EXIST) => false,
        other => {
            other.with_context(|| format!("linkat({from:?}, {to:?})"))?;
            true
        }
    };
    unlink(dir, from)?;
    Ok(made)
}

/// Sets a file's modification time to now.
///
/// # References
/// utimensat(2).
pub(crate) fn touch(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    let now = fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW };
    fs::utimensat(
        dir,
        name,
        &fs::Timestamps { last_access: now, last_modification: now },
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// Whether a recurring task is due, by the age of the empty file `stamp`. If so,
/// records that it runs now.
pub(crate) fn is_due(dir: impl AsFd, stamp: &OsStr, every: Duration) -> bool {
    let old =
        open_read(&dir, stamp).ok().and_then(|f| f.metadata().and_then(|m| m.modified()).ok());
    // A clock that was set back makes it due too.
    let due =
        old.is_none_or(|t| SystemTime::now().duration_since(t).map_or(true, |age| age > every));
    due && replace(dir, stamp, b"", 0o600).is_ok()
}

/// Time since `time`, which is in seconds since 1970. A time in the future counts as now.
pub(crate) fn age(time: i64) -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.saturating_sub(Duration::from_secs(u64::try_from(time).unwrap_or(0)))
}
