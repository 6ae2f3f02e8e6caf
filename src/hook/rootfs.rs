//! The container's file system, seen from the host: opened by descriptor, with paths resolved below
//! its root, never through a path of the host.

use super::plan::DumpDirectory;
use super::unsupported_runtime;
use crate::store::DUMP_DIR_MODE;
use crate::sys::file;
use crate::sys::filesystem::{self, FsType};
use crate::sys::proc::Proc;
use crate::sys::resolve::{self, Below, Want};
use crate::sys::{Errno, OwnedFd, mount, ns, selinux, user};
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A container whose namespaces exist, and whose program usually does not run yet.
#[derive(Debug)]
pub(super) struct Rootfs {
    mount_ns: OwnedFd,
    path: PathBuf,
    /// The root directory, if the runtime has called pivot_root already (youki up to 0.5.7).
    pivoted: Option<OwnedFd>,
    /// User and group ID of the container's root, in our own user namespace.
    pub owner: (u32, u32),
    /// The SELinux label that files need which are put into the container, so that it may use them.
    /// `None` if SELinux is off.
    pub label: Option<String>,
}

impl Rootfs {
    /// Finds the file system of a container process. `path`: the bundle's
    /// root file system, absolute.
    ///
    /// # Errors
    /// The process is in the host's mount namespace, or is not a native
    /// container but a VMM or a sentry.
    pub(super) fn find(process: &Proc, pid: i32, path: PathBuf) -> Result<Self> {
        Self::find_native(process, pid, path)
            .map_err(|e| unsupported_runtime::reworded(process, pid, e))
    }

    fn find_native(process: &Proc, pid: i32, path: PathBuf) -> Result<Self> {
        let mount_ns = process.namespace("mnt")?;
        ensure!(
            ns::inode(&mount_ns)? != ns::own("mnt")?,
            "unsupported runtime or container: process {pid} is in the host's mount namespace (a \
             VMM, or a container without one of its own)"
        );
        let root = process.directory("root")?;
        let here = file::open_dir(&path).and_then(file::stat).map(|s| s.id).ok();
        let pivoted = (Some(file::stat(&root)?.id) == here).then_some(root);
        // For our own user namespace /proc shows the mapping to the outside; within it, root is 0.
        let inside = user::run_by() != user::RunBy::Root
            && ns::inode(process.namespace("user")?)? == ns::own("user")?;
        let owner = if inside { (0, 0) } else { process.mapped_root()? };
        let found = Rootfs { mount_ns, path, pivoted, owner, label: None };
        if found.pivoted.is_none() {
            let (_, is_mount) = found.in_mount_ns(|root| filesystem::mount_of(root))?;
            ensure!(
                is_mount,
                "unsupported runtime: {} is no mount point in the mount namespace of process {pid} \
                 (a VMM or a sentry?)",
                found.path.display()
            );
        }
        Ok(found)
    }

    /// The file system of a running container: the root directory of the process.
    ///
    /// # Errors
    /// The process is in the host's mount namespace.
    pub(super) fn running(process: &Proc, pid: i32) -> Result<Self> {
        let mount_ns = process.namespace("mnt")?;
        ensure!(
            ns::inode(&mount_ns)? != ns::own("mnt")?,
            "process {pid} is in the host's mount namespace: it is in no container, or in one \
             without its own"
        );
        let root = process.directory("root")?;
        // No config.json is at hand; engines give all of the container's files the same label.
        let label = file::reopen_dir(&root).and_then(selinux::label_of).unwrap_or_else(|e| {
            log::warn!(
                "process {pid}: the SELinux label of its root is not known, ignoring: {e:#}"
            );
            None
        });
        Ok(Rootfs {
            mount_ns,
            path: PathBuf::new(),
            pivoted: Some(root),
            owner: process.mapped_root()?,
            label,
        })
    }

    /// Removes a directory of the container if it is empty.
    pub(super) fn remove_empty(&self, inside: &Path) -> Result<()> {
        let (Some(parent), Some(name)) = (inside.parent(), inside.file_name()) else {
            return Ok(());
        };
        match self.look(parent, Want::Directory)? {
            Some((parent, _)) => {
                self.in_mount_ns(|_| file::remove_empty_dir(&parent, name).map(drop))
            }
            None => Ok(()),
        }
    }

    /// Opens the file or directory `inside`, if it exists, and returns it with its status.
    pub(super) fn look(&self, inside: &Path, want: Want) -> Result<Option<(OwnedFd, file::Stat)>> {
        let below = inside.strip_prefix("/").unwrap_or(inside).as_os_str();
        let found = self.in_mount_ns(|root| {
            if below.is_empty() {
                return root.try_clone().map(Some).context("dup");
            }
            match resolve::resolve(root, below, Below::InRoot, want) {
                Err(Errno::NOENT) => Ok(None),
                other => Ok(Some(
                    other.with_context(|| format!("openat2({inside:?}) in the container"))?,
                )),
            }
        })?;
        found.map(|fd| file::stat(&fd).map(|s| (fd, s))).transpose()
    }

