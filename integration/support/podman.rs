//! podman over a given runtime, with a storage, a run directory, a cgroup and a hooks directory of
//! its own; all of it is removed on drop, containers and mounts first.
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::rootfs::Rootfs;
use crate::runtime::{Kind, Runtime};
use crate::wait::becomes;

/// The name of the image that [`Podman::new`] makes from a [`Rootfs`].
pub const IMAGE: &str = "localhost/busybox";

/// An engine. Containers are named by the tests; they all go away with it.
pub struct Podman {
    runtime: Runtime,
    scratch: TempDir,
}

impl Podman {
    /// podman over `kind`, with the image [`IMAGE`]: the busybox root file system after `fill` put
    /// its files in. podman and the runtime must be there: ask `require::programs` first.
    pub fn new(kind: Kind, fill: impl FnOnce(&Rootfs)) -> Self {
        let scratch = tempfile::Builder::new().prefix("podman").tempdir().unwrap();
        // A container in a user namespace must be able to reach its root.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let podman = Self { runtime: Runtime::new(kind), scratch };
        fs::create_dir(podman.hooks()).unwrap();

        let rootfs = Rootfs::make(&podman.scratch.path().join("image"));
        fill(&rootfs);
        let archive = podman.scratch.path().join("image.tar");
        let tar = Command::new("tar")
            .arg("-C")
            .arg(rootfs.path())
            .arg("-cf")
            .arg(&archive)
            .arg(".")
            .status()
            .unwrap();
        assert!(tar.success(), "tar of the image");
        podman.succeed(podman.command().args(["import", "--quiet"]).arg(&archive).arg(IMAGE));
        podman
    }

    pub fn kind(&self) -> Kind {
        self.runtime.kind()
    }

    /// The directory that podman reads hooks from.
    pub fn hooks(&self) -> PathBuf {
        self.scratch.path().join("hooks.d")
    }

    /// podman with its global options; the verb comes next.
    pub fn command(&self) -> Command {
        let scratch = self.scratch.path();
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(scratch.join("storage"))
            .arg("--runroot")
            .arg(scratch.join("run"))
            .arg("--tmpdir")
            .arg(scratch.join("tmp"))
            .arg("--runtime")
            .arg(self.runtime.program())
            .arg("--hooks-dir")
            .arg(self.hooks())
            // No systemd, no network, no journal: the tests run in containers
            // and virtual machines too.
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"])
            .stdin(Stdio::null());
        command
    }

    /// `podman run OPTIONS IMAGE ARGS`, as a command.
    pub fn run_command(&self, options: &[&str], args: &[&str]) -> Command {
        let mut command = self.command();
        command
            .args(["run", "--network", "none", "--cgroup-parent", &self.cgroup()])
            // podman asks for limits that root without CAP_SYS_RESOURCE cannot have.
            .args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"])
            .args(options)
            .arg(IMAGE)
            .args(args);
        command
    }

    /// `podman run OPTIONS IMAGE ARGS`: the output and exit status.
    pub fn run(&self, options: &[&str], args: &[&str]) -> Output {
        self.run_command(options, args).output().unwrap()
    }

    /// `podman run --detach --name NAME`: returns the container ID when the container is started.
    pub fn start(&self, name: &str, options: &[&str], args: &[&str]) -> String {
        let mut all = vec!["--detach", "--name", name];
        all.extend(options);
        // conmon would hold a pipe on standard error open.
        self.succeed(&mut self.run_command(&all, args)).trim().to_owned()
    }

    /// Any verb, which must succeed: its standard output.
    pub fn verb<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        self.succeed(self.command().args(args))
    }

    /// `podman exec NAME ARGS`.
    pub fn exec(&self, name: &str, args: &[&str]) -> Output {
        self.command().args(["exec", name]).args(args).output().unwrap()
    }

    /// Standard output of an exec'd `sh -c SCRIPT`, which must succeed.
    pub fn sh(&self, name: &str, script: &str) -> String {
        self.verb(&["exec", name, "/bin/sh", "-c", script])
    }

    fn succeed(&self, command: &mut Command) -> String {
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "podman over {}: {command:?}: {output:?}",
            self.kind().name()
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The cgroup below which its containers are.
    pub fn cgroup(&self) -> String {
        format!("/{}", self.scratch.path().file_name().unwrap().display())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        match self.command().args(["rm", "--force", "--all", "--time", "0"]).output() {
            Ok(output) if output.status.success() => {}
            other => eprintln!("podman rm: {other:?}"),
        }
        // conmon's last act is a `podman container cleanup`, which mounts the storage again: first
        // wait for them to be gone.
        remove_cgroups(&self.cgroup());
        unmount_below(self.scratch.path());
    }
}

/// podman leaves its storage mounted.
fn unmount_below(directory: &Path) {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    for point in points
        .filter(|point| Path::new(point).starts_with(directory))
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        if let Err(cause) = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH) {
            eprintln!("unmount {point}: {cause}");
        }
    }
}

/// Removes a cgroup (`/NAME`) from every hierarchy, with those below it. A cgroup directory is
/// removed by rmdir alone, deepest first.
pub fn remove_cgroups(name: &str) {
    let relative = name.trim_start_matches('/');
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain(["/sys/fs/cgroup".into()]) {
        remove_cgroup(&hierarchy.join(relative));
    }
}

fn remove_cgroup(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        remove_cgroup(&entry.path());
    }
    // conmon is still ending, and a cgroup of version 1 has no event for that.
    if !becomes(Duration::from_secs(5), || fs::remove_dir(directory).is_ok()) {
        eprintln!("the cgroup {directory:?} is still there");
    }
}
