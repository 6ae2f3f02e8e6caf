//! Static pods of a real kubelet over a real CRI-O: containers that crash again and again, one that
//! crashes before the others are started, what the pod's status says of it, and refusals.
use serde_json::{Value, json};

use super::crio::Crio;
use super::kubelet::{Kubelet, NODE};
use support::host::Host;
use support::product::{host, product};

/// A node: the machine with the product, an engine that knows it, and a kubelet. Taken apart in the
/// order of its fields: a kubelet that still runs would start pods again.
struct Node {
    kubelet: Kubelet,
    _crio: Crio,
    host: Host,
}

impl Node {
    /// `None` where there is none to test.
    fn start() -> Option<Self> {
        super::checkout("KUBELET_SRC", &["go.mod"])?;
        super::checkout("CRIO_SRC", &["cmd/crio", "pinns"])?;
        let host = host();
        let mut crio = Crio::prepare(None);
        product(&["install", "crio", "--config", crio.config().to_str().unwrap()]);
        crio.start();
        Some(Self { kubelet: Kubelet::start(&mut crio), _crio: crio, host })
    }
}

/// The status of a container, by the list in which it is.
fn status<'p>(pod: &'p Value, list: &str, name: &str) -> &'p Value {
    let all = pod["status"][list].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().find(|one| one["name"] == name).unwrap_or(&Value::Null)
}

/// The text of the termination log, as the status has it.
fn message(ended: &Value) -> &str {
    ended["message"].as_str().unwrap_or_default()
}

/// Whether a container has crashed that often and waits for its next start.
fn loops(status: &Value, times: u64) -> bool {
    status["restartCount"].as_u64() >= Some(times)
        && status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
}

/// The records of a container of a pod, oldest first, each of a core that is whole.
fn records(host: &Host, pod: &Value, container: &str) -> Vec<Value> {
    host.settle();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let name = pod["metadata"]["name"].as_str().unwrap();
    let mut all = host.records();
    all.retain(|record| record["container_name"] == container && record["pod_name"] == name);
    all.sort_by_key(|record| record["time"].as_str().unwrap().to_owned());
    for record in &all {
        let said = ["outcome", "signal_name", "comm", "pod_namespace", "image"]
            .map(|key| record[key].as_str().unwrap());
        let expected = ["written", "SIGSEGV", "crasher", "shop", "localhost/victim:1"];
        assert_eq!(said, expected, "{record}");
        assert_eq!(record["pod_uid"], uid, "{record}");
        assert_eq!(record["account"], all[0]["account"], "{record}");
    }
    all
}

/// Each start of the container has its core in the store, and the status says where, in the
/// container's own words.
#[test]
fn crash_loop() {
    let Some(node) = Node::start() else { return };
    let (host, kubelet) = (&node.host, &node.kubelet);
    let spec = json!({"containers": [{"name": "app", "command": ["/bin/crasher", "null"]}]});
    kubelet.run("web", &[("oci-coredump/pattern", "/dump/core.%e")], spec);
    let pod = kubelet.wait_for("web", |pod| loops(status(pod, "containerStatuses", "app"), 3));

    let ended = &status(&pod, "containerStatuses", "app")["lastState"]["terminated"];
    assert_eq!(ended["exitCode"], 139, "{ended}");
    let first = "core dumped: /dump/core.crasher.1 (SIGSEGV in crasher)";
    assert_eq!(message(ended).lines().next(), Some(first), "{ended}");
    // In which function follows when the process is gone, and the kubelet has read the log by
    // then: it reads it again when it starts the container again.
    kubelet.wait_for("web", |pod| {
        let ended = &status(pod, "containerStatuses", "app")["lastState"]["terminated"];
        let lines: Vec<_> = message(ended).lines().collect();
        matches!(lines[..], [one, two] if one == first && two.starts_with("SIGSEGV in die (crash"))
    });

    kubelet.remove("web");
    let all = records(host, &pod, "app");
    assert!(all.len() >= 4, "{all:#?}");
    let mut files: Vec<_> = all.iter().map(|r| r["host_path"].as_str().unwrap()).collect();
    files.dedup();
    assert_eq!(files.len(), all.len(), "{files:?}");
    for (file, record) in files.iter().zip(&all) {
        let core = std::fs::read(file).unwrap();
        assert!(core.starts_with(b"\x7fELF"), "{record}");
        assert_eq!(core.len() as u64, record["size"].as_u64().unwrap(), "{record}");
    }
    let listed = product(&["list", &format!("pod=web-{NODE}")]);
    assert_eq!(listed.matches("present").count(), all.len(), "{listed}");
}

