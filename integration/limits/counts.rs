//! `metrics` counts each crash, whatever becomes of its record.
use std::process::Command;

use super::quota::{directory, host, tiny};
use support::bare::Container;
use support::host::BINARY;

fn metrics() -> String {
    String::from_utf8(Command::new(BINARY).arg("metrics").output().unwrap().stdout).unwrap()
}

#[test]
fn crashes_are_counted_by_cause_and_stay_when_their_records_go() {
    let host = host("cores = 1\nkeep = \"oldest\"");
    let directory = directory();
    let container = Container::new("counted", directory.path(), &[]);
    let causes: Vec<_> = (0..3).map(|_| tiny(&host, "counted", &container).1).collect();
    let cause = |n: usize| causes[n]["cause"].as_str();
    assert_eq!((cause(0), cause(1), cause(2)), (None, Some("cores"), Some("cores")));
    host.settle();
    let labels = r#"{namespace="",container="",signal="SIGABRT","#;
    let expected = [
        format!(r#"oci_coredump_crashes_total{labels}outcome="written",cause="none"}} 1"#),
        format!(r#"oci_coredump_crashes_total{labels}outcome="none",cause="cores"}} 2"#),
        "oci_coredump_dump_duration_seconds_count 1".to_owned(),
    ];
    let counted = |text: &str| expected.iter().all(|line| text.lines().any(|l| l == line));
    let before = metrics();
    assert!(counted(&before), "{before}");
    assert!(before.contains("oci_coredump_recorded_crashes{"), "{before}");
    let vacuum = Command::new(BINARY).args(["vacuum", "--keep", "0"]).output().unwrap();
    assert!(vacuum.status.success(), "{vacuum:?}");
    let after = metrics();
    assert!(counted(&after), "{after}");
    assert!(!after.contains("oci_coredump_recorded_crashes{"), "{after}");
}
