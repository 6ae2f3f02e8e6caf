//! A cluster of one node: etcd, API server, controller manager, scheduler, a kubelet that is
//! registered there, and CRI-O. It has a network namespace, so that its addresses and ports are
//! nobody else's, and a mount namespace, in which CRI-O is the machine's only engine.
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use super::crio::{Crio, HOOKS, missing};
use super::kubelet::{Kubelet, NODE, Registration};
use support::daemon::Daemon;
use support::host::{BINARY, Host};
use support::image::run;
use support::require;
use support::wait::within;

/// The node's address; everything of the control plane is there too.
const ADDRESS: &str = "192.0.2.1";
/// The network of services, and the API server's address in it. It is the node's too, and the
/// server has the port of its service: so nothing has to forward.
const SERVICES: &str = "198.51.100.0/24";
const SERVICE: &str = "198.51.100.1";

/// Until the cluster has done what it was told.
const DEADLINE: Duration = Duration::from_secs(120);

/// The state of the container that uploads, on the node.
pub const SHIP: &str = "/var/lib/oci-coredump-ship";

/// What the machine's other engines are known by.
const OTHERS: [&str; 3] = ["/usr/bin/containerd", "/usr/bin/dockerd", "/usr/sbin/dockerd"];

/// Whether there is one to test.
pub fn is_there() -> bool {
    super::checkout("KUBELET_SRC", &["go.mod"]).is_some()
        && super::checkout("CRIO_SRC", &["cmd/crio", "pinns"]).is_some()
}

/// Runs a test in a cluster, whose node has the image from deploy/ under these tags.
pub fn with_cluster(tags: &'static [&'static str], test: impl FnOnce(&Cluster) + Send + 'static) {
    require::root();
    assert!(require::programs(&["openssl", "ip", "timeout", "podman"]), "the cluster needs them");
    // The namespaces are those of a thread and its children.
    let thread = std::thread::spawn(move || {
        enter();
        test(&Cluster::start(tags));
    });
    if let Err(cause) = thread.join() {
        std::panic::resume_unwind(cause);
    }
}

/// Namespaces of this thread's own, with mounts that are shared, as systemd has them.
fn enter() {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
    for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | propagation, None::<&str>)
            .unwrap();
    }
    for line in [
        "link set lo up".to_owned(),
        format!("address add {ADDRESS}/32 dev lo"),
        format!("address add {SERVICE}/32 dev lo"),
    ] {
        run(Command::new("ip").args(line.split(' ')));
    }
}

/// A running cluster. Taken apart in the order of its fields: a kubelet that still runs would start
/// pods again.
pub struct Cluster {
    _kubelet: Kubelet,
    control: Control,
    _crio: Crio,
    _left: Left,
    pub host: Host,
}

/// What the DaemonSet has put on the node, and what a test that failed has left there.
struct Left {
    /// Those of the directories that were not there before.
    directories: Vec<PathBuf>,
}

/// The control plane, and what its clients need.
struct Control {
    /// In the order in which they were started.
    daemons: Vec<Daemon>,
    directory: PathBuf,
}

impl Cluster {
    fn start(tags: &[&str]) -> Self {
        let host = Host::take();
        let directories = [HOOKS, SHIP].into_iter().flat_map(missing).collect();
        let mut crio = Crio::of_a_node(tags);
        only_engine(&crio);
        crio.start();
        let control = Control::start(&crio.file("control"));
        let kubeconfig = control.file("node.json");
        let authority = control.file("authority.crt");
        let server =
            Registration { kubeconfig: &kubeconfig, authority: &authority, address: ADDRESS };
        let kubelet = Kubelet::registered(&mut crio, &server);
        let cluster =
            Self { _kubelet: kubelet, control, _crio: crio, _left: Left { directories }, host };
        cluster.wait(&["node", NODE], |node| {
            let conditions = node["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
        });
        cluster
    }

    /// A file of the test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.control.file(name)
    }

    /// kubectl, helm or another client, as the administrator, in the directory of the test's files.
    pub fn client(&self, program: &str, args: &[&str]) -> Command {
        self.control.client(program, args)
    }

    /// kubectl, which must succeed; what it says.
    pub fn kubectl(&self, args: &[&str]) -> String {
        run(&mut self.client("kubectl", args))
    }

