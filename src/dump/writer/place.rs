//! Where the core goes, and making its file as the kernel does.

use crate::cause::Cause;
use crate::sys::{Errno, OwnedFd, file, proc, resolve, user};

/// Where the core goes: the directory, which is opened once for all that is done there, and the
/// name. Symbolic links in the path are followed as the crasher would, magic links
/// (`/proc/self/root`) are not.
pub(crate) struct Place<'a> {
    /// The directory, opened.
    pub dir: OwnedFd,
    /// The name in it.
    pub name: &'a [u8],
    /// The whole path, for messages.
    pub shown: String,
}

impl<'a> Place<'a> {
    /// Opens the directory of `path`.
    ///
    /// # Errors
    /// There is no such directory, or the path names no file.
    pub(crate) fn of(path: &'a [u8], store: Option<&OwnedFd>) -> Result<Self, Cause> {
        let shown = path.escape_ascii().to_string();
        let fail = |e| Cause::open(&shown, e);
        if path.is_empty() {
            return Err(fail(Errno::NOENT));
        }
        if path.len() >= 4096 {
            return Err(fail(Errno::NAMETOOLONG));
        }
        let (dir, name) = split(path);
        if matches!(name, b"" | b"." | b"..") {
            return Err(fail(Errno::ISDIR));
        }
        let dir = resolve::open_dir_as_process(dir)
            .map_err(|e| Cause::Directory { path: shown.clone(), errno: e.raw_os_error() })?;
        let dir = from_the_hosts_side(dir, store);
        Ok(Place { dir, name, shown })
    }
}

/// The same directory by the host's mount of it, which is writable, where it is the container's in
/// the store.
pub(crate) fn from_the_hosts_side(dir: OwnedFd, store: Option<&OwnedFd>) -> OwnedFd {
    let id = |fd: &OwnedFd| file::stat(fd).ok().map(|s| s.id);
    match store {
        Some(store) if id(store) == id(&dir) => store.try_clone().unwrap_or(dir),
        _ => dir,
    }
}

/// The directory of a path, and the name in it.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(i) => (&path[..=i], &path[i + 1..]),
        None => (b".", path),
    }
}

/// Makes the file as the kernel's `coredump_file()` does: unlink, open with O_EXCL and O_NOFOLLOW,
/// then look at what was opened.
pub(crate) fn create(
    place: &Place<'_>,
    unlink_first: bool,
    fs_uid: u32,
    mapped: bool,
) -> Result<OwnedFd, Cause> {
    let Place { dir, name, shown } = place;
    let removed = if unlink_first { file::unlink(dir, proc::os(name)) } else { Ok(()) };
    let fd = file::create_exclusive(dir, proc::os(name), 0o600).map_err(|e| Cause::Open {
        path: shown.clone(),
        errno: e.raw_os_error(),
        kept: removed.err().filter(|_| e == Errno::EXIST).map(|why| format!("{why:#}")),
    })?;
    let stat = file::stat(&fd).map_err(|e| Cause::Failed(format!("{shown:?}: {e:#}")))?;
    // In a user namespace fstat shows the mapped ID, and the effective one is the same: the plan
    // lets no process through whose IDs differ.
    let owner = if mapped { user::effective_uid() } else { fs_uid };
    let rule = match stat {
        s if !s.regular => "it is not a regular file",
        s if s.links != 1 => "it has more than one link",
        s if s.uid != owner => "the file system gives new files another owner",
        s if s.mode & 0o677 != 0o600 => {
            "umask or file system take away the owner's right to read and write it"
        }
        _ => return Ok(fd),
    };
    Err(Cause::Unfit { path: shown.clone(), rule: rule.to_owned() })
}