/// On a volume of the pod every start has the same name for its core, since it is PID 1 each time.
#[test]
fn crash_loop_on_a_volume() {
    let Some(node) = Node::start() else { return };
    let (host, kubelet) = (&node.host, &node.kubelet);
    let spec = json!({
        "containers": [{
            "name": "app", "command": ["/bin/crasher", "null"],
            "volumeMounts": [{"name": "cores", "mountPath": "/cores"}],
        }],
        "volumes": [{"name": "cores", "emptyDir": {}}],
    });
    let asks = [("oci-coredump/pattern", "/cores/core"), ("oci-coredump/existing", "number")];
    kubelet.run("shop", &asks, spec);
    let pod = kubelet.wait_for("shop", |pod| loops(status(pod, "containerStatuses", "app"), 2));
    let all = records(host, &pod, "app");
    for (record, name) in all.iter().zip(["core.1", "core.1.2", "core.1.3"]) {
        assert_eq!(record["core_path"], format!("/cores/{name}"), "{record}");
        assert_eq!(record["location"], "volume", "{record}");
        let file = kubelet.empty_dir(&pod, "cores").join(name);
        assert_eq!(record["host_path"], file.to_str().unwrap(), "{record}");
        assert_eq!(file.metadata().unwrap().len(), record["size"].as_u64().unwrap(), "{record}");
    }
    assert!(all.len() >= 3, "{all:#?}");
    kubelet.remove("shop");
}

/// An initContainer that crashes once and then lets the pod start, with a pattern of its own.
#[test]
fn init_container() {
    let Some(node) = Node::start() else { return };
    let (host, kubelet) = (&node.host, &node.kubelet);
    let script = "test -e /state/again && exit; touch /state/again; exec /bin/crasher null";
    let spec = json!({
        "initContainers": [{
            "name": "setup", "command": ["/bin/sh", "-c", script],
            "volumeMounts": [{"name": "state", "mountPath": "/state"}],
        }],
        "containers": [{"name": "app", "command": ["/bin/sleep", "1000"]}],
        "volumes": [{"name": "state", "emptyDir": {}}],
    });
    let asks =
        [("oci-coredump/pattern", "/dump/%e"), ("setup.oci-coredump/pattern", "/of-setup/core")];
    kubelet.run("web", &asks, spec);
    let pod = kubelet.wait_for("web", |pod| {
        status(pod, "initContainerStatuses", "setup")["lastState"]["terminated"].is_object()
    });
    let ended = &status(&pod, "initContainerStatuses", "setup")["lastState"]["terminated"];
    assert_eq!(ended["exitCode"], 139, "{ended}");
    let line = "core dumped: /of-setup/core.1 (SIGSEGV in crasher)";
    assert_eq!(message(ended).lines().next(), Some(line), "{ended}");
    let pod = kubelet.wait_for("web", |pod| {
        status(pod, "containerStatuses", "app")["state"]["running"].is_object()
    });
    assert_eq!(status(&pod, "initContainerStatuses", "setup")["restartCount"], 1, "{pod}");
    let all = records(host, &pod, "setup");
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(all[0]["core_path"], "/of-setup/core.1");
    assert!(records(host, &pod, "app").is_empty());
    kubelet.remove("web");
}

