//! containerd in a scratch directory, driven by `ctr` and by the CRI.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::suite::Suite;
use support::cri::{Cri, Pod};
use support::daemon::Daemon;
use support::image::{self, IMAGE, run};

/// A running containerd with the image.
pub struct Containerd {
    suite: Suite,
    daemon: Option<Daemon>,
    scratch: TempDir,
}

impl Containerd {
    /// Makes the scratch directory with a configuration of that version; `nri`: whether a version 2
    /// file switches NRI on. Not started yet.
    pub fn prepare(suite: Suite, version: u32, nri: bool) -> Self {
        // Sockets have short names only.
        let scratch = tempfile::Builder::new().prefix("ctd").tempdir_in("/run").unwrap();
        let text = config(version, nri).replace("SCRATCH", scratch.path().to_str().unwrap());
        fs::write(scratch.path().join("config.toml"), text).unwrap();
        Self { suite, daemon: None, scratch }
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.scratch.path().join("config.toml")
    }

    /// Any file of the scratch directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.file("containerd.sock")
    }

    /// Starts it, with a soft RLIMIT_CORE of 0 as a shell's would be, and imports
    /// the image when it is new.
    pub fn start(&mut self) {
        let mut command = self.suite.command("containerd");
        let path =
            command.get_envs().find(|(key, _)| *key == "PATH").unwrap().1.unwrap().to_owned();
        let program = command.get_program().to_owned();
        command = Command::new("prlimit");
        command.arg("--core=0:").arg(program).arg("--config").arg(self.config()).env("PATH", path);
        self.daemon = Some(Daemon::start(command, self.scratch.path(), &self.socket()));
        if !self.ctr(&["images", "list", "-q"]).contains(IMAGE) {
            let archive = image::make(self.scratch.path());
            let archive = archive.to_str().unwrap();
            // By the client, as it was in containerd 1: the daemon's own way unpacks for the
            // snapshotters of its configuration only.
            let local = if self.suite == Suite::Sid { vec!["--local"] } else { vec![] };
            self.ctr(
                &[vec!["images", "import", "--snapshotter", "native"], local, vec![archive]]
                    .concat(),
            );
        }
    }

    /// Stops the daemon; its containers go on.
    pub fn stop(&mut self) {
        self.daemon.as_mut().unwrap().stop();
    }

    /// Stops and starts the daemon; its containers go on.
    pub fn restart(&mut self) {
        self.stop();
        // Not dropped: that would clean up after it.
        std::mem::forget(self.daemon.take());
        self.start();
    }

    /// `ctr`, for others to run.
    pub fn ctr_command(&self, args: &[&str]) -> Command {
        let mut command = self.suite.command("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(args);
        command
    }

    /// `ctr`, which must succeed.
    pub fn ctr(&self, args: &[&str]) -> String {
        run(&mut self.ctr_command(args))
    }

    /// `ctr`, whatever comes of it.
    pub fn try_ctr(&self, args: &[&str]) -> Output {
        self.ctr_command(args).output().unwrap()
    }

    /// A container by `ctr run`, with the wrapper for a runtime.
    pub fn ctr_run(&self, id: &str, wrapper: &Path, options: &[&str]) {
        let mut args = vec![
            "run",
            "--detach",
            "--snapshotter",
            "native",
            "--runc-binary",
            wrapper.to_str().unwrap(),
        ];
        args.extend(options);
        args.extend([IMAGE, id]);
        self.ctr(&args);
    }

    /// Its CRI.
    pub fn cri(&self) -> Cri {
        Cri::new(&self.socket(), &self.file("logs"), "")
    }

    /// A running pod with these annotations, on the host's network.
    pub fn pod(&self, name: &str, annotations: &[(&str, &str)]) -> Pod {
        self.cri().pod(name, annotations)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.stop();
        }
    }
}

fn config(version: u32, nri: bool) -> String {
    let common = "# Of a test.
root = 'SCRATCH/root'
state = 'SCRATCH/state'
[grpc]
address = 'SCRATCH/containerd.sock'
";
    let disable = if version == 2 { format!("disable = {}\n", !nri) } else { String::new() };
    let nri = format!(
        "[plugins.'io.containerd.nri.v1.nri']
{disable}socket_path = 'SCRATCH/nri.sock'
plugin_path = 'SCRATCH/plugins'
plugin_config_path = 'SCRATCH/nri-conf'
"
    );
    match version {
        3 => format!(
            "version = 3\n{common}[plugins.'io.containerd.cri.v1.images']
snapshotter = 'native'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{IMAGE}'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['SCRATCH/cni']
conf_dir = 'SCRATCH/cni'
{nri}"
        ),
        _ => format!(
            "version = 2\n{common}[plugins.'io.containerd.internal.v1.opt']
path = 'SCRATCH/opt'
[plugins.'io.containerd.grpc.v1.cri']
sandbox_image = '{IMAGE}'
restrict_oom_score_adj = true
[plugins.'io.containerd.grpc.v1.cri'.containerd]
snapshotter = 'native'
[plugins.'io.containerd.grpc.v1.cri'.cni]
bin_dir = 'SCRATCH/cni'
conf_dir = 'SCRATCH/cni'
{nri}"
        ),
    }
}
