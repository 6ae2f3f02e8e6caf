//! dockerd in a scratch directory, with a containerd of its own.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::suite::Suite;
use std::time::Duration;
use support::daemon::Daemon;
use support::image::{self, run};
use support::wait::wait_for;

/// A running dockerd with the image.
pub struct Docker {
    suite: Suite,
    // In the order in which they must end.
    daemon: Daemon,
    _containerd: Daemon,
    scratch: TempDir,
}

impl Docker {
    /// Starts it. Its daemon.json has something in it, in a form that no printer would choose.
    pub fn start(suite: Suite) -> Self {
        let scratch = tempfile::Builder::new().prefix("docker").tempdir_in("/run").unwrap();
        let file = |name: &str| scratch.path().join(name);
        let containerd_toml = format!(
            "version = 2
root = '{0}/ctd-root'
state = '{0}/ctd-state'
disabled_plugins = ['io.containerd.grpc.v1.cri']
[grpc]
address = '{0}/containerd.sock'
[plugins.'io.containerd.internal.v1.opt']
path = '{0}/opt'
",
            scratch.path().display()
        );
        fs::write(file("containerd.toml"), containerd_toml).unwrap();
        fs::write(file("daemon.json"), "{\n\t\"debug\" : false}\n").unwrap();
        let mut command = suite.command("containerd");
        command.arg("--config").arg(file("containerd.toml"));
        let containerd = Daemon::start(command, scratch.path(), &file("containerd.sock"));
        let daemon = Daemon::start(
            daemon_command(suite, scratch.path()),
            scratch.path(),
            &file("docker.sock"),
        );
        let docker = Self { suite, daemon, _containerd: containerd, scratch };
        let archive = image::make(docker.scratch.path());
        docker.docker(&["load", "--input", archive.to_str().unwrap()]);
        docker
    }

    /// Its daemon.json.
    pub fn config(&self) -> PathBuf {
        self.scratch.path().join("daemon.json")
    }

    /// Makes it read its configuration again, and waits until it says this as its default runtime.
    pub fn reload(&self, default_runtime: &str) {
        self.daemon.signal(Signal::SIGHUP);
        wait_for("that dockerd takes its configuration", Duration::from_secs(20), || {
            let taken = self.docker(&["info", "--format", "{{.DefaultRuntime}}"]);
            taken.trim() == default_runtime
        });
    }

    /// Stops and starts it: what is no longer in its configuration, a reload keeps.
    pub fn restart(&mut self) {
        self.daemon.stop();
        let daemon = Daemon::start(
            daemon_command(self.suite, self.scratch.path()),
            self.scratch.path(),
            &self.scratch.path().join("docker.sock"),
        );
        std::mem::forget(std::mem::replace(&mut self.daemon, daemon));
    }

    /// `docker`, for others to run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.suite.command("docker");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.scratch.path().join("docker.sock").display()))
            .args(args);
        command.env("DOCKER_CONFIG", self.scratch.path());
        command
    }

    /// `docker`, which must succeed.
    pub fn docker(&self, args: &[&str]) -> String {
        run(&mut self.command(args))
    }

    /// `docker`, whatever comes of it.
    pub fn try_docker(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
}

fn daemon_command(suite: Suite, scratch: &Path) -> Command {
    let file = |name: &str| scratch.join(name).into_os_string();
    let mut command = suite.command("dockerd");
    command
        .arg("--config-file")
        .arg(file("daemon.json"))
        .arg("--data-root")
        .arg(file("data"))
        .arg("--exec-root")
        .arg(file("exec"));
    command
        .arg("--pidfile")
        .arg(file("pid"))
        .arg("--host")
        .arg(format!("unix://{}", scratch.join("docker.sock").display()));
    command.arg("--containerd").arg(file("containerd.sock"));
    command.args([
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--storage-driver=vfs",
        "--exec-opt=native.cgroupdriver=cgroupfs",
    ]);
    command
}
