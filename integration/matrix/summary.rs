//! The summary after a crash: in which function, with a hash that is the same for the same crash.
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use support::bare::{self, Container};
use support::host::STORE;
use support::journal::Journal;
use support::require;
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, ECI_PATTERN, bundle, crash, host, product};
use support::stacks::succeed;
use support::wait::becomes;

support::per_runtime!(the_same_crash_has_the_same_hash, a_compressed_core_has_a_summary);

fn the_same_crash_has_the_same_hash(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let id = format!("summary-{}", kind.name());
    let mut bundle = bundle();
    bundle.annotation(ECI, ECI_PATTERN);
    let container = runtime.start(&bundle, &id);
    let record = |how: &str| -> Value {
        let (pid, _) = crash(|script| container.sh(script), how);
        host.settle();
        let records = host.records_of(&id);
        records.into_iter().find(|record| record["pid"] == pid).expect("a record")
    };
    let (first, second, other) = (record("segv"), record("segv"), record("fpe"));
    for record in [&first, &second, &other] {
        let stack = record["stack"].as_array().unwrap_or_else(|| panic!("{record:#}"));
        assert!(stack[0].as_str().unwrap().contains("victim.c:"), "{stack:?}");
        assert!(stack.iter().any(|f| f.as_str().unwrap().starts_with("main (")), "{stack:?}");
    }
    let hash = |record: &Value| record["stack_hash"].as_str().unwrap().to_owned();
    assert_eq!(hash(&first), hash(&second));
    assert_ne!(hash(&first), hash(&other));
    let out = product(&["list", "--group", "--json"]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let groups: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<(&Value, &Value)> =
        groups.iter().map(|group| (&group["crashes"], &group["stack_hash"])).collect();
    assert_eq!(seen.len(), 2, "{groups:#?}");
    assert!(seen.contains(&(&Value::from(2), &first["stack_hash"])), "{groups:#?}");
    // Without it nothing is read, and nothing told.
    host.configure("summary = false\n");
    assert_eq!(record("segv").get("stack"), None);
    host.configure("");
    container.remove();
    std::fs::remove_dir_all(Path::new(STORE).join("records")).unwrap();
}

/// A compressed core is read frame by frame: its summary is that of the plain one.
fn a_compressed_core_has_a_summary(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let summary = |name: &str, compress: bool| -> (Value, Value) {
        let id = format!("{name}-{}", kind.name());
        let mut bundle = bundle();
        bundle.annotation(ECI, ECI_PATTERN);
        if compress {
            bundle.annotation("oci-coredump/compress", "zstd");
        }
        let container = runtime.start(&bundle, &id);
        let (pid, _) = crash(|script| container.sh(script), "segv");
        host.settle();
        let records = host.records_of(&id);
        let record = records.into_iter().find(|record| record["pid"] == pid).expect("a record");
        container.remove();
        (record["stack"].clone(), record["stack_hash"].clone())
    };
    let (plain, packed) = (summary("plain", false), summary("packed", true));
    assert!(plain.0.as_array().is_some_and(|stack| stack.len() > 1), "{plain:?}");
    assert_eq!(plain, packed);
    std::fs::remove_dir_all(Path::new(STORE).join("records")).unwrap();
}

/// Others first, but not for ever: where the processors are always busy, a crash has a stack too.
#[test]
fn on_a_busy_host_too() {
    let host = host();
    let directory = TempDir::with_prefix("busy").unwrap();
    let container = Container::new("busy", directory.path(), &[]);
    let program = bare::victim();
    // Each in a session of its own, so that each has a share of its own, of the same size.
    let spin = ["sh", "-c", "ulimit -t 100; while :; do :; done"];
    let cpus = std::thread::available_parallelism().unwrap().get();
    let mut spinning: Vec<_> =
        (0..64 * cpus).map(|_| Command::new("setsid").args(spin).spawn().unwrap()).collect();
    let mut victim = container.victim(&program, "tiny", 0);
    victim.crash();
    let stack = || host.record_of("busy", victim.pid())?.get("stack").cloned();
    let is_there = becomes(Duration::from_secs(120), || stack().is_some());
    for child in &mut spinning {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(is_there, "{:#}", host.record("busy"));
    assert!(victim.ends_within(Duration::from_secs(20)));
    host.settle();
}

/// systemd's own programs find the crash, its summary and its core by the journal.
#[test]
fn coredumpctl_shows_it() {
    let host = host();
    let Some(journal) = Journal::start().filter(|_| require::programs(&["zstdcat"])) else {
        return;
    };
    let mut bundle = bundle();
    bundle.annotation(ECI, ECI_PATTERN);
    // coredumpctl of systemd 252 dumps compressed cores only.
    bundle.annotation("oci-coredump/compress", "zstd");
    let runtime = Runtime::new(Kind::Runc);
    let container = runtime.start(&bundle, "journal");
    let (pid, _) = crash(|script| container.sh(script), "segv");
    host.settle();
    let records = host.records_of("journal");
    let record = records.into_iter().find(|record| record["pid"] == pid).expect("a record");
    let entry = journal.entry("COREDUMP_CONTAINER_ID=journal");
    let host_pid = record["host_pid"].to_string();
    let text = |key: &str| record[key].as_str().unwrap_or_else(|| panic!("{key}: {record:#}"));
    for (field, value) in [
        ("MESSAGE_ID", "fc2e22bc6ee647b6b90729ab34a250b1"),
        ("PRIORITY", "2"),
        ("COREDUMP_PID", &host_pid),
        ("COREDUMP_UID", "0"),
        ("COREDUMP_SIGNAL", "11"),
        ("COREDUMP_SIGNAL_NAME", "SIGSEGV"),
        ("COREDUMP_COMM", text("comm")),
        ("COREDUMP_EXE", text("exe")),
        ("COREDUMP_FILENAME", text("host_path")),
        ("COREDUMP_STACK_HASH", text("stack_hash")),
    ] {
        assert_eq!(entry[field], value, "{field}: {entry:#}");
    }
    let message = format!("Process {host_pid} ({}) dumped core: SIGSEGV in ", text("comm"));
    assert!(entry["MESSAGE"].as_str().unwrap().starts_with(&message), "{entry:#}");
    let stack = entry["COREDUMP_STACK"].as_str().unwrap();
    assert!(stack.contains("victim.c:") && stack.contains(" <- main ("), "{stack}");

    let list = journal.coredumpctl(&["list", "--no-legend", &host_pid]);
    assert!(list.contains(" SIGSEGV present ") && list.contains(text("exe")), "{list}");
    let info = journal.coredumpctl(&["info", &host_pid]);
    assert!(info.contains(&message) && info.contains(text("host_path")), "{info}");
    let core = succeed(Command::new("zstdcat").arg(text("host_path"))).stdout;
    assert!(journal.core(&host_pid) == core, "coredumpctl gives another core");
    container.remove();
    std::fs::remove_dir_all(Path::new(STORE).join("records")).unwrap();
}
