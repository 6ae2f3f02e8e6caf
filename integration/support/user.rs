//! A user of the host, with subordinate IDs and a run directory as logind makes it.
//! All of it is gone on drop.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::processes;

/// The programs that this needs.
pub const PROGRAMS: [&str; 4] = ["useradd", "userdel", "setpriv", "newuidmap"];

/// Where logind makes run directories.
const SESSIONS: &str = "/run/user";

pub struct User {
    name: String,
    uid: u32,
    gid: u32,
    scratch: TempDir,
    /// Whether there was no /run/user before.
    first: bool,
}

impl User {
    /// Makes the user. One of that name was left by a test that was killed.
    pub fn make(name: &str) -> Self {
        let _ = Command::new("userdel").args(["--force", name]).stderr(Stdio::null()).status();
        let scratch = tempfile::Builder::new().prefix(name).tempdir().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = scratch.path().join("home");
        let made = Command::new("useradd")
            .args(["--create-home", "--shell", "/bin/sh", "--home-dir"])
            .arg(&home)
            .arg(name)
            .output()
            .unwrap();
        assert!(made.status.success(), "useradd: {made:?}");
        let meta = home.metadata().unwrap();
        let user = Self {
            name: name.to_owned(),
            uid: meta.uid(),
            gid: meta.gid(),
            scratch,
            first: !Path::new(SESSIONS).exists(),
        };
        let _ = fs::remove_dir_all(user.run_dir());
        fs::create_dir_all(user.run_dir()).unwrap();
        user.own(&user.run_dir(), 0o700);
        user
    }

    pub fn uid(&self) -> u32 {
        self.uid
    }

    pub fn home(&self) -> PathBuf {
        self.scratch.path().join("home")
    }

    /// XDG_RUNTIME_DIR.
    pub fn run_dir(&self) -> PathBuf {
        Path::new(SESSIONS).join(self.uid.to_string())
    }

    /// Gives the user a file or directory, with this mode.
    pub fn own(&self, path: &Path, mode: u32) {
        chown(path, Some(self.uid), Some(self.gid)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Makes a directory that is the user's.
    pub fn directory(&self, path: &Path) -> PathBuf {
        fs::create_dir(path).unwrap();
        self.own(path, 0o700);
        path.to_owned()
    }

    /// Copies a program into the user's home.
    pub fn program(&self, from: &Path) -> PathBuf {
        let path = self.home().join(from.file_name().unwrap());
        fs::copy(from, &path).unwrap();
        self.own(&path, 0o755);
        path
    }

    /// A command of this user, with an environment as after a login.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", self.uid)).arg(format!("--regid={}", self.gid)).args([
            "--clear-groups",
            "--inh-caps=-all",
            "--",
            program,
        ]);
        command
            .env_clear()
            .env("HOME", self.home())
            .env("XDG_RUNTIME_DIR", self.run_dir())
            .env("USER", &self.name);
        command
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .current_dir(self.home())
            .stdin(Stdio::null());
        command
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // podman's pause process, which would keep the user.
        for pid in processes::of_user(self.uid) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let gone = Command::new("userdel").args(["--force", &self.name]).output();
        if !gone.as_ref().is_ok_and(|o| o.status.success()) {
            eprintln!("userdel {}: {gone:?}", self.name);
        }
        let _ = fs::remove_dir_all(self.run_dir());
        if self.first {
            let _ = fs::remove_dir(SESSIONS);
        }
    }
}
