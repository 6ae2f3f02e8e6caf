//! Where the core goes, and making its file as the kernel does.

use crate::cause::Cause;
use crate::sys::{Errno, OwnedFd, file, proc, resolve};

/// Where the core goes: the directory, which is opened once for all that is done there, and the
/// name. Symbolic links in the path are followed as the crasher would, magic links
/// (`/proc/self/root`) are not. In dump mode 2 only root's own are: somebody else must not lead
/// root's writer elsewhere.
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
    /// There is no such directory, or the path names no file; or, with `is_roots`, somebody else
    /// than root could change where it leads.
    pub(crate) fn of(
        path: &'a [u8],
        store: Option<&OwnedFd>,
        is_roots: bool,
    ) -> Result<Self, Cause> {
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
        let opened = match is_roots {
            true => resolve::open_dir_of_root(dir),
            false => resolve::open_dir_as_process(dir),
        };
        let dir = opened.map_err(|e| match e {
            Errno::PERM if is_roots => Cause::RootsCore(format!(
                "somebody else than root, or who serves a FUSE file system, could lead {shown:?} \
                 elsewhere"
            )),
            e => Cause::Directory { path: shown.clone(), errno: e.raw_os_error() },
        })?;
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
/// then look at what was opened. `owner`: of new files.
pub(crate) fn create(place: &Place<'_>, unlink_first: bool, owner: u32) -> Result<OwnedFd, Cause> {
    let Place { dir, name, shown } = place;
    let removed = if unlink_first { file::unlink(dir, proc::os(name)) } else { Ok(()) };
    let fd = file::create_exclusive(dir, proc::os(name), 0o600).map_err(|e| Cause::Open {
        path: shown.clone(),
        errno: e.raw_os_error(),
        kept: removed.err().filter(|_| e == Errno::EXIST).map(|why| format!("{why:#}")),
    })?;
    let stat = file::stat(&fd).map_err(|e| Cause::Failed(format!("{shown:?}: {e:#}")))?;
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
