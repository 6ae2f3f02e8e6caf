//! The demonstration: a container asks for its pattern and has its cores, on each runtime.
use std::path::Path;

use support::core_file::{self, Crashed};
use support::host::STORE;
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, ECI_PATTERN, bundle, crash, host, product};
use support::server::Way;

support::per_runtime!(cores_come_through_the_socket);

/// The signals of a program's own faults; a second container in between has another pattern. What
/// is refused leaves no core, and the wait status says so.
fn cores_come_through_the_socket(kind: Kind) {
    const SIGNALS: [(&str, i32); 4] = [("abrt", 6), ("segv", 11), ("fpe", 8), ("quit", 3)];
    if !Way::Socket.is_possible() {
        return;
    }
    let host = host();
    let _server = Way::Socket.serve(&host);
    let runtime = Runtime::new(kind);
    let id = format!("socket-{}", kind.name());
    let (mut first, mut second) = (bundle(), bundle());
    first.annotation(ECI, ECI_PATTERN);
    second.annotation(ECI, "/var/crash/%e.%s.%i");
    let container = runtime.start(&first, &id);
    let other_id = format!("{id}-other");
    let other = runtime.start(&second, &other_id);
    // crun's hooks are in a mount namespace from which the kernel takes only the pipe's pattern.
    assert!(product(&["watch", "--once"]).status().unwrap().success());
    assert!(Way::Socket.is_taken(&host), "the kernel does not use the socket");
    let store = |id: &str| Path::new(STORE).join("containers").join(id);
    for (name, signal) in SIGNALS {
        let (pid, status) = crash(|script| container.sh(script), name);
        assert_eq!(status, signal | 0x80, "{name}");
        let core = store(&id).join(format!("core-eci.{pid}"));
        assert_eq!(core_file::read(&core), Crashed { signal, tid: pid }, "{name}");
        let record = &host.records_of(&id)[..];
        let record = record.iter().find(|record| record["pid"] == pid).unwrap();
        assert_eq!(record["signal"], signal, "{record:#}");
        let (pid, _) = crash(|script| other.sh(script), name);
        let core = store(&other_id).join(format!("victim.{signal}.{pid}"));
        // core_uses_pid: the template has no %p.
        let core = core.with_file_name(format!("victim.{signal}.{pid}.{pid}"));
        assert_eq!(core_file::read(&core), Crashed { signal, tid: pid }, "{name}");
    }
    let (_, status) = crash(|script| container.sh(&format!("ulimit -Hc 0; {script}")), "segv");
    assert_eq!(status, 11, "a core was refused, and the wait status has WCOREDUMP");
    let records = host.records_of(&id);
    assert_eq!(records.len(), SIGNALS.len() + 1, "{records:#?}");
    assert_eq!(records.iter().filter(|record| record["outcome"] == "none").count(), 1);
}
