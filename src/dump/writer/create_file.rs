//! Where the core goes, and making its file as the kernel does.

use super::crasher::open_dir;
use crate::cause::Cause;
use crate::dump::policy::plan::{CorePlan, Rights};
use crate::dump::policy::quota;
use crate::name_conflict::{Existing, LAST};
use crate::store::DUMP_DIR_MODE;
use crate::sys::filesystem::{self, FsType};
use crate::sys::resolve::{self, Below, Want};
use crate::sys::{Errno, OwnedFd, file, proc};

/// Permissions of a core, before the umask.
const MODE: u32 = 0o600;

/// Where the core goes: the directory, which is opened once for all that is done there, and the
/// name. Symbolic links in the path are followed as the crasher would, magic links
/// (`/proc/self/root`) are not. In dump mode 2 only root's own are: somebody else must not lead
/// root's writer elsewhere.
pub(crate) struct OpenedDirectory<'a> {
    pub dir: OwnedFd,
    pub name: &'a [u8],
    /// The whole path, for messages.
    pub shown: String,
}

impl<'a> OpenedDirectory<'a> {
    /// Opens the directory of the core's path, and makes the directories that a specifier names
    /// where that is wanted. `umask`: the crasher's, which this process has.
    ///
    /// # Errors
    /// There is no such directory, or the path names no file; or, for the core of the container's
    /// root, somebody else than root could change where it leads.
    pub(crate) fn of(
        core_file: &'a CorePlan,
        store: Option<&OwnedFd>,
        umask: u32,
    ) -> Result<Self, Cause> {
        let path = core_file.path.as_slice();
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
        let is_roots = core_file.rights == Rights::ContainerRoot;
        let opened = match core_file.made_below {
            Some(fixed) => made_below(core_file, fixed.min(dir.len()), store, umask),
            None => Ok(open_dir(core_file.rights, dir)),
        };
        let dir = opened?.map_err(|e| match e {
            Errno::PERM if is_roots => Cause::RootsCore(format!(
                "another user than root, or a FUSE server, could redirect {shown:?}"
            )),
            e => Cause::Directory { path: shown.clone(), errno: e.raw_os_error() },
        })?;
        let dir = from_the_hosts_side(dir, store);
        Ok(OpenedDirectory { dir, name, shown })
    }
}

/// Most directories that a pattern may name below the fixed one.
const DEPTH: usize = 16;

/// Opens a directory whose first `fixed` bytes name one that is there before any crash. What is
/// missing below that is made, for all of the container's users, as its directory of the store is.
/// Below it no link is followed. The inner error is of the file system.
///
/// # Errors
/// The disk has no room for the core: then nothing is made.
fn made_below(
    core_file: &CorePlan,
    fixed: usize,
    store: Option<&OwnedFd>,
    umask: u32,
) -> Result<Result<OwnedFd, Errno>, Cause> {
    let (path, _) = split(&core_file.path);
    let (fixed, below) = path.split_at(fixed);
    let base = match resolve::open_dir_as_process(fixed) {
        Ok(base) => base,
        Err(e) => return Ok(Err(e)),
    };
    let is_stored = store.is_some_and(|store| same(store, &base));
    // On a volume a directory that is there is found as the kernel finds it.
    if !is_stored {
        match resolve::open_dir_as_process(path) {
            Err(Errno::NOENT) => {}
            found => return Ok(found),
        }
    }
    let base = from_the_hosts_side(base, store);
    let space = filesystem::space(&base).ok().filter(|space| space.kind != FsType::Memory);
    if let (Some(space), Some(min_free)) = (space, core_file.min_free) {
        quota::inodes(min_free, space.files, space.files_available)?;
        quota::space(min_free, space.total, space.available)?;
    }
    Ok(make(base, below, umask))
}

/// Opens the directory `below` another one, making what is missing.
fn make(base: OwnedFd, below: &[u8], umask: u32) -> Result<OwnedFd, Errno> {
    let mut dir = base;
    let parts = || below.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b"."));
    if parts().count() > DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    for part in parts() {
        let name = proc::os(part);
        let open = || resolve::resolve(&dir, name, Below::NoLinks, Want::Directory);
        dir = match open() {
            Err(Errno::NOENT) => {
                file::set_umask(0);
                let made = file::mkdirat(&dir, name, DUMP_DIR_MODE);
                file::set_umask(umask);
                // Another crash of the container may make it at the same time.
                match made {
                    Ok(()) | Err(Errno::EXIST) => open()?,
                    Err(e) => return Err(e),
                }
            }
            other => other?,
        };
    }
    Ok(dir)
}

