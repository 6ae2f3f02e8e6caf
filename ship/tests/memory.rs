//! The memory of the program: the same whatever is uploaded, and however many at once.

#[allow(dead_code)]
mod support;

use std::process::Stdio;
use std::time::Duration;
use support::servers::s3s;
use support::wait::wait_for;
use support::{Fixture, ID};

/// What is promised, in KiB.
const MOST: u64 = 64 << 10;
/// A second crash, with the same core.
const OTHER: &str = "20260310T103001Z-4712-4f3c9a1b2d5e";

/// Two cores of 1 GiB at the same time, with the largest memory that the process ever had.
#[test]
fn of_two_large_cores() {
    let fixture = Fixture::new(1024);
    let Some(server) = s3s(&fixture) else { return };
    let size = fixture.core.metadata().unwrap().len();
    fixture.add(OTHER, serde_json::json!({"time": "2026-03-10T10:30:01Z", "host_pid": 4712}));
    fixture.configure(&(server.settings(server.port) + "what = \"core\"\nconcurrent = 2\n"));
    let mut child = fixture.ship(&["run"]).stderr(Stdio::null()).spawn().unwrap();
    let is_done = |id: &str| {
        let text = std::fs::read_to_string(fixture.path(&format!("state/{id}.json")));
        text.is_ok_and(|text| text.contains("\"uploaded\""))
    };
    wait_for("the upload of 2 GiB", Duration::from_secs(3600), || {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        is_done(ID) && is_done(OTHER)
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    for id in [ID, OTHER] {
        let there = server.object(&format!("prod/shop-0/web/{id}/core"));
        assert_eq!(there.metadata().unwrap().len(), size);
    }
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{} MiB at once, twice: {} MiB of memory", size >> 20, peak >> 10);
    assert!(peak <= MOST, "{peak} KiB");
}
