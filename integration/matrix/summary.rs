//! The summary after a crash: in which function, with a hash that is the same for the same crash.
use std::path::Path;

use serde_json::Value;

use support::host::STORE;
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, ECI_PATTERN, bundle, crash, host, product};

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
