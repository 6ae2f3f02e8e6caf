//! podman: names in its pods, and volumes that it removes with their containers.
use std::fs;
use std::process::Command;

use serde_json::Value;

use support::crasher::crasher;
use support::host::{BINARY, Host};
use support::podman::{IMAGE, Podman};
use support::require;
use support::runtime::Kind;

use support::product::{host, product};

fn podman() -> Podman {
    let podman = Podman::new(Kind::Runc, |rootfs| rootfs.put(crasher(), "/bin/crasher"));
    let file = support::program::repository().join("hooks.d/oci-coredump.json");
    fs::copy(file, podman.hooks().join("oci-coredump.json")).unwrap();
    podman
}

fn only(host: &Host) -> Value {
    host.settle();
    let mut all = host.records();
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

fn listed() -> String {
    product(&["list"])
}

/// A crash of a container that is removed when it ends, on a volume that is removed with it.
#[test]
fn volumes_that_go_with_the_container() {
    if !require::programs(&["podman", "runc"]) {
        return;
    }
    let host = host();
    let podman = podman();
    let lower = tempfile::tempdir().unwrap();
    let overlay = format!("{}:/data:O", lower.path().display());
    for volume in ["/data", &overlay] {
        let pattern = "oci-coredump/pattern=/data/dump/core";
        let output = podman
            .run(&["--rm", "--volume", volume, "--annotation", pattern], &["/bin/crasher", "null"]);
        assert_eq!(output.status.code(), Some(139), "{output:?}");
        let record = only(&host);
        assert_eq!(record["location"], "own volume", "{record:#}");
        assert_eq!(record["reason"], "the core goes away with the container", "{record:#}");
        assert!(listed().contains("removed with its container"), "{}", listed());
        fs::remove_dir_all(format!("{}/records", support::host::STORE)).unwrap();
    }
    // A named volume stays.
    let output = podman.run(
        &[
            "--rm",
            "--volume",
            "cores:/data",
            "--annotation",
            "oci-coredump/pattern=/data/dump/core",
        ],
        &["/bin/crasher", "null"],
    );
    assert_eq!(output.status.code(), Some(139), "{output:?}");
    assert_eq!(only(&host)["location"], "volume");
    assert!(listed().contains("present"), "{}", listed());
}

/// A key for one container of a pod of `podman kube play`, the names and the image in the record,
/// `plan`, and what `enable` finds by the names.
#[test]
fn one_container_of_a_pod() {
    if !require::programs(&["podman", "runc", "catatonit"]) {
        return;
    }
    let host = host();
    let podman = podman();
    let scratch = tempfile::tempdir().unwrap();
    let container = |name: &str| {
        format!("  - {{name: {name}, image: \"{IMAGE}\", command: [/bin/sleep, \"1000\"]}}\n")
    };
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: shop\n  annotations:\n    \
         web.oci-coredump/pattern: /web/core\nspec:\n  hostNetwork: true\n  containers:\n{}{}",
        container("web"),
        container("db")
    );
    let file = scratch.path().join("pod.yaml");
    fs::write(&file, pod).unwrap();
    let limits = scratch.path().join("containers.conf");
    fs::write(
        &limits,
        "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n",
    )
    .unwrap();
    let mut play = podman.command();
    play.env("CONTAINERS_CONF", &limits).args(["kube", "play"]).arg(&file);
    support::image::run(&mut play);

    assert_eq!(podman.sh("shop-web", "cat /proc/sys/kernel/core_pattern"), "/web/core\n");
    podman.exec("shop-web", &["/bin/crasher", "null"]);
    podman.exec("shop-db", &["/bin/crasher", "null"]);
    let record = only(&host);
    assert_eq!(
        ["container_name", "pod_name", "image"].map(|key| record[key].as_str().unwrap_or_default()),
        ["web", "shop", &format!("{IMAGE}:latest")],
        "{record:#}"
    );
    let id = record["container_id"].as_str().unwrap();
    let directory = |name: &str| {
        let path = podman.verb(&["inspect", "--format", "{{.OCIConfigPath}}", name]);
        path.trim().strip_suffix("/config.json").unwrap().to_owned()
    };
    let planned = product(&["plan", &directory("shop-web")]);
    assert!(
        planned.starts_with(
            "pattern \"/web/core\" from web.oci-coredump/pattern\nfor container \"web\", pod \
             \"shop\", "
        ) && planned.contains("engine \"podman\""),
        "{planned}"
    );
    let planned = product(&["plan", &directory("shop-db")]);
    assert!(
        planned.contains("it is called \"db\", not as in web.oci-coredump/pattern"),
        "{planned}"
    );

    // The tool that is asked is this podman, with its storage: by its name on the PATH, beside one
    // that never answers.
    let bin = scratch.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let words: Vec<String> = std::iter::once(podman.command().get_program().to_owned())
        .chain(podman.command().get_args().map(ToOwned::to_owned))
        .map(|word| word.into_string().unwrap())
        .collect();
    let real = require::find("podman").unwrap();
    let script = |name: &str, text: &str| {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, mode).unwrap();
    };
    script("podman", &format!("exec {} {} \"$@\"", real.display(), words[1..].join(" ")));
    script("docker", "exec sleep 1000");
    let enable = |name: &str| {
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let verb = ["enable", name, "--pattern", "/enabled/core"];
        Command::new(BINARY).args(verb).env("PATH", path).output().unwrap()
    };
    let unknown = enable("nobody");
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(
        said.contains("no container is called \"nobody\" here (asked: podman, ")
            && said.contains("no answer from: docker"),
        "{said}"
    );
    let db = podman.verb(&["inspect", "--format", "{{.ID}}", "shop-db"]);
    for name in ["shop-db", "shop/db", &db[..10]] {
        let done = enable(name);
        assert!(done.status.success(), "{name}: {done:?}");
        assert!(product(&["disable", &db[..10]]).contains(db.trim()), "{name}");
    }
    assert_ne!(id, db.trim());
    podman.verb(&["pod", "rm", "--force", "--all", "--time", "0"]);
}