/// Volumes as a kubelet mounts them: an emptyDir in memory, and a part of a volume (`subPath`); a
/// termination log in another place. Each container ends once; one lives on, since a kubelet takes
/// the volumes of a pod that has ended away.
#[test]
fn volumes() {
    let Some(node) = Node::start() else { return };
    let (host, kubelet) = (&node.host, &node.kubelet);
    let command = ["/bin/crasher", "null"];
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "memory", "command": command,
                "volumeMounts": [{"name": "memory", "mountPath": "/tmp"}],
            },
            {
                "name": "part", "command": command, "terminationMessagePath": "/run/why",
                "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "of-part"}],
            },
            {"name": "other", "command": ["/bin/sleep", "1000"]},
        ],
        "volumes": [
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            {"name": "data", "emptyDir": {}},
        ],
    });
    let asks = [
        ("memory.oci-coredump/pattern", "/tmp/dump/core"),
        ("part.oci-coredump/pattern", "/data/dump/core"),
    ];
    kubelet.run("web", &asks, spec);
    let ended = |pod: &Value, name: &str| {
        status(pod, "containerStatuses", name)["state"]["terminated"].is_object()
    };
    let pod = kubelet.wait_for("web", |pod| ended(pod, "memory") && ended(pod, "part"));
    let places = [
        ("memory", "/tmp/dump/core.1", "pod memory", "memory/dump/core.1"),
        ("part", "/data/dump/core.1", "volume", "data/of-part/dump/core.1"),
    ];
    for (name, path, location, file) in places {
        let ended = &status(&pod, "containerStatuses", name)["state"]["terminated"];
        let line = format!("core dumped: {path} (SIGSEGV in crasher)");
        assert_eq!(message(ended).lines().next(), Some(line.as_str()), "{ended}");
        let all = records(host, &pod, name);
        assert_eq!(all.len(), 1, "{all:#?}");
        assert_eq!(all[0]["location"], location, "{}", all[0]);
        let there = kubelet.empty_dir(&pod, file);
        assert_eq!(all[0]["host_path"], there.to_str().unwrap(), "{}", all[0]);
        assert_eq!(there.metadata().unwrap().len(), all[0]["size"].as_u64().unwrap());
    }
    kubelet.remove("web");
}

/// The containers of a pod see each other's processes, so none of theirs is PID 1: that is the
/// pod's own, of which nothing is known here.
#[test]
fn shared_process_namespace() {
    let Some(node) = Node::start() else { return };
    let (host, kubelet) = (&node.host, &node.kubelet);
    let spec = json!({
        "restartPolicy": "Never", "shareProcessNamespace": true,
        "containers": [{"name": "app", "command": ["/bin/crasher", "null"]}],
    });
    kubelet.run("web", &[("oci-coredump/pattern", "/dump/core")], spec);
    let pod = kubelet.wait_for("web", |pod| pod["status"]["phase"] == "Failed");
    let all = records(host, &pod, "app");
    assert_eq!(all.len(), 1, "{all:#?}");
    let pid = all[0]["pid"].as_u64().unwrap();
    assert_ne!(pid, 1, "{}", all[0]);
    let ended = &status(&pod, "containerStatuses", "app")["state"]["terminated"];
    let line = format!("core dumped: /dump/core.{pid} (SIGSEGV in crasher)");
    assert_eq!(message(ended).lines().next(), Some(line.as_str()), "{ended}");
    kubelet.remove("web");
}

/// `required` and a pattern that cannot be: the pod's status says why it does not start.
#[test]
fn required() {
    let Some(node) = Node::start() else { return };
    let kubelet = &node.kubelet;
    let asks = [
        ("strict.oci-coredump/pattern", "|/bin/sh"),
        ("strict.oci-coredump/required", "true"),
        ("oci-coredump/pattern", "/dump/core"),
    ];
    let command = ["/bin/sleep", "1000"];
    let spec = json!({"containers": [
        {"name": "strict", "command": command}, {"name": "other", "command": command},
    ]});
    kubelet.run("web", &asks, spec);
    let pod = kubelet.wait_for("web", |pod| {
        let waiting = &status(pod, "containerStatuses", "strict")["state"]["waiting"];
        waiting["reason"] == "CreateContainerError"
            && status(pod, "containerStatuses", "other")["state"]["running"].is_object()
    });
    let waiting = &status(&pod, "containerStatuses", "strict")["state"]["waiting"];
    let why = message(waiting);
    assert!(why.contains("oci-coredump/pattern") && why.contains("|/bin/sh"), "{waiting}");
    kubelet.remove("web");
}
