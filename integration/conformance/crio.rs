//! CRI-O in a scratch directory, over runc, driven by the CRI.
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use support::cri::{Cri, Pod};
use support::daemon::Daemon;
use support::image::{self, IMAGE, run};
use support::podman::remove_cgroups;
use support::processes;
use support::require;
use support::runtime::script;

/// Where hooks are read from by default.
pub const HOOKS: &str = "/usr/share/containers/oci/hooks.d";

/// Where NRI is served by default.
const NRI: &str = "/run/nri";

/// CRI-O with an image.
pub struct Crio {
    daemon: Option<Daemon>,
    scratch: TempDir,
    /// Where its pods are; removed with them.
    pub cgroups: Vec<String>,
    /// The directories on the way to its standard ones that it will make, innermost first.
    missing: Vec<PathBuf>,
}

impl Crio {
    /// Makes the scratch directory with its configuration. `hooks`: the name of the directory in it
    /// that it reads hooks from; without one it is the standard one. Not started yet.
    pub fn prepare(hooks: Option<&str>) -> Self {
        assert!(require::programs(&["podman", "runc", "conmon", "python3"]), "CRI-O needs them");
        // Sockets have short names only.
        let scratch = tempfile::Builder::new().prefix("crio").tempdir_in("/run").unwrap();
        let cgroup = format!("/{}", scratch.path().file_name().unwrap().display());
        let crio = Self { daemon: None, scratch, cgroups: vec![cgroup], missing: missing(HOOKS) };
        let runtime = lenient(&crio.file("runtime"), &require::find("runc").unwrap());
        fs::create_dir_all(crio.file("cni")).unwrap();
        fs::write(crio.file("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)
            .unwrap();
        let directories = hooks.map(|name| format!("hooks_dir = [{:?}]\n", crio.file(name)));
        let text = CONFIGURATION
            .replace("SCRATCH", crio.scratch.path().to_str().unwrap())
            .replace("RUNTIME", runtime.to_str().unwrap())
            .replace("CONMON", require::find("conmon").unwrap().to_str().unwrap())
            .replace("PINNS", super::built("pinns").to_str().unwrap())
            .replace("IMAGE", IMAGE)
            .replace("DIRECTORIES", &directories.unwrap_or_default());
        fs::write(crio.config(), text).unwrap();
        crio.import();
        crio
    }

    /// One as the node of a cluster has it: with an image that is built from deploy/, under these
    /// tags, a network for pods, and NRI at its standard socket. Not started yet.
    pub fn of_a_node(tags: &[&str]) -> Self {
        let mut crio = Self::prepare(None);
        crio.missing.extend(missing(NRI));
        let text = fs::read_to_string(crio.config()).unwrap();
        let own = format!("nri_listen = {:?}\n", crio.file("nri.sock"));
        assert!(text.contains(&own), "{text}");
        fs::write(crio.config(), text.replace(&own, "")).unwrap();
        let network = NETWORK.replace("SCRATCH", crio.scratch.path().to_str().unwrap());
        fs::write(crio.file("cni/10-pods.conflist"), network).unwrap();
        let context = crio.file("image");
        fs::create_dir(&context).unwrap();
        for name in ["oci-coredump", "oci-coredump-ship"] {
            let program = support::program::program().with_file_name(name);
            assert!(program.is_file(), "{} is missing: `make conformance`", program.display());
            fs::copy(program, context.join(name)).unwrap();
        }
        let mut build = crio.podman();
        build.args(["build", "--quiet", "--isolation", "chroot", "--file"]);
        build.arg(support::program::repository().join("deploy/Containerfile"));
        build.args(tags.iter().flat_map(|tag| ["--tag", tag])).arg(&context);
        run(&mut build);
        fs::remove_dir_all(&context).unwrap();
        crio
    }

    /// Its configuration file; drop-ins are in `crio.conf.d` beside it.
    pub fn config(&self) -> PathBuf {
        self.file("crio.conf")
    }

    /// Any file of the scratch directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Where the CRI is served.
    pub fn socket(&self) -> PathBuf {
        self.file("crio.sock")
    }

    /// The image, put where CRI-O has its images: it cannot import an archive.
    fn import(&self) {
        let archive = image::make(self.scratch.path());
        run(self.podman().args(["load", "--quiet", "--input"]).arg(archive));
    }

    /// podman on the images of CRI-O.
    fn podman(&self) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.file("storage")).arg("--runroot").arg(self.file("run"));
        command.args(["--storage-driver", "overlay"]);
        command
    }

