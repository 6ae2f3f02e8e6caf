//! Several crashes whose cores have one name: a container that is started again, replicas on one
//! volume. Each record speaks for its own core only.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use support::core_file;
use support::fixture::{LONG, names, store_of};
use support::host::{Host, STORE};
use support::podman::Podman;
use support::require;
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, ECI_PATTERN, bundle, fill, hooks, host, product};
use support::wait::wait_for;

support::cases!(crashes_again: replace("replace"), keep("keep"), number("number"));

support::cases!(replicas: replace("replace"), number("number"));

/// What `list --json` prints, by the name of the signal.
fn listed(signal: &str) -> Value {
    let output = product(&["list", "--json", &format!("signal={signal}")]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{signal}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Whether `export` gives a core for a crash.
fn exported(signal: &str, to: &Path) -> bool {
    let to = to.to_str().unwrap();
    let arguments = ["export", &format!("signal={signal}"), "--core-only", "-o", to];
    product(&arguments).output().unwrap().status.success()
}

/// The first process crashes, the container is started again, and it crashes of something else:
/// both are PID 1.
fn crashes_again(existing: &str) {
    if !require::programs(&["podman", "runc"]) {
        return;
    }
    let host = host();
    let podman = Podman::new(Kind::Runc, fill);
    hooks(&podman);
    let pattern = format!("{ECI}={ECI_PATTERN}");
    let choice = format!("oci-coredump/existing={existing}");
    let script = "if [ -e /second ]; then exec victim fpe; fi; touch /second; exec victim segv";
    let id = podman.start(
        "again",
        &["--annotation", &pattern, "--annotation", &choice],
        &["/bin/sh", "-c", script],
    );
    podman.verb(&["wait", "again"]);
    host.settle();
    podman.verb(&["start", "again"]);
    podman.verb(&["wait", "again"]);
    host.settle();

    let store = store_of(&id);
    let (first, second) = (listed("SIGSEGV"), listed("SIGFPE"));
    let signals: Vec<i32> =
        names(&store).iter().map(|name| core_file::read(&store.join(name)).signal).collect();
    let states = [&first, &second].map(|row| row["corefile"].as_str().unwrap());
    let scratch = TempDir::new().unwrap();
    let to = |name: &str| scratch.path().join(name);
    match existing {
        "replace" => {
            assert_eq!((signals, states), (vec![8], ["overwritten", "present"]));
            assert_eq!(first["overwritten_by"]["time"], second["time"]);
            assert!(!exported("SIGSEGV", &to("first")), "another crash's core was exported");
            // Two records of one file: it counts once, and goes with its own record only.
            let core = fs::metadata(store.join("core-eci.1")).unwrap().blocks() * 512;
            let binaries: u64 = fs::read_dir(Path::new(STORE).join("binaries"))
                .unwrap()
                .map(|entry| entry.unwrap().metadata().unwrap())
                .filter(|file| file.is_file())
                .map(|file| file.blocks() * 512)
                .sum();
            let limit = (binaries + core * 3 / 2).to_string();
            let told = product(&["vacuum", "--dry-run", "--max-size", &limit]).output().unwrap();
            let told = String::from_utf8(told.stdout).unwrap();
            assert!(told.contains("0 of 2 crashes"), "{limit}: {told}");
            assert!(product(&["vacuum", "--keep", "1"]).status().unwrap().success());
            assert_eq!(listed("SIGFPE")["corefile"], "present");
            assert_eq!(core_file::read(&store.join("core-eci.1")).signal, 8);
        }
        "keep" => {
            assert_eq!((signals, states), (vec![11], ["present", "none"]));
            assert_eq!(second["cause"], "exists", "{second:#}");
            assert!(second["reason"].as_str().unwrap().contains("existing = keep"), "{second:#}");
            assert!(exported("SIGSEGV", &to("first")));
        }
        _ => {
            assert_eq!(names(&store), ["core-eci.1", "core-eci.1.2"]);
            assert_eq!((signals, states), (vec![11, 8], ["present", "present"]));
            assert_eq!(second["core_path"], format!("{ECI_PATTERN}.1.2"));
            for (signal, number) in [("SIGSEGV", 11), ("SIGFPE", 8)] {
                assert!(exported(signal, &to(signal)), "{signal}");
                assert_eq!(core_file::read(&to(signal)).signal, number);
            }
        }
    }
    podman.verb(&["rm", "--force", "--time", "0", "again"]);
}

/// Replicas of one container on one volume are all PID 1, and crash at the same moment.
fn replicas(existing: &str) {
    if !require::programs(&["runc"]) {
        return;
    }
    const COUNT: usize = 6;
    let host = Host::installed(&format!("existing = \"{existing}\"\n"));
    let runtime = Runtime::new(Kind::Runc);
    let volume = TempDir::new().unwrap();
    let mut bundles = Vec::new();
    for _ in 0..COUNT {
        let mut bundle = bundle();
        bundle.annotation(ECI, ECI_PATTERN).bind(volume.path(), "/pod/data/dump");
        bundle.shell("while [ ! -e /pod/data/dump/go ]; do sleep 0.01; done; exec victim segv");
        bundles.push(bundle);
    }
    let ids: Vec<String> = (0..COUNT).map(|n| format!("replica-{existing}-{n}")).collect();
    let containers: Vec<_> =
        bundles.iter().zip(&ids).map(|(bundle, id)| runtime.start(bundle, id)).collect();
    fs::write(volume.path().join("go"), "").unwrap();
    wait_for("the record of each", LONG, || host.records().len() == COUNT);
    host.settle();
    let cores: Vec<String> =
        names(volume.path()).into_iter().filter(|name| name.starts_with("core")).collect();
    let output = product(&["list", "--json"]).output().unwrap();
    let rows: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let present: Vec<&Value> = rows.iter().filter(|row| row["corefile"] == "present").collect();
    let expected = if existing == "number" { COUNT } else { 1 };
    assert_eq!((cores.len(), present.len()), (expected, expected), "{cores:?}: {rows:#?}");
    for row in &rows {
        // Nobody's core is lost by the race itself: each was written, and knows its file.
        assert_eq!(row["outcome"], "written", "{row:#}");
        assert!(row["identity"].is_object(), "{row:#}");
    }
    for row in present {
        let core = Path::new(row["host_path"].as_str().unwrap());
        assert_eq!(core_file::read(core).signal, 11, "{row:#}");
        assert_eq!(fs::metadata(core).unwrap().len(), row["size"].as_u64().unwrap(), "{row:#}");
    }
    for container in containers {
        container.remove();
    }
}
