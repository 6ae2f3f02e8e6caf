//! podman and CRI-O: their drop-ins, and podman by its REST API.
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use support::crasher::crasher;
use support::daemon::Daemon;
use support::host::BINARY;
use support::podman::{IMAGE, Podman};
use support::require;
use support::runtime::Kind;

use support::photo::Photo;
use support::product::{core_of, doctor_says, host, product};

/// CRI-O is not in Debian (`make conformance` builds one). What it would read is checked by the
/// rules of crio.conf.d(5), and that uninstalling removes all of it.
#[test]
fn drop_ins_of_podman_and_crio() {
    let _host = host();
    let scratch = tempfile::tempdir().unwrap();
    for (engine, main, text, drop_in, table) in [
        (
            "podman",
            "containers.conf",
            "[engine]\nhooks_dir = [\"/srv/hooks\"]\n",
            "containers.conf.d/oci-coredump.conf",
            "engine",
        ),
        (
            "crio",
            "crio.conf",
            "[crio.runtime]\nhooks_dir = [\"/srv/hooks\"]\n",
            "crio.conf.d/99-oci-coredump.conf",
            "crio.runtime",
        ),
    ] {
        let config = scratch.path().join(main);
        std::fs::write(&config, text).unwrap();
        let before = Photo::take(&[scratch.path()]);
        doctor_says(engine, &config, "warning", "where it looks for hooks");
        let arguments = ["install", engine, "--config", config.to_str().unwrap()];
        product(&arguments);
        let written: toml::Table =
            std::fs::read_to_string(scratch.path().join(drop_in)).unwrap().parse().unwrap();
        let list = table
            .split('.')
            .fold(toml::Value::Table(written), |value, key| value[key].clone())["hooks_dir"]
            .clone();
        assert_eq!(
            list,
            toml::Value::try_from(["/srv/hooks", "/usr/share/containers/oci/hooks.d"]).unwrap()
        );
        let hook = std::fs::read("/usr/share/containers/oci/hooks.d/oci-coredump.json").unwrap();
        let hook: serde_json::Value = serde_json::from_slice(&hook).unwrap();
        assert_eq!(hook["hook"]["path"], BINARY);
        // CRI-O would not start if the stage stood there.
        assert!(!hook["stages"].to_string().contains("precreate"));
        assert!(product(&arguments).contains("in place already"));
        doctor_says(
            engine,
            &config,
            "ok",
            "by the hook /usr/share/containers/oci/hooks.d/oci-coredump.json",
        );
        product(&["uninstall", engine]);
        product(&["uninstall", "--purge"]);
        before.assert_unchanged(&[scratch.path()]);
    }
}

/// CRI-O watches its directory from its start on: one that is made after that needs a restart.
#[test]
fn a_new_directory_for_crio() {
    const RESTART: &str = "systemctl restart crio";
    let _host = host();
    let was_there = Path::new("/usr/share/containers/oci/hooks.d").is_dir();
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("crio.conf");
    let arguments = ["install", "crio", "--config", config.to_str().unwrap()];
    let said = product(&arguments);
    assert_eq!(said.contains(RESTART), !was_there, "{said}");
    let said = product(&arguments);
    assert!(!said.contains(RESTART), "{said}");
    product(&["uninstall", "crio"]);
}

/// A request to podman's service: the status of the answer, and its body.
fn post(socket: &Path, path: &str, body: &Value) -> (u32, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: podman\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// podman's counterpart of ECI's API parameter: annotations in the body of the request. Uses the
/// hook that `install podman` has put into the standard directory.
#[test]
fn podman_by_its_rest_api() {
    if !require::programs(&["podman", "crun"]) {
        return;
    }
    let host = host();
    let scratch = tempfile::Builder::new().prefix("api").tempdir_in("/run").unwrap();
    let config = scratch.path().join("containers.conf");
    let before = Photo::take(&[scratch.path()]);
    product(&["install", "podman", "--config", config.to_str().unwrap()]);
    let podman = Podman::new(Kind::Crun, |rootfs| rootfs.put(crasher(), "/bin/crasher"));
    let socket = podman.hooks().with_file_name("api.sock");
    let mut command = podman.command();
    command
        .args([
            "--hooks-dir",
            "/usr/share/containers/oci/hooks.d",
            "system",
            "service",
            "--time",
            "0",
        ])
        .arg(format!("unix://{}", socket.display()));
    let service = Daemon::start(command, socket.parent().unwrap(), &socket);

    let limit = |kind: &str| json!({"type": kind, "soft": 1024, "hard": 1024});
    let create = |name: &str, annotations: Value| {
        let body = json!({
            "name": name, "image": IMAGE, "command": ["sleep", "1000"],
            "netns": {"nsmode": "none"}, "cgroup_parent": podman.cgroup(),
            "r_limits": [limit("nofile"), limit("nproc")], "annotations": annotations,
        });
        let (status, answer) = post(&socket, "/v4.0.0/libpod/containers/create", &body);
        assert_eq!(status, 201, "{answer}");
        let id = serde_json::from_str::<Value>(&answer).unwrap()["Id"].as_str().unwrap().to_owned();
        (post(&socket, &format!("/v4.0.0/libpod/containers/{id}/start"), &Value::Null), id)
    };
    let ((status, why), asks) =
        create("asks", json!({"k8s.aliyun.com/eci-core-pattern": "/pod/data/dump/core-eci"}));
    assert_eq!(status, 204, "{why}");
    let ((_, _), silent) = create("silent", json!({}));
    let ((status, why), _) =
        create("insists", json!({"oci-coredump/pattern": "|sh", "oci-coredump/required": "true"}));
    assert!(status >= 500, "{status} {why}");

    assert_eq!(podman.sh("asks", "cat /proc/sys/kernel/core_pattern"), "/pod/data/dump/core-eci\n");
    podman.exec("asks", &["/bin/crasher", "null"]);
    podman.exec("silent", &["/bin/crasher", "null"]);
    assert!(podman.sh("asks", "ls /pod/data/dump").starts_with("core-eci."));
    let record = core_of(&host, &asks);
    // podman's configuration does not contain the name, which is all that a
    // user knows of the container.
    assert_eq!(
        (&record["container_name"], &record["location"]),
        (&"asks".into(), &"store".into()),
        "{record}"
    );
    assert!(product(&["list", "container=asks"]).contains("present"));
    assert!(host.records_of(&silent).is_empty());

    podman.verb(&["rm", "--force", "--all", "--time", "0"]);
    drop(service);
    product(&["uninstall", "--purge"]);
    before.assert_unchanged(&[scratch.path()]);
}
