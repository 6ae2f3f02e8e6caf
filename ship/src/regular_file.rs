//! Files that are opened without waiting for anybody.

use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{Error, Result};
use std::path::Path;

/// Opens a regular file for reading; nothing else, such as a FIFO, which would have to be waited
/// for. `flags`: `NOFOLLOW` where the name may not be a link's.
///
/// # Errors
/// It is not there, or is something else.
pub(crate) fn open_regular(path: &Path, flags: OFlags) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | flags;
    let file: File = rustix::fs::open(path, flags, Mode::empty())?.into();
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(Error::other("it is no regular file")),
    }
}