    /// Starts it, with a soft RLIMIT_CORE of 0 as a shell's would be.
    pub fn start(&mut self) {
        let mut command = Command::new("prlimit");
        command
            .args(["--core=0:"])
            .arg(super::built("crio"))
            .arg("--config")
            .arg(self.config())
            .arg("--config-dir")
            .arg(self.file("crio.conf.d"));
        self.daemon = Some(Daemon::start(command, self.scratch.path(), &self.socket()));
        // It listens before it answers, and watches its hook directories in between.
        self.cri().call("ListPodSandbox", &serde_json::json!({}));
    }

    /// Stops and starts the daemon; its containers go on.
    pub fn restart(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.stop();
        // Not dropped: that would clean up after it.
        std::mem::forget(daemon);
        self.start();
    }

    /// Its CRI.
    pub fn cri(&self) -> Cri {
        Cri::new(&self.socket(), &self.file("logs"), &self.cgroups[0])
    }

    /// A running pod with these annotations, on the host's network.
    pub fn pod(&self, name: &str, annotations: &[(&str, &str)]) -> Pod {
        self.cri().pod(name, annotations)
    }

    /// Stops it, without its containers.
    pub fn stop(&mut self) {
        self.daemon.as_mut().unwrap().stop();
    }

    /// Removes every pod that is still there, and whatever CRI-O cannot remove any more.
    fn remove_all(&self) {
        // At once: programs here are PID 1 and heed no SIGTERM.
        let listed = self.cri().try_call("ListContainers", &serde_json::json!({}));
        for id in ids(&String::from_utf8_lossy(&listed.stdout)) {
            let _ = self.cri().try_call("StopContainer", &serde_json::json!({"1": id, "2": 0}));
        }
        let listed = self.cri().try_call("ListPodSandbox", &serde_json::json!({}));
        for id in ids(&String::from_utf8_lossy(&listed.stdout)) {
            for method in ["StopPodSandbox", "RemovePodSandbox"] {
                let done = self.cri().try_call(method, &serde_json::json!({"1": id}));
                if !done.status.success() {
                    eprintln!("{method}: {}", String::from_utf8_lossy(&done.stderr));
                }
            }
        }
        let runc = || {
            let mut command = Command::new("runc");
            command.arg("--root").arg(self.file("runc"));
            command
        };
        let left = runc().args(["list", "--quiet"]).output().unwrap();
        for id in ids(&String::from_utf8_lossy(&left.stdout)) {
            eprintln!("left running: {id}");
            let _ = runc().args(["delete", "--force", &id]).output();
        }
    }

