//! Resolves paths below a root that another user controls.

use super::file::open_dir;
use super::filesystem::is_fuse;
use anyhow::Result;
use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How a path is resolved below such a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    /// As a process with that root would: symbolic links are followed and stay inside.
    InRoot,
    /// Plain names only: a symbolic link is an error.
    NoLinks,
}

/// What a path must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// A file of any kind.
    Any,
    /// A directory; anything else is `ENOTDIR`.
    Directory,
}

/// Opens `path` below `root` with `O_PATH`. Magic links (`/proc/self/exe`) are never followed.
///
/// # References
/// openat2(2), Linux 5.6. `EAGAIN` (a rename raced with us) is tried again.
pub(crate) fn resolve(
    root: impl AsFd,
    path: &OsStr,
    below: Below,
    want: Want,
) -> rustix::io::Result<OwnedFd> {
    let how = match below {
        Below::InRoot => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        Below::NoLinks => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    };
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if want == Want::Directory {
        flags |= OFlags::DIRECTORY;
    }
    let mut tries = 0;
    loop {
        match fs::openat2(&root, path, flags, Mode::empty(), how) {
            Err(Errno::AGAIN) if tries < 32 => tries += 1,
            other => return other,
        }
    }
}

/// Opens the regular file `path` below `root` for reading. Anything else of that name (a FIFO, a
/// device) is detected before it is opened: `EINVAL`.
///
/// # References
/// openat2(2), Linux 5.6; proc(5), `/proc/self/fd`: how an `O_PATH` descriptor is opened again.
pub(crate) fn open_file_below(
    root: impl AsFd,
    path: &OsStr,
    below: Below,
) -> rustix::io::Result<std::fs::File> {
    open_file_by(own_files().map_err(|_| Errno::NOENT)?, root, path, below, OFlags::RDONLY)
}

/// Finds a path on the host (`O_PATH`). Names and links below `volume`, a directory of the host
/// that a container sees, are under the container's control and cannot lead out of it. Where there
/// is no volume, or the path is not below it, no link is followed at all.
pub(crate) fn on_host(path: &Path, volume: Option<&Path>) -> rustix::io::Result<OwnedFd> {
    let open = |dir: &Path| {
        open_dir(dir).map_err(|e| e.root_cause().downcast_ref().copied().unwrap_or(Errno::NOENT))
    };
    match volume.and_then(|volume| Some((volume, path.strip_prefix(volume).ok()?))) {
        Some((volume, rest)) => resolve(open(volume)?, rest.as_os_str(), Below::InRoot, Want::Any),
        None => {
            let root = Path::new("/");
            let rest = path.strip_prefix(root).map_err(|_| Errno::INVAL)?;
            resolve(open(root)?, rest.as_os_str(), Below::NoLinks, Want::Any)
        }
    }
}

/// Opens the regular file that [`on_host`] finds for reading.
pub(crate) fn open_file_on_host(
    path: &Path,
    volume: Option<&Path>,
) -> rustix::io::Result<std::fs::File> {
    let own = own_files().map_err(|_| Errno::NOENT)?;
    open_again(own, on_host(path, volume)?, OFlags::RDONLY)
}

/// The directory through which this process can reopen its descriptors, for a process that will
/// change its root, where /proc may be missing or forged.
///
/// # References
/// proc(5), `/proc/self/fd`.
pub(crate) fn own_files() -> Result<OwnedFd> {
    open_dir(Path::new("/proc/self/fd"))
}

/// The same for a process that has changed its root since; `own` is its [`own_files`].
pub(crate) fn open_file_in(
    own: impl AsFd,
    root: impl AsFd,
    path: &OsStr,
    below: Below,
) -> rustix::io::Result<std::fs::File> {
    open_file_by(own, root, path, below, OFlags::RDONLY)
}

/// Opens the regular file that an `O_PATH` descriptor refers to for reading, in such a process and
/// with its rights.
pub(crate) fn open_pinned_file(
    own: impl AsFd,
    file: impl AsFd,
) -> rustix::io::Result<std::fs::File> {
    open_again(own, file, OFlags::RDONLY)
}

/// Opens the regular file `name` in a directory for writing, in a process that has changed its root
/// since. Links and anything else of that name are refused.
pub(crate) fn open_to_write_in(
    own: impl AsFd,
    dir: impl AsFd,
    name: &OsStr,
) -> rustix::io::Result<std::fs::File> {
    open_file_by(own, dir, name, Below::NoLinks, OFlags::WRONLY)
}

fn open_file_by(
    own: impl AsFd,
    root: impl AsFd,
    path: &OsStr,
    below: Below,
    access: OFlags,
) -> rustix::io::Result<std::fs::File> {
    open_again(own, resolve(root, path, below, Want::Any)?, access)
}