    /// Runs `work` in the container's mount namespace, with its root directory.
    pub(super) fn in_mount_ns<T>(&self, work: impl FnOnce(&OwnedFd) -> Result<T>) -> Result<T> {
        ns::in_mount_ns(&self.mount_ns, || match &self.pivoted {
            Some(root) => work(root),
            None => work(&file::open_dir(&self.path).context("the container's root file system")?),
        })
    }

    /// Makes the directory `inside` if it does not exist, and examines it. `made` is told each
    /// directory that was made, also if the next one fails.
    ///
    /// # Errors
    /// It is not a directory, cannot be made, or is on a file system that holds no files.
    pub(super) fn directory(
        &self,
        inside: &str,
        made: impl FnMut(PathBuf),
    ) -> Result<(OwnedFd, DumpDirectory)> {
        self.in_mount_ns(|root| {
            let dir = self
                .make_below(root, Path::new(inside), made)
                .with_context(|| format!("dump directory {inside:?} of the container"))?;
            let fs = filesystem::fs_type(&dir)?;
            ensure!(
                !matches!(fs, FsType::Proc | FsType::Kernel),
                "dump directory {inside:?} of the container is on a file system of the kernel"
            );
            let found = DumpDirectory {
                mounted: filesystem::mount_of(&dir)?.0 != filesystem::mount_of(root)?.0,
                memory: fs == FsType::Memory,
                empty: file::is_empty_dir(file::reopen_dir(&dir)?)?,
            };
            Ok((dir, found))
        })
    }

    /// Mounts the container's own value over the file `name` of `/proc/sys/kernel`. `false` if
    /// the container has no /proc.
    pub(super) fn show(&self, name: &str, view: &OwnedFd) -> Result<bool> {
        self.in_mount_ns(|root| {
            let path = format!("proc/sys/kernel/{name}");
            let sysctl = match resolve::resolve(root, path.as_ref(), Below::NoLinks, Want::Any) {
                Err(Errno::NOENT) => return Ok(false),
                other => other.with_context(|| format!("openat2({path:?})"))?,
            };
            if filesystem::fs_type(&sysctl)? != FsType::Proc {
                return Ok(false);
            }
            mount::attach(view, &sysctl).with_context(|| format!("the container's /{path}"))?;
            Ok(true)
        })
    }

    /// Unmounts the container's view of a sysctl.
    pub(super) fn hide(&self, name: &str) -> Result<()> {
        self.in_mount_ns(|root| {
            let directory =
                resolve::resolve(root, "proc/sys/kernel".as_ref(), Below::NoLinks, Want::Directory)
                    .context("openat2(\"proc/sys/kernel\")")?;
            mount::detach_file(&directory, name)
        })
    }

    /// Attaches a detached mount tree to a directory that [`Rootfs::directory`] found.
    pub(super) fn attach(&self, tree: &OwnedFd, onto: &OwnedFd) -> Result<()> {
        self.in_mount_ns(|_| mount::attach(tree, onto).context("the dump directory"))
    }

    /// Gives a directory or file the label that lets the container use it.
    pub(super) fn give_label(&self, to: &OwnedFd) -> Result<()> {
        self.label.as_ref().map_or(Ok(()), |label| selinux::set_label(to, label))
    }

    /// Walks down `path` below `root` and makes the missing directories, owned by the container's
    /// root: the last with mode 1777, those above it with 0755.
    fn make_below(
        &self,
        root: &OwnedFd,
        path: &Path,
        mut made: impl FnMut(PathBuf),
    ) -> Result<OwnedFd> {
        let names: Vec<&OsStr> = path
            .components()
            .filter_map(|c| if let std::path::Component::Normal(n) = c { Some(n) } else { None })
            .collect();
        let mut here = root.try_clone().context("dup")?;
        let mut walked = PathBuf::new();
        for (i, name) in names.iter().enumerate() {
            walked.push(name);
            // Resolved from the root each time, so that a link is followed as the
            // container would follow it.
            match resolve::resolve(root, walked.as_os_str(), Below::InRoot, Want::Directory) {
                Ok(next) => here = next,
                Err(Errno::NOENT) => {
                    let mode = if i + 1 == names.len() { DUMP_DIR_MODE } else { 0o755 };
                    match file::mkdirat(&here, name, mode) {
                        Ok(()) => made(Path::new("/").join(&walked)),
                        Err(Errno::EXIST) => {
                            bail!("{walked:?} is a symbolic link that leads nowhere")
                        }
                        Err(e) => return Err(e).with_context(|| format!("mkdirat({walked:?})")),
                    }
                    let next = resolve::resolve(&here, name, Below::NoLinks, Want::Directory)
                        .with_context(|| format!("openat2({walked:?})"))?;
                    let dir = file::reopen_dir(&next)?;
                    file::chmod(&dir, mode)?;
                    file::chown(&dir, self.owner.0, self.owner.1)?;
                    self.give_label(&dir)?;
                    here = next;
                }
                Err(e) => {
                    return Err(e).with_context(|| format!("openat2({walked:?}, O_DIRECTORY)"));
                }
            }
        }
        Ok(here)
    }
}