    /// Kills the containers that are still there with their monitors, which name our directory.
    fn kill(&self) {
        let name = self.scratch.path().to_str().unwrap();
        let is_ours = |pid: &i32| {
            let word = |index| processes::argument(*pid, index).unwrap_or_default();
            let bundle = String::from_utf8(word(2)).unwrap_or_default();
            word(0).ends_with(b"conmon") && bundle.starts_with(name)
        };
        for monitor in processes::all().filter(is_ours).collect::<Vec<_>>() {
            for pid in processes::child(monitor).into_iter().chain([monitor]) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

impl Drop for Crio {
    fn drop(&mut self) {
        if UnixStream::connect(self.socket()).is_ok() {
            self.remove_all();
        }
        // What is mounted below its directory is taken off then.
        self.daemon.take();
        self.kill();
        self.cgroups.iter().for_each(|name| remove_cgroups(name));
        for directory in &self.missing {
            // Its socket outlives CRI-O.
            if directory == Path::new(NRI) {
                let _ = fs::remove_file(directory.join("nri.sock"));
            }
            let _ = fs::remove_dir(directory);
        }
    }
}

/// The directories on the way to this one that are not there, innermost first.
pub fn missing(directory: &str) -> Vec<PathBuf> {
    let above = Path::new(directory).ancestors();
    above.take_while(|above| !above.exists()).map(Path::to_owned).collect()
}

/// The IDs in an answer of the CRI: 64 hexadecimal digits each.
fn ids(answer: &str) -> Vec<String> {
    let words = answer.split(|c: char| !c.is_ascii_hexdigit());
    let mut all: Vec<_> = words.filter(|word| word.len() == 64).map(str::to_owned).collect();
    all.dedup();
    all
}

/// A runtime as CRI-O is to be given it. Root without CAP_SYS_RESOURCE cannot lower oom_score_adj,
/// which CRI-O and a kubelet ask for, and some hosts have no limits of huge pages: there a script
/// takes both out of config.json.
fn lenient(path: &Path, runtime: &Path) -> PathBuf {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let effective = processes::field("self", "CapEff").unwrap();
    if u64::from_str_radix(&effective, 16).unwrap() & CAP_SYS_RESOURCE != 0 {
        return runtime.to_owned();
    }
    script(path, &LENIENT.replace("RUNTIME", runtime.to_str().unwrap()))
}

const LENIENT: &str = r#"#!/usr/bin/python3
import json, os, sys

if "--bundle" in sys.argv and "create" in sys.argv:
    path = sys.argv[sys.argv.index("--bundle") + 1] + "/config.json"
    with open(path) as file:
        config = json.load(file)
    process, resources = config["process"], config["linux"].get("resources", {})
    process["oomScoreAdj"] = max(process.get("oomScoreAdj") or 0, 0)
    resources.pop("hugepageLimits", None)
    with open(path, "w") as file:
        json.dump(config, file)
os.execv("RUNTIME", ["RUNTIME"] + sys.argv[1:])
"#;

const CONFIGURATION: &str = r#"# Of a test.
[crio]
root = "SCRATCH/storage"
runroot = "SCRATCH/run"
storage_driver = "overlay"
log_dir = "SCRATCH/logs"
version_file = "SCRATCH/version"
clean_shutdown_file = "SCRATCH/clean.shutdown"

[crio.api]
listen = "SCRATCH/crio.sock"

[crio.runtime]
default_runtime = "runc"
cgroup_manager = "cgroupfs"
DIRECTORIEScontainer_exits_dir = "SCRATCH/exits"
container_attach_socket_dir = "SCRATCH/attach"
namespaces_dir = "SCRATCH/namespaces"
pinns_path = "PINNS"
enable_criu_support = false

[crio.runtime.runtimes.runc]
runtime_path = "RUNTIME"
runtime_root = "SCRATCH/runc"
monitor_path = "CONMON"
monitor_cgroup = "pod"

[crio.image]
namespaced_auth_dir = "SCRATCH/auth"
pause_image = "IMAGE"
pause_command = "/bin/pause"
signature_policy = "SCRATCH/policy.json"
signature_policy_dir = "SCRATCH/policies"

[crio.network]
network_dir = "SCRATCH/cni"
plugin_dirs = ["/usr/lib/cni"]

[crio.nri]
nri_plugin_dir = "SCRATCH/plugins"
nri_plugin_config_dir = "SCRATCH/nri.d"
nri_listen = "SCRATCH/nri.sock"
"#;

/// A pair of interfaces for each pod, by Debian's plugins.
const NETWORK: &str = r#"{
"cniVersion": "1.0.0", "name": "pods", "plugins": [{
    "type": "ptp", "ipMasq": false, "ipam": {
        "type": "host-local", "dataDir": "SCRATCH/ipam",
        "ranges": [[{"subnet": "203.0.113.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]
    }
}]}
"#;