fn open_again(
    own: impl AsFd,
    found: impl AsFd,
    access: OFlags,
) -> rustix::io::Result<std::fs::File> {
    use std::os::fd::AsRawFd;
    if FileType::from_raw_mode(fs::fstat(&found)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let again = found.as_fd().as_raw_fd().to_string();
    fs::openat(
        own,
        again.as_str(),
        access | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .map(Into::into)
}

/// Opens a directory as any program of this process would, below its root and from its working
/// directory, but through no magic link.
pub(crate) fn open_dir_as_process(path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat2(fs::CWD, OsStr::from_bytes(path), flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// Most symbolic links of one path, as `MAXSYMLINKS` of the kernel.
const LINKS: usize = 40;

/// Opens a directory by its absolute path, as root, where nobody but root can say where that leads:
/// every directory on the way belongs to root, and only root may change it. In one that others may
/// write to and that is sticky, directories of root's count, but no link: others may have moved one
/// of root's there. The last one may be anybody's. None is
/// on a file system that a process serves (FUSE), which can say anything, and reads what is
/// written.
///
/// # Errors
/// `EPERM`: somebody else could have changed the way.
///
/// # References
/// What `fs.protected_symlinks` (proc_sys_fs(5)) keeps others from, for every directory. Each is
/// opened, then looked at, and the next opened from it, so that no race changes it.
pub(crate) fn open_dir_of_root(path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let root = rustix::process::geteuid().as_raw();
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open_root = || fs::open("/", flags | OFlags::DIRECTORY, Mode::empty());
    let mut left: Vec<Vec<u8>> = names(path).rev().map(<[u8]>::to_vec).collect();
    let (mut here, mut links) = (open_root()?, 0);
    while let Some(name) = left.pop() {
        let stat = fs::fstat(&here)?;
        let (is_open, is_sticky) = (stat.st_mode & 0o022 != 0, stat.st_mode & 0o1000 != 0);
        if stat.st_uid != root || (is_open && !is_sticky) || is_fuse(&here) {
            return Err(Errno::PERM);
        }
        let next = fs::openat(&here, OsStr::from_bytes(&name), flags, Mode::empty())?;
        let found = fs::fstat(&next)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => here = next,
            FileType::Symlink if is_open => return Err(Errno::PERM),
            FileType::Symlink => {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP);
                }
                let to = fs::readlinkat(&next, "", Vec::new())?.into_bytes();
                if to.first() == Some(&b'/') {
                    here = open_root()?;
                }
                left.extend(names(&to).rev().map(<[u8]>::to_vec));
            }
            _ => return Err(Errno::NOTDIR),
        }
    }
    if is_fuse(&here) { Err(Errno::PERM) } else { Ok(here) }
}

fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Whoever runs this is "root" here: directories that are others' take root to make, and are in
    /// the attack tests.
    #[test]
    fn only_where_nobody_else_can_lead() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let path = |name: &str| top.join(name);
        let mode = |name: &str, mode| {
            std::fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).unwrap();
        };
        for name in ["own/last", "sticky/last", "open/last"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        for (name, bits) in [("own", 0o755), ("sticky", 0o1777), ("open", 0o777)] {
            mode(name, bits);
            symlink("last", path(name).join("link")).unwrap();
        }
        mode("own/last", 0o777);
        symlink(path("own/link"), path("own/far")).unwrap();
        symlink("round", path("round")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        let at = |name: &str| {
            open_dir_of_root(path(name).as_os_str().as_bytes()).map(|fd| {
                let id = |fd: &OwnedFd| fs::fstat(fd).map(|s| (s.st_dev, s.st_ino)).unwrap();
                let plain = open_dir(&path(name)).unwrap();
                assert_eq!(id(&fd), id(&plain), "{name}");
            })
        };
        // The directories above must be as those of a container: root's own.
        let is_roots = top.ancestors().skip(1).all(|above| {
            let meta = std::fs::metadata(above).unwrap();
            std::os::unix::fs::MetadataExt::uid(&meta) == rustix::process::geteuid().as_raw()
        });
        if !is_roots {
            assert_eq!(at("own/last"), Err(Errno::PERM));
            return;
        }
        let good = ["own/last", "own/./link", "own/far", "sticky/last", "open", "own/../own/last/"];
        for name in good {
            assert_eq!(at(name), Ok(()), "{name}");
        }
        for (name, e) in [
            // Root's own, but others may have moved it there.
            ("sticky/link", Errno::PERM),
            ("open/last", Errno::PERM),
            ("open/link", Errno::PERM),
            ("missing", Errno::NOENT),
            ("file", Errno::NOTDIR),
            ("round", Errno::LOOP),
        ] {
            assert_eq!(at(name), Err(e), "{name}");
        }
    }
}
