//! A kubelet over a CRI-O. Without an API server its pods are from files, and their status from its
//! read-only port.
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::crio::Crio;
use support::daemon::Daemon;
use support::image::IMAGE;
use support::wait::{wait_for, within};

/// The node's name, which ends the names of pods from files.
pub const NODE: &str = "node";

/// A directory whose path a kubelet has built in.
const DIRECTORY: &str = "/var/lib/kubelet";

/// Until a pod is where a test wants it: it has to crash a few times, and waits between.
const DEADLINE: Duration = Duration::from_secs(180);

/// The API server that a kubelet is to know.
pub struct Registration<'s> {
    /// With the rights of the node.
    pub kubeconfig: &'s Path,
    /// The certificate of those who may ask the kubelet.
    pub authority: &'s Path,
    /// The node's.
    pub address: &'s str,
}

/// A running kubelet.
pub struct Kubelet {
    daemon: Option<Daemon>,
    directory: PathBuf,
    port: u16,
    /// Whether [`DIRECTORY`] is somebody else's.
    is_anothers: bool,
}

impl Kubelet {
    /// Starts one over the engine, with its files in the engine's directory, and waits until it
    /// serves.
    pub fn start(crio: &mut Crio) -> Self {
        let manifests = crio.file("kubelet/manifests");
        fs::create_dir_all(&manifests).unwrap();
        let alone = json!({
            "staticPodPath": manifests,
            "address": "127.0.0.1",
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "registerNode": false,
        });
        Self::launch(crio, alone, &[])
    }

    /// One whose pods come from an API server, where it registers its node.
    pub fn registered(crio: &mut Crio, server: &Registration) -> Self {
        let there = json!({
            "authentication": {
                "anonymous": {"enabled": false}, "x509": {"clientCAFile": server.authority},
            },
        });
        let kubeconfig = server.kubeconfig.to_str().unwrap();
        Self::launch(crio, there, &["--kubeconfig", kubeconfig, "--node-ip", server.address])
    }

    fn launch(crio: &mut Crio, more: Value, options: &[&str]) -> Self {
        let directory = crio.file("kubelet");
        fs::create_dir_all(&directory).unwrap();
        let [port, read_only] = free_ports();
        let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
        let mut configuration = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": format!("unix://{}", crio.socket().display()),
            "podLogsDir": file("logs"),
            "volumePluginDir": file("plugins"),
            "port": port,
            "readOnlyPort": read_only,
            "healthzPort": 0,
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": false,
            "failSwapOn": false,
            "oomScoreAdj": 0,
            "makeIPTablesUtilChains": false,
            "localStorageCapacityIsolation": false,
            // The machine's disk may be as full as it likes, and the image stays.
            "evictionHard": {"memory.available": "1Mi"},
            "imageGCHighThresholdPercent": 100,
            "fileCheckFrequency": "1s",
            "syncFrequency": "1s",
            "featureGates": {"KubeletCrashLoopBackOffMax": true},
            "crashLoopBackOff": {"maxContainerRestartPeriod": "4s"},
        });
        for (key, value) in more.as_object().unwrap() {
            configuration[key] = value.clone();
        }
        fs::write(directory.join("config.json"), configuration.to_string()).unwrap();
        let root = directory.join("root");
        let mut command = Command::new(super::built("kubelet"));
        command
            .arg("--config")
            .arg(directory.join("config.json"))
            .arg("--root-dir")
            .arg(&root)
            .arg("--cert-dir")
            .arg(directory.join("pki"))
            .args(["--hostname-override", NODE])
            .args(options);
        let is_anothers = Path::new(DIRECTORY).exists();
        let mut kubelet = Self { daemon: None, directory, port: read_only, is_anothers };
        let socket = root.join("pod-resources/kubelet.sock");
        crio.cgroups.push("/kubepods".to_owned());
        kubelet.daemon = Some(Daemon::start(command, &kubelet.directory, &socket));
        kubelet
    }

    /// Starts a pod: a manifest's `metadata` but for the names, and `spec` but for what every pod
    /// here has: the host's network, and the image.
    pub fn run(&self, name: &str, annotations: &[(&str, &str)], mut spec: Value) {
        let annotations: Value =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        spec["hostNetwork"] = json!(true);
        spec["terminationGracePeriodSeconds"] = json!(1);
        for kind in ["containers", "initContainers"] {
            for container in spec[kind].as_array_mut().into_iter().flatten() {
                container["image"] = json!(IMAGE);
                container["imagePullPolicy"] = json!("Never");
            }
        }
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        });
        // By a rename: it must not be read half written.
        let file = self.directory.join("manifests").join(format!("{name}.json"));
        let fresh = self.directory.join("fresh");
        fs::write(&fresh, pod.to_string()).unwrap();
        fs::rename(fresh, file).unwrap();
    }

    /// Takes a pod away, and waits until the kubelet has done so.
    pub fn remove(&self, name: &str) {
        let file = self.directory.join("manifests").join(format!("{name}.json"));
        fs::remove_file(file).unwrap();
        wait_for(&format!("the end of {name}"), DEADLINE, || self.pod(name).is_none());
    }

    /// What the kubelet says of a pod.
    fn pod(&self, name: &str) -> Option<Value> {
        let all: Value = serde_json::from_str(&self.get("/pods")?).ok()?;
        let name = format!("{name}-{NODE}");
        all["items"].as_array()?.iter().find(|pod| pod["metadata"]["name"] == name).cloned()
    }

    /// Waits until what the kubelet says of a pod fits.
    pub fn wait_for(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        within(DEADLINE, || self.pod(name).filter(&fits)).unwrap_or_else(|| {
            panic!("{name} is not where it should be: {:#}", self.pod(name).unwrap_or_default())
        })
    }

    /// A directory of the pod on the node: its volume of this name.
    pub fn empty_dir(&self, pod: &Value, volume: &str) -> PathBuf {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        self.directory.join(format!("root/pods/{uid}/volumes/kubernetes.io~empty-dir/{volume}"))
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        // Its pods are the engine's, which removes them, and their cgroups, when it is dropped.
        self.daemon.take();
        if !self.is_anothers {
            let _ = fs::remove_dir_all(DIRECTORY);
        }
    }
}

/// Two ports that nobody listens on.
fn free_ports() -> [u16; 2] {
    [(); 2]
        .map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .map(|listener| listener.local_addr().unwrap().port())
}
