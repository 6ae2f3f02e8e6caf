//! A root file system for containers: busybox with all its applets, two users, and
//! whatever the test puts in.
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::require;

/// A directory that is a container's `/`. It belongs to the bundle (or test) whose
/// directory it was made in.
pub struct Rootfs {
    path: PathBuf,
}

impl Rootfs {
    /// Makes `path` (which must not exist) and fills it: /bin/busybox and its applets, /etc/passwd
    /// with root and user (1000), the mount points of the runtimes' default specification, /tmp
    /// with the sticky bit, /home/user.
    pub fn make(path: &Path) -> Self {
        let rootfs = Self { path: path.to_owned() };
        for directory in [
            "bin",
            "dev",
            "etc",
            "home/user",
            "proc",
            "root",
            "run",
            "sbin",
            "sys",
            "tmp",
            "usr/bin",
            "var",
        ] {
            fs::create_dir_all(path.join(directory)).unwrap();
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(path.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        chown(path.join("home/user"), Some(1000), Some(1000)).unwrap();
        fs::write(
            path.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n",
        )
        .unwrap();
        fs::write(path.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();

        let busybox = require::find("busybox").expect("busybox-static is not installed");
        rootfs.put(&busybox, "/bin/busybox");
        let applets = Command::new(&busybox).arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(applets).unwrap().lines().filter(|name| *name != "busybox")
        {
            symlink("busybox", path.join("bin").join(applet)).unwrap();
        }
        rootfs
    }

    /// Copies an executable of the host to `inside` (an absolute path in the container), mode 0755.
    pub fn put(&self, host: &Path, inside: &str) {
        let target = self.host_path(inside);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(host, &target)
            .unwrap_or_else(|cause| panic!("copy {host:?} to {target:?}: {cause}"));
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The same with the libraries that it is linked with, under the paths that they have here.
    pub fn put_dynamic(&self, program: &Path, inside: &str) {
        self.put(program, inside);
        let output = Command::new("ldd").arg(program).output().unwrap();
        // A static one: ldd says so on standard error.
        for library in String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            self.put(Path::new(library), library);
        }
    }

    /// Makes a directory with exactly this mode.
    pub fn directory(&self, inside: &str, mode: u32) {
        let path = self.host_path(inside);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Where the container's absolute path `inside` is on the host. Follows nothing: for paths
    /// that the test itself made.
    pub fn host_path(&self, inside: &str) -> PathBuf {
        self.path.join(inside.strip_prefix('/').expect("a path in a container is absolute"))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Shifts the owner of every file by `base`, as an engine does for a
    /// container with a user namespace.
    pub fn shift_owners(&self, base: u32) {
        shift(&self.path, base);
    }
}

fn shift(path: &Path, base: u32) {
    use std::os::unix::fs::{MetadataExt, lchown};
    let meta = path.symlink_metadata().unwrap();
    lchown(path, Some(meta.uid() + base), Some(meta.gid() + base)).unwrap();
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            shift(&entry.unwrap().path(), base);
        }
    }
}
