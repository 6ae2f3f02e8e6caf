//! Which processes may crash in a container, and of which signals.
use std::path::Path;

use support::core_file::{self, Crashed};
use support::host::STORE;
use support::podman::Podman;
use support::require;
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, ECI_PATTERN, bundle, crash, ended, host, only_record};

support::per_runtime!(
    all_ten_signals,
    the_first_process,
    a_child_of_the_first_process,
    a_thread_that_is_not_the_leader
);

support::cases!(the_first_process_under_podman: runc(Kind::Runc), crun(Kind::Crun));

/// signal(7): the ten whose action is "Core".
const SIGNALS: [(&str, i32); 10] = [
    ("abrt", 6),
    ("bus", 7),
    ("fpe", 8),
    ("ill", 4),
    ("quit", 3),
    ("segv", 11),
    ("sys", 31),
    ("trap", 5),
    ("xcpu", 24),
    ("xfsz", 25),
];

fn in_store(id: &str, pid: i32) -> std::path::PathBuf {
    Path::new(STORE).join("containers").join(id).join(format!("core-eci.{pid}"))
}

fn all_ten_signals(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let id = format!("signals-{}", kind.name());
    let mut bundle = bundle();
    bundle.annotation(ECI, ECI_PATTERN);
    let container = runtime.start(&bundle, &id);
    for (name, signal) in SIGNALS {
        let (pid, status) = crash(|script| container.sh(script), name);
        assert_eq!(status, signal | 0x80, "{name}");
        assert_eq!(core_file::read(&in_store(&id, pid)), Crashed { signal, tid: pid }, "{name}");
        let records = host.records_of(&id);
        let record = records
            .iter()
            .find(|record| record["pid"] == pid)
            .unwrap_or_else(|| panic!("{records:#?}"));
        assert_eq!(record["signal"], signal, "{record:#}");
        assert_eq!(record["signal_name"], format!("SIG{}", name.to_uppercase()), "{record:#}");
    }
    assert_eq!(host.records_of(&id).len(), SIGNALS.len());
}

/// The container's own init: its limit is the one that the hook set before it was started.
fn the_first_process(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let id = format!("first-{}", kind.name());
    let mut bundle = bundle();
    bundle.annotation(ECI, ECI_PATTERN).args(&["/bin/victim", "segv"]);
    let container = runtime.start(&bundle, &id);
    container.wait_stopped();
    container.remove();
    assert_eq!(core_file::read(&in_store(&id, 1)), Crashed { signal: 11, tid: 1 });
    assert_eq!(only_record(&host, &id)["pid"], 1);
}

/// `podman run`: the crash of PID 1, with the exit status of a shell.
fn the_first_process_under_podman(kind: Kind) {
    if !require::programs(&["podman", kind.name()]) {
        return;
    }
    let host = host();
    let podman = Podman::new(kind, support::scene::fill);
    support::scene::hooks(&podman);
    let annotation = format!("{ECI}={ECI_PATTERN}");
    let output =
        podman.run(&["--name", "dies", "--annotation", &annotation], &["/bin/victim", "segv"]);
    assert_eq!(output.status.code(), Some(128 + 11), "{output:?}");
    let id = podman.verb(&["inspect", "--format", "{{.Id}}", "dies"]).trim().to_owned();
    assert_eq!(core_file::read(&in_store(&id, 1)), Crashed { signal: 11, tid: 1 });
    only_record(&host, &id);
}

/// A child of the init, which waits for it: with the limit inherited from
/// the init, no exec in sight.
fn a_child_of_the_first_process(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let id = format!("child-{}", kind.name());
    let mut bundle = bundle();
    bundle.annotation(ECI, ECI_PATTERN).args(&["/bin/victim", "wait", "abrt"]);
    let container = runtime.start(&bundle, &id);
    container.wait_stopped();
    let (pid, status) = ended(&container.stdout());
    assert_eq!(status, 6 | 0x80);
    container.remove();
    assert_eq!(core_file::read(&in_store(&id, pid)), Crashed { signal: 6, tid: pid });
    assert_eq!(only_record(&host, &id)["pid"], pid);
}

/// A thread that is not the leader: the file is named by the process, the core and
/// the record name the thread.
fn a_thread_that_is_not_the_leader(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let id = format!("thread-{}", kind.name());
    let mut bundle = bundle();
    bundle.annotation(ECI, ECI_PATTERN);
    let container = runtime.start(&bundle, &id);
    let printed = container.sh("/bin/victim wait thread");
    let (pid, status) = ended(&printed);
    assert_eq!(status, 11 | 0x80);
    let tid: i32 = printed.lines().next().unwrap().parse().unwrap();
    assert_ne!(tid, pid, "{printed}");
    assert_eq!(core_file::read(&in_store(&id, pid)), Crashed { signal: 11, tid });
    let record = only_record(&host, &id);
    assert_eq!((&record["pid"], &record["tid"]), (&pid.into(), &tid.into()), "{record:#}");
}

/// The record identifies the crash: the names that the engine gave in annotations, the user,
/// and the PIDs on both sides.
#[test]
fn the_record_says_who() {
    let host = host();
    let runtime = Runtime::new(Kind::Runc);
    let mut bundle = bundle();
    bundle.annotation(ECI, ECI_PATTERN).user(1000, 1000);
    for (key, value) in [
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.container-name", "web"),
        ("io.kubernetes.cri.sandbox-name", "shop"),
        ("io.kubernetes.cri.sandbox-namespace", "market"),
        ("io.kubernetes.cri.image-name", "registry.example/web:1"),
    ] {
        bundle.annotation(key, value);
    }
    let container = runtime.start(&bundle, "named");
    let output = container.exec_with(&["--user", "1000:1000"], &["/bin/victim", "wait", "segv"]);
    let (pid, _) = ended(&String::from_utf8(output.stdout).unwrap());
    let record = only_record(&host, "named");
    assert_eq!(record["pid"], pid, "{record:#}");
    // The victim was born after the init, of which the host's PID is known, and PIDs of the
    // test's short time only grow.
    assert!(record["host_pid"].as_i64().unwrap() > container.pid().into(), "{record:#}");
    let expected = serde_json::json!({
        "uid": 1000, "gid": 1000, "comm": "victim", "exe": "/bin/victim", "pattern": ECI_PATTERN,
        "container_name": "web",
        "pod_name": "shop", "pod_namespace": "market", "image": "registry.example/web:1",
        "dump_mode": 1,
        "truncated": false,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&record[key], value, "{key}: {record:#}");
    }
    let core = in_store("named", pid);
    assert_eq!(core_file::owner_and_mode(&core), (1000, 1000, 0o600));
    assert_eq!(record["size"], core.metadata().unwrap().len(), "{record:#}");
}
