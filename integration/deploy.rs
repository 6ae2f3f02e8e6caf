//! deploy/: validates the manifests against the published Kubernetes schemas, and runs the
//! DaemonSet's pod in podman with a scratch directory as the node: install, serve, uninstall, and
//! the node as before. Needs root; changes nothing on the host.
#[path = "deploy/chart.rs"]
mod chart;
#[path = "deploy/metrics.rs"]
mod metrics;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::podman::Podman;
use support::require;
use support::runtime::Kind;
use tempfile::TempDir;

/// The oldest and the newest Kubernetes that the manifests are for.
const VERSIONS: [&str; 2] = ["1.27", "1.37"];
const PROGRAM: &str = "usr/libexec/oci/hooks.d/oci-coredump";

fn tools() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_default()
        .join("oci-coredump-test")
}

fn can_validate() -> bool {
    require::programs(&["kubectl", "python3"])
        && (tools().join("python/kubernetes_validate").is_dir()
            || require::skip("kubernetes-validate is not there: integration/tools.sh fetches it"))
}

/// The manifests of a directory, as `kubectl apply -k` would send them.
fn render(directory: &str) -> Vec<u8> {
    let path = support::program::repository().join("deploy").join(directory);
    let output = Command::new("kubectl").arg("kustomize").arg(&path).output().unwrap();
    assert!(output.status.success(), "{directory}: {output:?}");
    output.stdout
}

