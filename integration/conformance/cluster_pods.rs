//! deploy/ in a real cluster, as docs/kubernetes.md says: installed and taken back by kubectl and
//! by helm, pods that crash under it, and `kubectl coredump` against the API server.
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

use super::cluster::{Cluster, LABEL, SHIP, is_there, with_cluster};
use support::host::{BINARY, RUN, STORE};
use support::image::{IMAGE, run};
use support::photo::Photo;
use support::program::{program, repository};
use support::wait::within;

/// The tag that deploy/ has by default, and a next version's.
const TAGS: [&str; 2] = ["localhost/oci-coredump:0.1.0", "localhost/oci-coredump:0.1.1"];

/// In the words of Alibaba Cloud's ECI.
const ASKS: (&str, &str) = ("k8s.aliyun.com/eci-core-pattern", "/pod/data/dump/core-eci");

/// The DaemonSet's namespace, and helm's release.
const OWN: &str = "oci-coredump";

/// A pod of namespace shop with a container that runs a command once.
fn pod(name: &str, annotation: Option<(&str, &str)>, command: &[&str]) -> Value {
    let annotations: Value = annotation.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "app", "image": IMAGE, "imagePullPolicy": "Never", "command": command,
            }],
        },
    })
}

/// The namespace of the pods that crash, once pods can be made in it.
fn make_shop(cluster: &Cluster) {
    cluster.kubectl(&["create", "namespace", "shop"]);
    cluster.wait(&["serviceaccount", "default", "-n", "shop"], Value::is_object);
}

/// A pod whose first process has crashed: its object then, and its only record.
fn crashed(cluster: &Cluster, pod: &Value) -> (Value, Value) {
    let name = pod["metadata"]["name"].as_str().unwrap();
    cluster.apply(pod);
    let ended = cluster.wait(&["pod", name, "-n", "shop"], |pod| terminated(pod).is_object());
    cluster.host.settle();
    let mut all = cluster.host.records();
    all.retain(|record| record["pod_uid"] == ended["metadata"]["uid"]);
    assert_eq!(all.len(), 1, "{all:#?}");
    let record = all.remove(0);
    let said = ["outcome", "signal_name", "pod_namespace", "pod_name", "container_name", "image"]
        .map(|key| record[key].as_str().unwrap_or_default());
    assert_eq!(said, ["written", "SIGSEGV", "shop", name, "app", IMAGE], "{record}");
    let core = fs::metadata(record["host_path"].as_str().unwrap()).unwrap();
    assert_eq!(core.len(), record["size"].as_u64().unwrap(), "{record}");
    (ended, record)
}

/// How the container of a pod that crashes has ended.
fn terminated(pod: &Value) -> &Value {
    let all = pod["status"]["containerStatuses"].as_array().map_or(&[][..], Vec::as_slice);
    let app = all.iter().find(|status| status["name"] == "app").unwrap_or(&Value::Null);
    &app["state"]["terminated"]
}

/// What a command has said, its status as first word.
fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let status = output.status.code().unwrap_or(-1);
    format!("{status} {}{}", text(&output.stdout), text(&output.stderr))
}

/// `kubectl coredump`: what came of it.
fn coredump(cluster: &Cluster, args: &[&str]) -> String {
    told(&cluster.try_kubectl(&[&["coredump"], args].concat()))
}

/// Panics unless a text has all of these words.
#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

/// By kubectl alone, with the image and the names that deploy/ has.
#[test]
fn by_kustomize() {
    if !is_there() {
        return;
    }
    with_cluster(&TAGS[..1], |cluster| {
        let before = Photo::take(&[Path::new("/usr/bin/oci-coredump")]);
        let deploy = |name: &str| repository().join("deploy").join(name).display().to_string();
        cluster.kubectl(&["apply", "-k", &deploy("base")]);
        let agent = cluster.rolled_out();
        let said = cluster.said(&agent, "node", "oci-coredump.json");
        assert!(!said.contains("containerd"), "{said}");
        assert_eq!(fs::read(BINARY).unwrap(), fs::read(program()).unwrap());
        make_shop(cluster);

        crashes(cluster);
        plugin(cluster);
        without_the_plugin(cluster, &agent);
        rights(cluster);

        // A node that cannot be uninstalled yet is not taken for one that is: each try waits for
        // this lock, and fails after seconds.
        let registry = fs::File::open(Path::new(RUN).join("lock")).unwrap();
        let held = Flock::lock(registry, FlockArg::LockExclusive).unwrap();
        cluster.kubectl(&["apply", "-k", &deploy("uninstall")]);
        let status = ["-n", OWN, "rollout", "status", "daemonset/oci-coredump", "--timeout=15s"];
        let said = told(&cluster.try_kubectl(&status));
        has(&said, &["1 Waiting for daemon set", "timed out"]);
        assert!(Path::new(BINARY).exists());
        drop(held);
        let agent = cluster.rolled_out();
        cluster.said(&agent, "uninstall", &format!("removed {BINARY}"));
        cluster.kubectl(&["delete", "-k", &deploy("uninstall")]);
        cluster.wait(&["namespace", OWN], Value::is_null);
        assert!(cluster.get(&["daemonsets", "-A"]).is_null());
        as_it_was(&before);
    });
}