    /// kubectl, whatever comes of it.
    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        self.client("kubectl", args).output().unwrap()
    }

    /// Makes objects, or changes them.
    pub fn apply(&self, object: &Value) {
        let file = self.file("object.json");
        fs::write(&file, object.to_string()).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    }

    /// An object, or a list of them, as `kubectl get` names it; `Null` where there is none, and for
    /// an empty list.
    pub fn get(&self, what: &[&str]) -> Value {
        let args = [&["get", "--ignore-not-found", "-o", "json"], what].concat();
        serde_json::from_str(&self.kubectl(&args)).unwrap_or_default()
    }

    /// Waits until an object is as it should be.
    pub fn wait(&self, what: &[&str], fits: impl Fn(&Value) -> bool) -> Value {
        within(DEADLINE, || Some(self.get(what)).filter(&fits)).unwrap_or_else(|| {
            let events = self.kubectl(&["get", "events", "-A"]);
            panic!("{what:?} is not as it should be: {:#}\n{events}", self.get(what))
        })
    }

    /// The pod of the DaemonSet, once its last change has come to the node.
    pub fn rolled_out(&self) -> String {
        let status = ["-n", "oci-coredump", "rollout", "status", "daemonset/oci-coredump"];
        let said = self.try_kubectl(&[&status[..], &["--timeout=100s"]].concat());
        let seen = || self.kubectl(&["-n", "oci-coredump", "describe", "pods"]);
        assert!(said.status.success(), "{said:?}\n{}", seen());
        let all = self.get(&["pods", "-n", "oci-coredump", "-l", LABEL]);
        let all = all["items"].as_array().unwrap();
        let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let pods: Vec<_> = all.iter().filter(stays).collect();
        assert!(matches!(pods[..], [one] if one["status"]["phase"] == "Running"), "{pods:#?}");
        pods[0]["metadata"]["name"].as_str().unwrap().to_owned()
    }

    /// What a container of the DaemonSet's pod has said, once that has these words in it.
    pub fn said(&self, pod: &str, container: &str, words: &str) -> String {
        let log = || self.kubectl(&["-n", "oci-coredump", "logs", pod, "-c", container]);
        within(DEADLINE, || Some(log()).filter(|log| log.contains(words)))
            .unwrap_or_else(|| panic!("{pod} does not say {words:?}: {}", log()))
    }
}

/// The label of the DaemonSet's pods.
pub const LABEL: &str = "app.kubernetes.io/name=oci-coredump";

/// Shows CRI-O at its usual place, and no other engine.
fn only_engine(crio: &Crio) {
    let [upper, work] = ["usr-bin", "usr-bin-work"].map(|name| crio.file(name));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let options =
        format!("lowerdir=/usr/bin,upperdir={},workdir={}", upper.display(), work.display());
    let none = MsFlags::empty();
    mount(Some("overlay"), "/usr/bin", Some("overlay"), none, Some(options.as_str())).unwrap();
    for other in OTHERS {
        let _ = fs::remove_file(other);
        assert!(!Path::new(other).exists(), "{other}");
    }
    symlink(super::built("crio"), "/usr/bin/crio").unwrap();
}

