//! The CRI, through which a kubelet drives an engine: pods, their containers, ExecSync.
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::image::{IMAGE, run};

/// An engine's socket.
#[derive(Clone)]
pub struct Cri {
    socket: PathBuf,
    logs: PathBuf,
    cgroup: String,
}

/// A pod, and what it asks for.
pub struct Pod {
    cri: Cri,
    id: String,
    config: Value,
    containers: RefCell<Vec<String>>,
}

impl Cri {
    /// `logs`: the directory for the logs of pods. `cgroup`: that in which pods are; empty: where
    /// the engine puts them.
    pub fn new(socket: &Path, logs: &Path, cgroup: &str) -> Self {
        Self { socket: socket.to_owned(), logs: logs.to_owned(), cgroup: cgroup.to_owned() }
    }

    fn command(&self, method: &str, request: &Value) -> Command {
        let client = crate::program::repository().join("integration/support/cri.py");
        // Debian's own Python: that is where the package python3-grpcio puts its module.
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(client)
            .arg(&self.socket)
            .arg(format!("RuntimeService/{method}"))
            .arg(request.to_string());
        command
    }

    /// One call, which must succeed.
    pub fn call(&self, method: &str, request: &Value) -> Value {
        serde_json::from_str(&run(&mut self.command(method, request))).unwrap()
    }

    /// One call, whatever comes of it.
    pub fn try_call(&self, method: &str, request: &Value) -> Output {
        self.command(method, request).output().unwrap()
    }

    /// A running pod with these annotations, on the host's network.
    pub fn pod(&self, name: &str, annotations: &[(&str, &str)]) -> Pod {
        let annotations: Vec<_> =
            annotations.iter().map(|(key, value)| json!({"1": key, "2": value})).collect();
        // PodSandboxConfig: metadata, log_directory, annotations, linux.cgroup_parent,
        // linux.security_context.namespace_options (network = NODE, pid = CONTAINER).
        let config = json!({
            "1": {"1": name, "2": format!("uid-{name}"), "3": "shop"}, "3": self.logs,
            "7": annotations, "8": {"1": self.cgroup, "2": {"1": {"1": 2, "2": 1}}},
        });
        let answer = self.call("RunPodSandbox", &json!({"1": config}));
        let id = answer["1"][0].as_str().unwrap().to_owned();
        Pod { cri: self.clone(), id, config, containers: RefCell::default() }
    }
}

impl Pod {
    /// A running container of the pod; its ID.
    pub fn container(&self, name: &str) -> String {
        self.container_with(name, &[])
    }

    /// The same, with directories of the host at these places in it, as a kubelet mounts volumes.
    pub fn container_with(&self, name: &str, volumes: &[(&Path, &str)]) -> String {
        self.started(&self.creation(name, 0, &["/bin/sleep", "1000"], volumes))
    }

    /// A container that runs a command; `attempt`: how many the kubelet has started before it.
    pub fn attempt(&self, name: &str, attempt: u32, command: &[&str]) -> String {
        self.started(&self.creation(name, attempt, command, &[]))
    }

    fn started(&self, creation: &Value) -> String {
        let answer = self.cri.call("CreateContainer", creation);
        let id = answer["1"][0].as_str().unwrap().to_owned();
        self.containers.borrow_mut().push(id.clone());
        self.cri.call("StartContainer", &json!({"1": id}));
        id
    }

    /// The request of CreateContainer.
    pub fn creation(
        &self,
        name: &str,
        attempt: u32,
        command: &[&str],
        volumes: &[(&Path, &str)],
    ) -> Value {
        let mounts: Vec<_> =
            volumes.iter().map(|(host, inside)| json!({"1": inside, "2": host})).collect();
        // LinuxContainerSecurityContext: namespace_options (network = NODE, pid = CONTAINER),
        // readonly_paths as a kubelet gives them.
        let security = json!({
            "3": {"1": 2, "2": 1},
            "14": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        });
        // ContainerConfig: metadata, image (and what the user calls it), command, log_path,
        // linux.security_context.
        let config = json!({
            "1": {"1": name, "2": attempt}, "2": {"1": IMAGE, "18": IMAGE}, "3": command,
            "7": mounts, "11": format!("{name}-{attempt}.log"), "15": {"2": security},
        });
        json!({"1": self.id, "2": config, "3": self.config})
    }

    /// ExecSync of `sh -c SCRIPT`: standard output and exit status.
    pub fn exec(&self, container: &str, script: &str) -> (String, i64) {
        let request = json!({"1": container, "2": ["/bin/sh", "-c", script], "3": 30});
        let answer = self.cri.call("ExecSync", &request);
        (
            answer["1"][0].as_str().unwrap_or_default().to_owned(),
            answer["3"][0].as_i64().unwrap_or(0),
        )
    }

    /// Whether a container has ended.
    pub fn has_ended(&self, container: &str) -> bool {
        // ListContainersRequest.filter: id, state = CONTAINER_EXITED.
        let filter = json!({"1": {"1": container, "2": {"1": 2}}});
        self.cri.call("ListContainers", &filter)["1"].is_array()
    }

    /// Stops and removes it with its containers.
    pub fn remove(self) {
        // The programs here are PID 1 and heed no SIGTERM: a timeout of 0.
        for id in self.containers.borrow().iter() {
            self.cri.call("StopContainer", &json!({"1": id, "2": 0}));
        }
        self.cri.call("StopPodSandbox", &json!({"1": self.id}));
        self.cri.call("RemovePodSandbox", &json!({"1": self.id}));
    }
}
