//! Memory, whatever the size of the core.

#[allow(dead_code)]
mod support;

use serde_json::json;
use std::process::Stdio;
use support::Fixture;
use support::servers::s3s;

/// What the program may have at most, in KiB.
const MOST: u64 = 64 << 10;

/// The most memory that a process has had, in KiB.
fn peak(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Two cores of 1.5 GiB at the same time, all of which goes over the connection.
#[test]
fn of_large_cores() {
    let fixture = Fixture::new(20);
    let Some(server) = s3s(&fixture) else { return };
    let core = std::fs::OpenOptions::new().write(true).open(&fixture.core).unwrap();
    let size = 3 << 29;
    core.set_len(size).unwrap();
    let second = "20260310T103001Z-4711-4f3c9a1b2d5e";
    fixture.add(second, json!({"time": "2026-03-10T10:30:01Z"}));
    let more = "what = \"core\"\nreport = false\nconcurrent = 2\n";
    fixture.configure(&(server.settings(server.port) + more));
    let mut child = fixture.ship(&["run", "--once"]).stderr(Stdio::inherit()).spawn().unwrap();
    let mut most = 0;
    let status = loop {
        most = most.max(peak(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(status.success());
    let there = |id: &str| {
        let object = server.object(&format!("prod/shop-0/web/{id}/core"));
        object.metadata().unwrap().len()
    };
    assert_eq!((there(support::ID), there(second)), (size, size));
    eprintln!("two uploads of {} MiB: {} MiB at most", size >> 20, most >> 10);
    assert!(most > 0 && most <= MOST, "{most} KiB");
}
