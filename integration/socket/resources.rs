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

/// A server that waits, and a storm of a thousand, in batches.
#[test]
fn memory_of_the_server_and_of_a_storm() {
    const IDLE: u64 = 8 << 10;
    // The goal is 64 MiB. A crash has three processes here, as through the pipe.
    const STORM: u64 = 512 << 10;
    if !Way::Socket.is_possible() {
        return;
    }
    let host = Host::installed(WANTED);
    let server = Server::start(&host);
    let directory = TempDir::new_in("/dev/shm").unwrap();
    let container = Container::new("stormed", directory.path(), &[]);
    assert!(Way::Socket.is_taken(&host));
    // Of the program's code a build with debug assertions has more: it is printed, and not counted.
    let resident = kib(server.serving(), "VmRSS");
    let idle = kib(server.serving(), "RssAnon");
    let mut peak = 0;
    for _ in 0..5 {
        let mut victims: Vec<_> =
            (0..200).map(|_| container.victim(&bare::victim(), "tiny", 0)).collect();
        victims.iter_mut().for_each(Victim::crash);
        for victim in &mut victims {
            victim.end();
            peak = peak.max(helpers().iter().map(|pid| kib(*pid, "RssAnon")).sum());
            fs::remove_file(victim.core()).unwrap();
        }
    }
    println!(
        "idle: {resident} KiB resident, {idle} KiB its own; a storm: at most {peak} KiB of its own"
    );
    host.settle();
    let after = kib(server.serving(), "RssAnon");
    assert!(idle.max(after) <= IDLE, "idle: {idle} KiB, {after} KiB after the storm");
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