/// Nothing is left on the node but its records and cores, which an uninstallation keeps.
fn as_it_was(before: &Photo) {
    fs::remove_dir_all(STORE).unwrap();
    before.assert_unchanged(&[Path::new("/usr/bin/oci-coredump")]);
}

/// Pods that ask by ECI's annotation: first processes and exec'd ones, without and with a volume.
fn crashes(cluster: &Cluster) {
    let (object, record) = crashed(cluster, &pod("ends", Some(ASKS), &["/bin/crasher", "null"]));
    let line = "core dumped: /pod/data/dump/core-eci.1 (SIGSEGV in crasher)";
    let message = terminated(&object)["message"].as_str().unwrap_or_default();
    assert_eq!(message.lines().next(), Some(line), "{object:#}");
    assert_eq!(record["core_path"], "/pod/data/dump/core-eci.1", "{record}");

    let mut with_volume = pod("volume", Some(ASKS), &["/bin/crasher", "null"]);
    with_volume["spec"]["volumes"] = json!([{"name": "dump", "emptyDir": {}}]);
    with_volume["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "dump", "mountPath": "/pod/data/dump"}]);
    // A kubelet takes the volumes of a pod that has ended away.
    let other = json!({
        "name": "other", "image": IMAGE, "imagePullPolicy": "Never",
        "command": ["/bin/sleep", "1000"],
    });
    with_volume["spec"]["containers"].as_array_mut().unwrap().push(other);
    let (_, record) = crashed(cluster, &with_volume);
    assert_eq!(record["location"], "volume", "{record}");

    // The core is where the container sees it.
    for (name, annotation) in [("web", Some(ASKS)), ("quiet", None)] {
        cluster.apply(&pod(name, annotation, &["/bin/sleep", "1000"]));
        cluster.wait(&["pod", name, "-n", "shop"], |pod| pod["status"]["phase"] == "Running");
    }
    let inside = ["exec", "-n", "shop", "web", "--"];
    let crash =
        cluster.try_kubectl(&[&inside[..], &["/bin/crasher", "--fill", "96", "null"]].concat());
    assert_eq!(crash.status.code(), Some(139), "{crash:?}");
    cluster.host.settle();
    let listed = cluster.kubectl(&[&inside[..], &["ls", "/pod/data/dump"]].concat());
    assert!(listed.starts_with("core-eci."), "{listed}");
}

/// `kubectl coredump`, with nothing but kubectl.
fn plugin(cluster: &Cluster) {
    let listed = coredump(cluster, &["list"]);
    has(&listed, &["0 TIME", "shop/ends/app", "shop/volume/app", "shop/web/app", "present"]);
    let listed = coredump(cluster, &["list", "web", "-n", "shop", "signal=SEGV"]);
    assert_eq!(listed.matches("shop/").count(), 1, "{listed}");
    let said = coredump(cluster, &["info", "web", "-n", "shop"]);
    has(&said, &["0 ", "SIGSEGV", "/bin/crasher", "#0", "die"]);

    // The image has no gdb, and the core is large for the DaemonSet's limit of memory.
    let said = coredump(cluster, &["export", "web", "-n", "shop"]);
    assert!(said.starts_with("0 "), "{said}");
    let bundle = cluster.file("web.tar.zst");
    let said = told(
        &cluster.client("kubectl-coredump", &["export", "web", "-n", "shop"]).output().unwrap(),
    );
    has(&said, &["1 ", "web.tar.zst"]);
    let own = program().to_str().unwrap();
    let said = run(&mut cluster.client(own, &["info", bundle.to_str().unwrap()]));
    has(&said, &["SIGSEGV", "/bin/crasher", "#0", "die"]);
    let said = coredump(cluster, &["export", "ends", "-n", "shop", "--core-only", "-o", "core"]);
    assert!(said.starts_with("0 "), "{said}");
    assert!(fs::read(cluster.file("core")).unwrap().starts_with(b"\x7fELF"));
    let said = cluster.try_kubectl(&["coredump", "export", "ends", "-n", "shop", "-o", "-"]);
    assert!(said.status.success() && said.stdout.starts_with(b"\x28\xb5\x2f\xfd"), "{said:?}");

    let gdb = ["-A", "-batch", "-A", "-ex", "-A", "bt"];
    let said = coredump(cluster, &[&["debug", "web", "-n", "shop"], &gdb[..]].concat());
    has(&said, &["0 ", "SIGSEGV", "#0", "die ("]);

    // Neither a pod that is not there, nor one that has not crashed, nor a name that is none.
    for verb in ["list", "info", "export", "debug"] {
        for (name, words) in [
            ("nobody", "there is no pod nobody in namespace shop now"),
            ("quiet", "no crash in"),
            ("a*", "no name of a pod"),
        ] {
            let said = coredump(cluster, &[verb, name, "-n", "shop"]);
            has(&said, &["1 ", words]);
            assert!(!cluster.file(&format!("{name}.tar.zst")).exists(), "{verb}");
        }
    }
    // A pod that is gone.
    cluster.kubectl(&["delete", "pod", "ends", "-n", "shop"]);
    let said = coredump(cluster, &["info", "ends", "-n", "shop"]);
    has(&said, &["0 ", "SIGSEGV", "core-eci.1"]);
    let said = coredump(cluster, &["list", "ends", "-n", "other"]);
    assert!(said.starts_with("1 "), "{said}");
}

/// The two commands of docs/kubernetes.md that need no plugin.
fn without_the_plugin(cluster: &Cluster, agent: &str) {
    let text = fs::read_to_string(repository().join("docs/kubernetes.md")).unwrap();
    let block = |start: &str| {
        let at = text.find(start).unwrap_or_else(|| panic!("no {start:?} in docs/kubernetes.md"));
        text[at..].split_once("```").unwrap().0.to_owned()
    };
    let script = block("for pod in $(kubectl").replace("02:00", "2026-01-01");
    let said = run(&mut cluster.client("sh", &["-ec", &script]));
    has(&said, &["\"shop\",\"web\",\"/bin/crasher\",\"SIGSEGV\"]", "\"shop\",\"ends\""]);
    let script = block("kubectl -n oci-coredump exec POD");
    let script = script.replace("POD", agent).replace("shop-0", "web");
    run(&mut cluster.client("rm", &["web.tar.zst"]));
    run(&mut cluster.client("sh", &["-ec", &script]));
    let own = program().to_str().unwrap();
    let said = run(&mut cluster.client(own, &["info", "web.tar.zst"]));
    has(&said, &["SIGSEGV", "#0", "die"]);
}

/// The rights that docs/kubernetes.md names are enough, and each is needed.
fn rights(cluster: &Cluster) {
    let file = cluster.user("someone").display().to_string();
    let says = |words: &str| {
        let info = ["info", "web", "-n", "shop", "--kubeconfig", &file];
        let said = || Some(coredump(cluster, &info)).filter(|said| said.contains(words));
        let said = within(Duration::from_secs(30), said);
        said.unwrap_or_else(|| panic!("not {words:?}: {}", coredump(cluster, &info)))
    };
    for (index, (namespace, verb, resource)) in RIGHTS.into_iter().enumerate() {
        let said = says(&format!("cannot {verb} resource \"{resource}\""));
        assert!(said.starts_with("1 "), "{said}");
        let name = format!("right-{index}");
        let [verb, resource] = [format!("--verb={verb}"), format!("--resource={resource}")];
        cluster.kubectl(&["create", "role", &name, "-n", namespace, &verb, &resource]);
        let role = format!("--role={name}");
        let of = ["create", "rolebinding", &name, "-n", namespace, &role, "--user=someone"];
        cluster.kubectl(&of);
    }
    assert!(says("SIGSEGV").starts_with("0 "));
    let said = coredump(cluster, &["list", "--kubeconfig", &file]);
    has(&said, &["0 ", "shop/web/app"]);
}

/// In the order in which they are asked for.
const RIGHTS: [(&str, &str, &str); 4] = [
    ("shop", "get", "pods"),
    (OWN, "list", "pods"),
    (OWN, "get", "pods"),
    (OWN, "create", "pods/exec"),
];

/// By helm, with uploads and their events, an upgrade, and the documented way back.
#[test]
fn by_helm() {
    if !is_there() {
        return;
    }
    with_cluster(&TAGS, |cluster| {
        let before = Photo::take(&[Path::new("/usr/bin/oci-coredump")]);
        let chart = repository().join("deploy/helm").display().to_string();
        let helm = |verb: &str, more: &[&str]| {
            let args = [&[verb, OWN, "--namespace", OWN], more].concat();
            run(&mut cluster.client("helm", &args))
        };
        let repository = "image.repository=localhost/oci-coredump";
        helm("install", &[&chart, "--create-namespace", "--set", repository]);
        // Pod Security is enforced here, and the new namespace has no label.
        cluster.wait(&["events", "-n", OWN], |events| {
            let refused = |event: &Value| {
                event["reason"] == "FailedCreate"
                    && event["message"].as_str().is_some_and(|text| text.contains("PodSecurity"))
            };
            events["items"].as_array().is_some_and(|all| all.iter().any(refused))
        });
        let label = "pod-security.kubernetes.io/enforce=privileged";
        cluster.kubectl(&["label", "namespace", OWN, label]);
        cluster.kubectl(&["-n", OWN, "rollout", "restart", "daemonset/oci-coredump"]);
        cluster.said(&cluster.rolled_out(), "node", "oci-coredump.json");
        make_shop(cluster);
        cluster.apply(&pod("web", Some(ASKS), &["/bin/sleep", "1000"]));
        cluster.wait(&["pod", "web", "-n", "shop"], |pod| pod["status"]["phase"] == "Running");

        // The next version: what runs keeps its pattern.
        let next = ["--reset-then-reuse-values", "--set", "image.tag=0.1.1"];
        helm("upgrade", &[&[chart.as_str()], &next[..]].concat());
        let agent = cluster.rolled_out();
        let object = cluster.get(&["pod", &agent, "-n", OWN]);
        assert_eq!(object["spec"]["containers"][0]["image"], TAGS[1], "{object:#}");
        cluster.said(&agent, "node", "in place already");
        let inside = ["exec", "-n", "shop", "web", "--"];
        let crash = cluster.try_kubectl(&[&inside[..], &["/bin/crasher", "null"]].concat());
        assert_eq!(crash.status.code(), Some(139), "{crash:?}");
        cluster.host.settle();
        let listed = cluster.kubectl(&[&inside[..], &["ls", "/pod/data/dump"]].concat());
        assert!(listed.starts_with("core-eci."), "{listed}");

        uploads(cluster, &|more| helm("upgrade", &[&[chart.as_str()], more].concat()));

        helm("upgrade", &[&chart, "--reuse-values", "--set", "uninstall=true"]);
        let agent = cluster.rolled_out();
        cluster.said(&agent, "uninstall", &format!("removed {BINARY}"));
        helm("uninstall", &[]);
        cluster.wait(&["daemonsets,clusterroles", "-A", "-l", LABEL], Value::is_null);
        fs::remove_dir_all(SHIP).unwrap();
        as_it_was(&before);
    });
}

/// The container that uploads, and the event that it makes of a crash.
fn uploads(cluster: &Cluster, upgrade: &dyn Fn(&[&str]) -> String) {
    let config = format!("[upload]\nurl = \"file://{SHIP}/bucket\"\nevent = true\n");
    let values = json!({"config": config, "upload": {"enabled": true, "events": true}});
    let file = cluster.file("values.json");
    fs::write(&file, values.to_string()).unwrap();
    upgrade(&["--reuse-values", "--values", file.to_str().unwrap()]);
    cluster.said(&cluster.rolled_out(), "node", "is the configuration of the DaemonSet");
    let (object, _) = crashed(cluster, &pod("told", Some(ASKS), &["/bin/crasher", "null"]));
    let of_pod = |all: &Value| {
        let mut all = all["items"].as_array().cloned().unwrap_or_default();
        all.retain(|event| event["reason"] == "CoreDumped");
        all.retain(|event| event["involvedObject"]["uid"] == object["metadata"]["uid"]);
        all
    };
    let all = cluster.wait(&["events", "-n", "shop"], |all| !of_pod(all).is_empty());
    let events = of_pod(&all);
    assert_eq!(events.len(), 1, "{events:#?}");
    let message = events[0]["message"].as_str().unwrap();
    has(message, &["SIGSEGV of process 1 (crasher): file://", "/bucket/shop/told/app/"]);
    assert_eq!(events[0]["involvedObject"]["fieldPath"], "spec.containers{app}");
    let described = cluster.kubectl(&["describe", "pod", "told", "-n", "shop"]);
    has(&described, &["CoreDumped", "core dumped: /pod/data/dump/core-eci.1"]);
    let listed = coredump(cluster, &["list", "told", "-n", "shop"]);
    has(&listed, &["UPLOADED", "yes"]);
}