impl Control {
    fn start(directory: &Path) -> Self {
        let mut control = Self { daemons: Vec::new(), directory: directory.to_owned() };
        fs::create_dir_all(control.file("bin")).unwrap();
        for program in ["kubectl", "helm"] {
            symlink(super::built(program), control.file("bin").join(program)).unwrap();
        }
        symlink(support::program::program(), control.file("bin/kubectl-coredump")).unwrap();
        control.certificates();
        control.etcd();
        control.server();
        for (program, port) in [("kube-controller-manager", 10257), ("kube-scheduler", 10259)] {
            let mut command = control.program(program);
            command.args(["--leader-elect=false", "--kubeconfig"]).arg(control.file("admin.json"));
            if program == "kube-controller-manager" {
                command.arg("--root-ca-file").arg(control.file("authority.crt"));
                let key = control.file("accounts.key");
                command.arg("--service-account-private-key-file").arg(key);
            }
            control.run(command, || TcpStream::connect((ADDRESS, port)).is_ok());
        }
        control
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn program(&self, name: &str) -> Command {
        Command::new(super::built(name))
    }

    fn run(&mut self, command: Command, serves: impl FnMut() -> bool) {
        self.daemons.push(Daemon::start_until(command, &self.directory, serves));
    }

    fn client(&self, program: &str, args: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("timeout");
        command
            .arg("180")
            .arg(program)
            .args(args)
            .env("PATH", format!("{}:{path}", self.file("bin").display()))
            .env("HOME", &self.directory)
            .env("KUBECONFIG", self.file("admin.json"))
            .current_dir(&self.directory);
        command
    }

    /// An authority, and what it signs: for the server, and for its clients, whose names and groups
    /// are in the subject.
    fn certificates(&self) {
        const OWN: &str = "[req]\ndistinguished_name = name\n[name]\n";
        fs::write(self.file("openssl.cnf"), OWN).unwrap();
        let request = |name: &str, subject: &str, extensions: &[&str]| {
            let mut command = Command::new("openssl");
            command
                .args(["req", "-x509", "-days", "2", "-nodes", "-subj", subject])
                .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-config"])
                .arg(self.file("openssl.cnf"))
                .arg("-keyout")
                .arg(self.file(&format!("{name}.key")))
                .arg("-out")
                .arg(self.file(&format!("{name}.crt")))
                .args(extensions.iter().flat_map(|extension| ["-addext", extension]));
            command
        };
        let is_authority = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"];
        run(&mut request("authority", "/CN=authority", &is_authority));
        let names = format!(
            "subjectAltName=IP:{ADDRESS},IP:{SERVICE},DNS:kubernetes.default.svc,DNS:localhost"
        );
        let usage = "extendedKeyUsage=serverAuth,clientAuth";
        for (name, subject) in [
            ("server", "/CN=kube-apiserver"),
            ("admin", "/O=system:masters/CN=admin"),
            ("node", &format!("/O=system:nodes/CN=system:node:{NODE}")),
        ] {
            let mut command = request(name, subject, &[&names, usage]);
            command.arg("-CA").arg(self.file("authority.crt"));
            run(command.arg("-CAkey").arg(self.file("authority.key")));
        }
        run(Command::new("openssl")
            .args(["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out"])
            .arg(self.file("accounts.key")));
        for name in ["admin", "node"] {
            fs::write(self.file(&format!("{name}.json")), self.kubeconfig(name, None)).unwrap();
        }
    }

    /// The file of a client. `other`: whom it is to be taken for.
    fn kubeconfig(&self, name: &str, other: Option<&str>) -> String {
        let mut user = json!({
            "client-certificate": self.file(&format!("{name}.crt")),
            "client-key": self.file(&format!("{name}.key")),
        });
        if let Some(other) = other {
            user["as"] = json!(other);
        }
        let server = format!("https://{ADDRESS}");
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": server, "certificate-authority": self.file("authority.crt"),
            }}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        })
        .to_string()
    }

    fn etcd(&mut self) {
        let (clients, peers) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
        let configuration = json!({
            "name": "test",
            "data-dir": self.file("etcd"),
            "listen-client-urls": clients,
            "advertise-client-urls": clients,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": format!("test={peers}"),
            "log-level": "error",
            "unsafe-no-fsync": true,
        });
        fs::write(self.file("etcd.json"), configuration.to_string()).unwrap();
        let mut command = self.program("etcd");
        command.arg(self.file("etcd.json"));
        self.run(command, || TcpStream::connect("127.0.0.1:2379").is_ok());
    }

    /// The API server: with roles, the node's own rights, and Pod Security, which refuses pods like
    /// the DaemonSet's where no label of the namespace lets them be.
    fn server(&mut self) {
        let security = json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AdmissionConfiguration",
            "plugins": [{"name": "PodSecurity", "configuration": {
                "apiVersion": "pod-security.admission.config.k8s.io/v1",
                "kind": "PodSecurityConfiguration",
                "defaults": {"enforce": "baseline", "enforce-version": "latest"},
            }}],
        });
        fs::write(self.file("admission.json"), security.to_string()).unwrap();
        let mut command = self.program("kube-apiserver");
        command.args([
            "--etcd-servers=http://127.0.0.1:2379",
            "--secure-port=443",
            &format!("--advertise-address={ADDRESS}"),
            &format!("--service-cluster-ip-range={SERVICES}"),
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",
        ]);
        for (option, file) in [
            ("--tls-cert-file", "server.crt"),
            ("--tls-private-key-file", "server.key"),
            ("--client-ca-file", "authority.crt"),
            ("--kubelet-client-certificate", "admin.crt"),
            ("--kubelet-client-key", "admin.key"),
            ("--service-account-key-file", "accounts.key"),
            ("--service-account-signing-key-file", "accounts.key"),
            ("--admission-control-config-file", "admission.json"),
        ] {
            command.arg(option).arg(self.file(file));
        }
        let mut ready = self.client("kubectl", &["get", "--raw", "/readyz"]);
        self.run(command, || ready.output().is_ok_and(|output| output.status.success()));
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if Path::new(BINARY).exists() {
            let _ = Command::new(BINARY).args(["node", "uninstall"]).status();
        }
        if self.directories.iter().any(|directory| directory == Path::new(SHIP)) {
            let _ = fs::remove_dir_all(SHIP);
        }
        for directory in &self.directories {
            let _ = fs::remove_dir(directory);
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        while let Some(daemon) = self.daemons.pop() {
            drop(daemon);
        }
    }
}

impl Cluster {
    /// The file of a user who has no rights but those that the cluster gives.
    pub fn user(&self, name: &str) -> PathBuf {
        let file = self.file(&format!("{name}.json"));
        fs::write(&file, self.control.kubeconfig("admin", Some(name))).unwrap();
        file
    }
}