/// The documents of the manifests, or the schemas' objections to them.
fn validate(manifests: &[u8], versions: &[&str]) -> Result<Vec<Value>, String> {
    let script = support::program::repository().join("integration/deploy/validate.py");
    let mut python = Command::new("python3");
    python.arg("-B").arg(script).args(versions).env("PYTHONPATH", tools().join("python"));
    let mut python =
        python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(manifests).unwrap();
    let output = python.wait_with_output().unwrap();
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn daemon_set(directory: &str) -> Value {
    let all = validate(&render(directory), &[]).unwrap();
    all.into_iter().find(|d| d["kind"] == "DaemonSet").expect("a DaemonSet")
}

#[test]
fn manifests() {
    if !can_validate() {
        return;
    }
    for (directory, kinds) in [
        ("base", &["Namespace", "DaemonSet"][..]),
        ("uninstall", &["Namespace", "DaemonSet"]),
        ("examples/nfs", &["Deployment"]),
        ("examples/empty-dir", &["Deployment"]),
        ("examples/no-volume", &["Deployment"]),
    ] {
        let manifests = render(directory);
        let documents =
            validate(&manifests, &VERSIONS).unwrap_or_else(|e| panic!("{directory}: {e}"));
        let found: Vec<&str> = documents.iter().map(|d| d["kind"].as_str().unwrap()).collect();
        assert_eq!(found, kinds, "{directory}");
        // The schemas do refuse mistakes.
        for (good, bad) in [("containers:", "container:"), ("kind: D", "kind: d")] {
            let broken = String::from_utf8(manifests.clone()).unwrap().replace(good, bad);
            assert!(validate(broken.as_bytes(), &VERSIONS[..1]).is_err(), "{directory}: {bad}");
        }
        for document in documents.iter().filter(|d| d["kind"] == "Deployment") {
            let template = &document["spec"]["template"];
            let annotations = template["metadata"]["annotations"].as_object().unwrap();
            assert!(
                annotations.contains_key("k8s.aliyun.com/eci-core-pattern")
                    || annotations.contains_key("oci-coredump/pattern"),
                "{directory}"
            );
        }
    }
    // Uninstalling replaces the very same pods.
    let (base, uninstall) = (daemon_set("base"), daemon_set("uninstall"));
    for pointer in [
        "/metadata/name",
        "/metadata/namespace",
        "/spec/selector",
        "/spec/template/spec/volumes",
        "/spec/template/spec/containers/0/securityContext",
    ] {
        assert_eq!(base.pointer(pointer), uninstall.pointer(pointer), "{pointer}");
    }
    // They are ready only when they have done it, with the rights of the pods that installed.
    let mut does = uninstall["spec"]["template"]["spec"]["initContainers"].clone();
    assert_eq!(does[0]["args"], json!(["node", "uninstall", "--root", "/host"]));
    does[0]["args"] = base["spec"]["template"]["spec"]["containers"][0]["args"].clone();
    does[0]["name"] = json!("node");
    assert_eq!(does, base["spec"]["template"]["spec"]["containers"]);
}

/// A node: a directory with the parts of a host's root that the program looks at.
struct Node {
    root: TempDir,
}

impl Node {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for directory in
            ["etc", "usr/bin", "usr/libexec", "usr/share", "opt", "proc", "run/nri", "var/lib"]
        {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::create_dir(root.path().join("dev")).unwrap();
        fs::write(root.path().join("dev/null"), "").unwrap();
        std::os::unix::fs::symlink("../run", root.path().join("var/run")).unwrap();
        Self { root }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn write(&self, below: &str, text: &str) {
        fs::create_dir_all(self.path(below).parent().unwrap()).unwrap();
        fs::write(self.path(below), text).unwrap();
    }

    /// A program of this machine, with its libraries.
    fn put(&self, program: &Path) {
        let target = self.path("usr/bin").join(program.file_name().unwrap());
        fs::copy(program, &target).unwrap();
        let libraries = Command::new("ldd").arg(program).output().unwrap().stdout;
        for library in String::from_utf8(libraries)
            .unwrap()
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            let target = self.path(library.trim_start_matches('/'));
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(library, target).unwrap();
        }
    }

    fn has(&self, below: &str) -> bool {
        self.path(below).symlink_metadata().is_ok()
    }

    /// Everything on it: mode, owner, content.
    fn photo(&self) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
        let mut all = BTreeMap::new();
        let mut open = vec![self.root.path().to_owned()];
        while let Some(path) = open.pop() {
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if meta.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            if meta.is_dir() && !path.ends_with("proc") {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            all.insert(path, (meta.mode(), meta.uid(), content));
        }
        all
    }
}

/// The image, made from deploy/Containerfile.
fn image() -> Podman {
    let podman = Podman::new(Kind::Runc, |_| {});
    let context = TempDir::new().unwrap();
    fs::copy(support::program::program(), context.path().join("oci-coredump")).unwrap();
    let file = support::program::repository().join("deploy/Containerfile");
    let output = podman
        .command()
        .args(["build", "--quiet", "--tag", "localhost/oci-coredump:0.1.0", "--file"])
        .arg(file)
        .arg(context.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    podman
}

/// The DaemonSet's container on a node, with the rights that the manifest gives it and no others.
/// `podman`'s flags stand for the kubelet.
fn pod(podman: &Podman, manifest: &Value, node: &Node, name: &str) -> Command {
    let spec = &manifest["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    let security = &container["securityContext"];
    let words = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_owned()).collect()
    };
    let mut command = podman.command();
    // Ended after a time, in case a test waits for output that does not come.
    command.args([
        "run",
        "--rm",
        "--timeout",
        "60",
        "--network",
        "none",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
        "--name",
        name,
    ]);
    // Below the cgroup that `Podman` removes at the end.
    command
        .arg("--cgroup-parent")
        .arg(Path::new("/").join(podman.hooks().parent().unwrap().file_name().unwrap()));
    assert_eq!(
        (
            &spec["hostPID"],
            &security["readOnlyRootFilesystem"],
            &security["allowPrivilegeEscalation"]
        ),
        (&true.into(), &true.into(), &false.into())
    );
    command.args([
        "--pid",
        "host",
        "--read-only",
        "--security-opt",
        "no-new-privileges",
        "--user",
        "0",
    ]);
    assert_eq!(words(&security["capabilities"]["drop"]), ["ALL"]);
    command
        .arg("--cap-drop=all")
        .args(words(&security["capabilities"]["add"]).iter().map(|c| format!("--cap-add={c}")));
    assert_eq!(spec["volumes"][0]["hostPath"]["path"], "/");
    let inside = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
    for (host, below) in [
        (node.root.path(), ""),
        (Path::new("/proc"), "/proc"),
        (Path::new("/dev/null"), "/dev/null"),
    ] {
        command.arg("--volume").arg(format!("{}:{inside}{below}", host.display()));
    }
    command
        .arg(container["image"].as_str().unwrap())
        .args(words(&container["args"]).iter().filter(|word| *word != "--stay"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A pod that serves; killed on drop.
struct Serving<'p> {
    podman: &'p Podman,
    child: Child,
    name: String,
}

impl<'p> Serving<'p> {
    /// Starts it and waits until it has said `text`.
    fn until(podman: &'p Podman, mut command: Command, name: &str, text: &str) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let serving = Self { podman, child, name: name.to_owned() };
        let mut said = String::new();
        while !said.contains(text) {
            if lines.read_line(&mut said).unwrap() == 0 {
                panic!("it has ended: {said} {}", serving.errors());
            }
        }
        serving
    }

    fn errors(mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let _ = self.podman.command().args(["kill", &self.name]).output();
        let _ = self.child.wait();
    }
}

/// Uninstalls, which must succeed.
fn uninstall(podman: &Podman, node: &Node) -> String {
    let output = pod(podman, &daemon_set("uninstall"), node, "uninstall").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn ready(programs: &[&str]) -> bool {
    require::root();
    can_validate()
        && require::programs(&["podman", "runc", "conmon"])
        && require::programs(programs)
}

/// containerd 1.6, the real program: by a base specification.
#[test]
fn on_a_node_with_an_old_containerd() {
    if !ready(&["containerd", "ctr", "ldd"]) {
        return;
    }
    let (podman, node) = (image(), Node::new());
    ["containerd", "ctr"].iter().for_each(|p| node.put(&require::find(p).unwrap()));
    node.write(
        "etc/containerd/config.toml",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"pause\"\n",
    );
    let before = node.photo();
    assert_eq!(uninstall(&podman, &node), "nothing was installed\n");
    assert_eq!(node.photo(), before);

    let manifest = daemon_set("base");
    let serving = Serving::until(
        &podman,
        pod(&podman, &manifest, &node, "serve"),
        "serve",
        "systemctl restart containerd",
    );
    let config = fs::read_to_string(node.path("etc/containerd/config.toml")).unwrap();
    assert!(config.contains("base_runtime_spec") && config.contains("sandbox_image"), "{config}");
    let base: Value = serde_json::from_slice(
        &fs::read(node.path("etc/oci-coredump/containerd-base-runc.json")).unwrap(),
    )
    .unwrap();
    assert_eq!(base["hooks"]["createRuntime"][0]["path"], format!("/{PROGRAM}"));
    assert_eq!(
        fs::read(node.path(PROGRAM)).unwrap(),
        fs::read(support::program::program()).unwrap()
    );
    assert_eq!(fs::metadata(node.path(PROGRAM)).unwrap().mode() & 0o7777, 0o755);
    assert!(
        node.has("usr/bin/oci-coredump")
            && node.has("usr/libexec/oci/hooks.d/oci-coredump-runtime")
    );
    drop(serving);
    // An upgrade installs again over the present files; then a node is uninstalled twice.
    let installed = node.photo();
    drop(Serving::until(
        &podman,
        pod(&podman, &manifest, &node, "again"),
        "again",
        "in place already",
    ));
    assert_eq!(node.photo(), installed);
    uninstall(&podman, &node);
    assert_eq!(node.photo(), before);
    assert_eq!(uninstall(&podman, &node), "nothing was installed\n");
}

/// containerd 2, the real program: its configuration is left alone, the pod is the plugin.
#[test]
fn on_a_node_with_nri() {
    let containerd = tools().join("sid/usr/bin/containerd");
    if !ready(&["ldd"])
        || !(containerd.is_file()
            || require::skip(
                "containerd of Debian unstable is not unpacked: integration/tools.sh does it",
            ))
    {
        return;
    }
    let (podman, node) = (image(), Node::new());
    node.put(&containerd);
    let socket = UnixListener::bind(node.path("run/nri/nri.sock")).unwrap();
    let before = node.photo();
    let serving = Serving::until(
        &podman,
        pod(&podman, &daemon_set("base"), &node, "serve"),
        "serve",
        "containerd: by NRI",
    );
    let (mut engine, _) = socket.accept().unwrap();
    engine.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut first = vec![0; 256];
    let length = engine.read(&mut first).unwrap();
    assert!(
        String::from_utf8_lossy(&first[..length]).contains("RegisterPlugin"),
        "{:?}",
        String::from_utf8_lossy(&first[..length])
    );
    assert!(node.has(PROGRAM) && !node.has("opt/nri") && !node.has("etc/containerd"));
    drop(serving);
    uninstall(&podman, &node);
    assert_eq!(node.photo(), before);
}

/// CRI-O, of which only the name exists here: its hook file, and a drop-in where
/// other directories are set.
#[test]
fn on_a_node_with_crio_and_on_others() {
    if !ready(&[]) {
        return;
    }
    let (podman, node) = (image(), Node::new());
    let manifest = daemon_set("base");
    let refused = pod(&podman, &manifest, &node, "none").output().unwrap();
    assert!(
        !refused.status.success()
            && String::from_utf8_lossy(&refused.stderr).contains("neither containerd nor CRI-O"),
        "{refused:?}"
    );
    uninstall(&podman, &node);

    node.write("usr/bin/crio", "");
    node.write(
        "etc/crio/crio.conf.d/10-ours.conf",
        "[crio.runtime]\nhooks_dir = [\"/srv/hooks\"]\n",
    );
    let before = node.photo();
    drop(Serving::until(
        &podman,
        pod(&podman, &manifest, &node, "serve"),
        "serve",
        "systemctl restart crio",
    ));
    assert!(
        node.has("usr/share/containers/oci/hooks.d/oci-coredump.json")
            && node.has("etc/crio/crio.conf.d/99-oci-coredump.conf")
    );
    uninstall(&podman, &node);
    assert_eq!(node.photo(), before);

    // A program that somebody else has installed is neither replaced nor removed.
    node.write(PROGRAM, "theirs");
    let before = node.photo();
    let refused = pod(&podman, &manifest, &node, "theirs").output().unwrap();
    assert!(
        !refused.status.success()
            && String::from_utf8_lossy(&refused.stderr).contains("make uninstall"),
        "{refused:?}"
    );
    assert_eq!(node.photo(), before);
}
