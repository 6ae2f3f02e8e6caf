//! containerd in a scratch directory, driven by `ctr` and by the CRI.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::image::{self, IMAGE, run};
use super::suite::Suite;
use support::daemon::Daemon;

/// A running containerd with the image.
pub struct Containerd {
    suite: Suite,
    daemon: Option<Daemon>,
    scratch: TempDir,
}

/// A pod, and what it asks for.
pub struct Pod<'c> {
    containerd: &'c Containerd,
    id: String,
    config: Value,
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

    /// One call of the CRI, which must succeed.
    pub fn cri(&self, method: &str, request: &Value) -> Value {
        let client = support::program::repository().join("integration/engines/cri.py");
        // Debian's own Python: that is where the package python3-grpcio puts its module.
        let answer = run(Command::new("/usr/bin/python3")
            .arg(client)
            .arg(self.socket())
            .arg(format!("RuntimeService/{method}"))
            .arg(request.to_string()));
        serde_json::from_str(&answer).unwrap()
    }

    /// A running pod with these annotations, on the host's network.
    pub fn pod(&self, name: &str, annotations: &[(&str, &str)]) -> Pod<'_> {
        let annotations: Vec<_> =
            annotations.iter().map(|(key, value)| json!({"1": key, "2": value})).collect();
        let logs = self.file("logs");
        // PodSandboxConfig: metadata, log_directory, annotations,
        // linux.security_context.namespace_options.network = NODE.
        let config = json!({
            "1": {"1": name, "2": format!("uid-{name}"), "3": "shop"}, "3": logs, "7": annotations,
            "8": {"2": {"1": {"1": 2}}},
        });
        let id =
            self.cri("RunPodSandbox", &json!({"1": config}))["1"][0].as_str().unwrap().to_owned();
        Pod { containerd: self, id, config }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.stop();
        }
    }
}

impl Pod<'_> {
    /// A running container of the pod; its ID.
    pub fn container(&self, name: &str) -> String {
        self.container_with(name, &[])
    }

    /// The same, with directories of the host at these places in it, as a kubelet mounts volumes.
    pub fn container_with(&self, name: &str, volumes: &[(&Path, &str)]) -> String {
        let mounts: Vec<_> =
            volumes.iter().map(|(host, inside)| json!({"1": inside, "2": host})).collect();
        // LinuxContainerSecurityContext: namespace_options (network = NODE, pid = CONTAINER),
        // readonly_paths as a kubelet gives them.
        let security = json!({
            "3": {"1": 2, "2": 1},
            "14": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        });
        // ContainerConfig: metadata, image, command, log_path, linux.security_context.
        let config = json!({
            "1": {"1": name}, "2": {"1": IMAGE}, "3": ["/bin/sleep", "1000"],
            "7": mounts, "11": format!("{name}.log"), "15": {"2": security},
        });
        let request = json!({"1": self.id, "2": config, "3": self.config});
        let id =
            self.containerd.cri("CreateContainer", &request)["1"][0].as_str().unwrap().to_owned();
        self.containerd.cri("StartContainer", &json!({"1": id}));
        id
    }

    /// ExecSync of `sh -c SCRIPT`: standard output and exit status.
    pub fn exec(&self, container: &str, script: &str) -> (String, i64) {
        let answer = self
            .containerd
            .cri("ExecSync", &json!({"1": container, "2": ["/bin/sh", "-c", script], "3": 30}));
        (
            answer["1"][0].as_str().unwrap_or_default().to_owned(),
            answer["3"][0].as_i64().unwrap_or(0),
        )
    }

    /// Stops and removes it with its containers.
    pub fn remove(self) {
        self.containerd.cri("StopPodSandbox", &json!({"1": self.id}));
        self.containerd.cri("RemovePodSandbox", &json!({"1": self.id}));
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
