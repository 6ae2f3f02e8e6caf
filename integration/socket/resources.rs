//! What the server takes, and that one container's crashes keep no other's waiting.
use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use support::bare::{self, Container, Victim};
use support::fuse::{Answer, Fuse};
use support::host::Host;
use support::processes::{self, helpers};
use support::server::{Server, WANTED, Way};

/// KiB of a field of /proc/PID/status.
fn kib(pid: i32, name: &str) -> u64 {
    let value = processes::field(pid, name).unwrap_or_default();
    value.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// KiB of a process's own memory. What a child has of its parent's, and has not changed, exists
/// once: each has its part of it.
fn own(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A server that waits, and a storm of a thousand, in batches.
#[test]
fn memory_of_the_server_and_of_a_storm() {
    const IDLE: u64 = 8 << 10;
    const STORM: u64 = 64 << 10;
    if !Way::Socket.is_possible() {
        return;
    }
    let host = Host::installed(WANTED);
    let server = Server::start(&host);
    let directory = TempDir::new_in("/dev/shm").unwrap();
    let container = Container::new("stormed", directory.path(), &[]);
    assert!(Way::Socket.is_taken(&host));
    let resident = kib(server.serving(), "VmRSS");
    let idle = own(server.serving());
    let mut peak = 0;
    for _ in 0..5 {
        let mut victims: Vec<_> =
            (0..200).map(|_| container.victim(&bare::victim(), "tiny", 0)).collect();
        victims.iter_mut().for_each(Victim::crash);
        for victim in &mut victims {
            victim.end();
            peak = peak.max(helpers().into_iter().map(own).sum());
            fs::remove_file(victim.core()).unwrap();
        }
    }
    println!(
        "idle: {resident} KiB resident, {idle} KiB its own; a storm: at most {peak} KiB of its own"
    );
    host.settle();
    let after = own(server.serving());
    assert!(idle.max(after) <= IDLE, "idle: {idle} KiB, {after} KiB after the storm");
    // Of the program's code, which is on disk too, a build with debug assertions has more.
    let is_small = resident <= IDLE || cfg!(debug_assertions);
    assert!(is_small, "idle: {resident} KiB resident");
    assert!(peak <= STORM, "a storm: {peak} KiB");
}

/// A container whose volume never answers has as many crashes in hand as it may; another one's
/// crash does not wait for any of them.
#[test]
fn row_12_a_hostile_container_delays_nobody() {
    if !Way::Socket.is_possible() {
        return;
    }
    let host = Host::installed(WANTED);
    let server = Server::start(&host);
    let hangs = Fuse::mount();
    let hostile = Container::new("hostile", hangs.path(), &[]);
    let directory = TempDir::new().unwrap();
    let other = Container::new("other", directory.path(), &[]);
    assert!(server.is_used());
    hangs.on_write(0, Answer::Hold);
    let mut held: Vec<_> = (0..20).map(|_| hostile.victim(&bare::victim(), "tiny", 0)).collect();
    held.iter_mut().for_each(Victim::crash);
    assert!(hangs.wait_held(Duration::from_secs(60)));
    for _ in 0..5 {
        let mut victim = other.victim(&bare::victim(), "tiny", 0);
        victim.crash();
        victim.end();
        assert!(victim.core().exists());
    }
    hangs.go_on();
    for victim in &mut held {
        victim.end();
    }
}
