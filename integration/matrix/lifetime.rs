//! Lifetimes: cores outlive their containers, patterns a restart, and nothing outlives the
//! container's registration.
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use support::core_file::{self, Crashed};
use support::host::{RUN, STORE};
use support::podman::Podman;
use support::require;
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, ECI_PATTERN, Engine, bundle, crash, host};

support::per_engine!(a_container_started_again; kill_and_removal);

support::cases!(podman_restart: runc(Kind::Runc), crun(Kind::Crun));

fn stored(id: &str, pid: i32) -> std::path::PathBuf {
    Path::new(STORE).join("containers").join(id).join(format!("core-eci.{pid}"))
}

fn registered(id: &str) -> bool {
    Path::new(RUN).join("containers").join(format!("{id}.json")).exists()
}

/// Kill and removal: the registration goes, the cores stay, on the volume and in the store.
fn kill_and_removal(engine: Engine) {
    let host = host();
    let volume = TempDir::new().unwrap();
    let kept = engine.start("kept", &[(ECI, ECI_PATTERN)], &[], &["sleep", "1000"]);
    let on_volume = engine.start(
        "volume",
        &[(ECI, "/cores/core")],
        &[(volume.path(), "/cores")],
        &["sleep", "1000"],
    );
    let (kept_id, volume_id) = (kept.id().to_owned(), on_volume.id().to_owned());
    let (kept_pid, _) = crash(|script| kept.sh(script), "segv");
    let (volume_pid, _) = crash(|script| on_volume.sh(script), "segv");
    assert!(registered(&kept_id) && registered(&volume_id));
    kept.remove();
    on_volume.remove();
    assert!(!registered(&kept_id) && !registered(&volume_id));
    let cores = [stored(&kept_id, kept_pid), volume.path().join(format!("core.{volume_pid}"))];
    for (core, tid) in cores.iter().zip([kept_pid, volume_pid]) {
        assert_eq!(core_file::read(core), Crashed { signal: 11, tid });
    }
    // Nothing of the container is left mounted on the host.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(STORE) && !mounts.contains(RUN), "{mounts}");
    drop(host);
}

/// The same ID again: a new init, the same wish, and the core of the first life is still there.
fn a_container_started_again(kind: Kind) {
    let _host = host();
    let runtime = Runtime::new(kind);
    let id = format!("again-{}", kind.name());
    let mut bundle = bundle();
    bundle.annotation(ECI, "/pod/data/dump/core-%s");
    for (how, life) in [("segv", 1), ("abrt", 2)] {
        let container = runtime.start(&bundle, &id);
        assert_eq!(container.sh("cat /proc/sys/kernel/core_pattern"), "/pod/data/dump/core-%s\n");
        crash(|script| container.sh(script), how);
        assert_eq!(container.sh("ls /pod/data/dump").lines().count(), life, "life {life}");
        container.remove();
    }
}

fn podman_restart(kind: Kind) {
    if !require::programs(&["podman", kind.name()]) {
        return;
    }
    let _host = host();
    let podman = Podman::new(kind, support::scene::fill);
    support::scene::hooks(&podman);
    let annotation = format!("{ECI}={ECI_PATTERN}");
    let id = podman.start("again", &["--annotation", &annotation], &["sleep", "1000"]);
    let (first, _) = crash(|script| podman.sh("again", script), "segv");
    podman.verb(&["restart", "--time", "0", "again"]);
    assert!(registered(&id));
    assert_eq!(podman.sh("again", "cat /proc/sys/kernel/core_pattern"), format!("{ECI_PATTERN}\n"));
    assert_eq!(podman.sh("again", "ls /pod/data/dump"), format!("core-eci.{first}\n"));
    // Another signal, so that it is another core even when the PID is the same.
    let (second, _) = crash(|script| podman.sh("again", script), "abrt");
    assert_eq!(core_file::read(&stored(&id, second)), Crashed { signal: 6, tid: second });
}

/// A container whose poststop hook did not run, since its runtime was killed: the end of another
/// one removes its registration.
#[test]
fn a_registration_that_nobody_took_back() {
    let _host = host();
    let runtime = Runtime::new(Kind::Runc);
    let mut lost = bundle();
    lost.annotation(ECI, ECI_PATTERN);
    lost.config["hooks"].as_object_mut().unwrap().remove("poststop");
    runtime.start(&lost, "lost").remove();
    assert!(registered("lost"));
    let mut next = bundle();
    next.annotation(ECI, ECI_PATTERN);
    runtime.start(&next, "next").remove();
    assert!(!registered("lost"));
}