fn same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let id = |fd: &OwnedFd| file::stat(fd).ok().map(|s| s.id);
    id(one).is_some() && id(one) == id(other)
}

/// The same directory by the host's mount of it, which is writable, where it is the container's in
/// the store.
fn from_the_hosts_side(dir: OwnedFd, store: Option<&OwnedFd>) -> OwnedFd {
    match store {
        Some(store) if same(store, &dir) => store.try_clone().unwrap_or(dir),
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

/// How often a name is tried that others take and give up at the same time: replicas of a container
/// on one volume, each with the same PID.
const TRIES: usize = 64;

/// A file that was made.
pub(crate) struct Made {
    /// The file, opened for writing.
    pub file: OwnedFd,
    /// The number that its name got; 1 is the name without one.
    pub number: u32,
}

/// What the file is to be.
pub(crate) struct FileSpec<'a> {
    /// The path, and what happens where it exists.
    pub core_file: &'a CorePlan,
    /// What has the name is not unlinked: its label must stay as it is.
    pub keep_old: bool,
    /// Whose new files are, as this process sees it.
    pub owner: u32,
}

/// Makes the file as the kernel's `coredump_file()` does: unlink, open with O_EXCL and O_NOFOLLOW,
/// then look at what was opened. Nobody else's file is opened, however many make one at once.
pub(crate) fn create(
    directory: &OpenedDirectory<'_>,
    wanted: &FileSpec<'_>,
) -> Result<Made, Cause> {
    let existing = match wanted.core_file.existing {
        Existing::Replace if wanted.keep_old => Existing::Keep,
        existing => existing,
    };
    let made = match existing {
        Existing::Replace => replace(directory),
        Existing::Keep => exclusive(directory, 1).map_err(|e| match e {
            Errno::EXIST if !wanted.keep_old => directory.exists(existing),
            e => Cause::open(&directory.shown, e),
        }),
        Existing::Number => number(directory, wanted.core_file),
    }?;
    let stat = file::stat(&made.file)
        .map_err(|e| Cause::Failed(format!("{:?}: {e:#}", directory.shown)))?;
    let owner = wanted.owner;
    let rule = match stat {
        s if !s.regular => "it is not a regular file",
        // One that has lost its name already is this core all the same: another crash has the name.
        s if s.links > 1 => "it has more than one link",
        s if s.uid != owner => "the file system gives new files another owner",
        s if s.mode & 0o677 != 0o600 => {
            "umask or file system take away the owner's right to read and write it"
        }
        _ => return Ok(made),
    };
    Err(Cause::Unfit { path: directory.shown.clone(), rule: rule.to_owned() })
}

/// The name is the new core's. The kernel tries once; whoever comes last has it here.
fn replace(directory: &OpenedDirectory<'_>) -> Result<Made, Cause> {
    for last in [false; TRIES - 1].into_iter().chain([true]) {
        let removed = file::unlink(&directory.dir, proc::os(directory.name));
        match exclusive(directory, 1) {
            Err(Errno::EXIST) if removed.is_ok() && !last => {}
            made => {
                return made.map_err(|e| Cause::Open {
                    path: directory.shown.clone(),
                    errno: e.raw_os_error(),
                    kept: removed.err().filter(|_| e == Errno::EXIST).map(|why| format!("{why:#}")),
                });
            }
        }
    }
    Err(Cause::open(&directory.shown, Errno::EXIST))
}

/// The first number that is free.
fn number(directory: &OpenedDirectory<'_>, core_file: &CorePlan) -> Result<Made, Cause> {
    for number in 1..=LAST {
        let path = core_file.with_number(number).path;
        let (_, name) = split(&path);
        match file::create_exclusive(&directory.dir, proc::os(name), MODE) {
            Ok(file) => return Ok(Made { file, number }),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(Cause::open(&path.escape_ascii().to_string(), e)),
        }
    }
    Err(directory.exists(Existing::Number))
}

fn exclusive(directory: &OpenedDirectory<'_>, number: u32) -> Result<Made, Errno> {
    let file = file::create_exclusive(&directory.dir, proc::os(directory.name), MODE)?;
    Ok(Made { file, number })
}

impl OpenedDirectory<'_> {
    fn exists(&self, existing: Existing) -> Cause {
        Cause::Exists { path: self.shown.clone(), existing }
    }
}

#[cfg(test)]
mod tests;
