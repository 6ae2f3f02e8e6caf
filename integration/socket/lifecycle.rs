//! No crash is lost when the server ends, hangs, is killed or replaced.
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use support::bare::{self, Container, Victim};
use support::host::{BINARY, Host};
use support::processes;
use support::scene::product;
use support::server::{DEADLINE, SOCKET, Server, WANTED, Way};
use support::wait::wait_for;

/// The host with a server whose socket the kernel uses, and a container.
fn scene(host: &Host, directory: &Path) -> (Container, std::path::PathBuf) {
    let container = Container::new("served", directory, &[]);
    assert!(Way::Socket.is_taken(host), "the kernel does not use the socket");
    (container, bare::victim())
}

fn dies(mut victim: Victim) {
    victim.crash();
    let core = victim.core().to_owned();
    victim.end();
    assert!(core.exists(), "{} is lost", core.display());
}

fn watch_once() {
    assert!(product(&["watch", "--once"]).status().unwrap().success());
}

/// Told to end, it gives the pipe back; started again, it has the kernel's crashes again. Whichever
/// way they come, there is a core.
#[test]
fn the_pipe_is_given_back() {
    if !Way::Socket.is_possible() {
        return;
    }
    let host = Host::installed(WANTED);
    host.set("kernel/core_pattern", "core");
    let server = Server::start(&host);
    let directory = TempDir::new().unwrap();
    let (container, victim) = scene(&host, directory.path());
    dies(container.victim(&victim, "tiny", 0));
    assert!(server.stop().success());
    assert!(Way::Pipe.is_taken(&host), "{}", host.sysctl("kernel/core_pattern"));
    dies(container.victim(&victim, "tiny", 0));
    let again = Server::start(&host);
    again.wait_used();
    dies(container.victim(&victim, "tiny", 0));
    // Another server does not take the socket from it.
    assert!(!product(&["serve"]).output().unwrap().status.success());
    assert!(again.is_used());
    assert!(product(&["uninstall"]).status().unwrap().success());
    assert_eq!(host.sysctl("kernel/core_pattern"), "core");
}

/// One that hangs is noticed by whoever looks: `watch`, a hook, and `doctor` says it.
#[test]
fn a_server_that_hangs() {
    if !Way::Socket.is_possible() {
        return;
    }
    let host = Host::installed(WANTED);
    let server = Server::start(&host);
    let directory = TempDir::new().unwrap();
    let (container, victim) = scene(&host, directory.path());
    let serving = Pid::from_raw(server.serving());
    kill(serving, Signal::SIGSTOP).unwrap();
    let said = product(&["doctor"]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("nobody serves"), "{said}");
    watch_once();
    assert!(Way::Pipe.is_taken(&host), "{}", host.sysctl("kernel/core_pattern"));
    dies(container.victim(&victim, "tiny", 0));
    kill(serving, Signal::SIGCONT).unwrap();
    watch_once();
    assert!(server.is_used());
    dies(container.victim(&victim, "tiny", 0));
}

/// Killed, it is started again by who holds the socket, and what came meanwhile is served. Where
/// that one is killed too, the last act of the server is to give the pipe back.
#[test]
fn a_server_that_is_killed() {
    if !Way::Socket.is_possible() {
        return;
    }
    let host = Host::installed(WANTED);
    let server = Server::start(&host);
    let directory = TempDir::new().unwrap();
    let (container, victim) = scene(&host, directory.path());
    for _ in 0..3 {
        let serving = server.serving();
        kill(Pid::from_raw(serving), Signal::SIGKILL).unwrap();
        dies(container.victim(&victim, "tiny", 0));
        processes::wait_gone(serving, DEADLINE);
    }
    kill(Pid::from_raw(server.serving()), Signal::SIGHUP).unwrap();
    dies(container.victim(&victim, "tiny", 0));
    let serving = server.serving();
    server.signal(Signal::SIGKILL);
    wait_for("the pipe", DEADLINE, || Way::Pipe.is_taken(&host));
    processes::wait_gone(serving, DEADLINE);
    dies(container.victim(&victim, "tiny", 0));
    // A socket that nobody listens on, and a pattern that leads to it.
    assert!(Path::new(SOCKET).exists());
    host.set("kernel/core_pattern", support::server::PATTERN);
    watch_once();
    assert!(Way::Pipe.is_taken(&host));
}

/// A thousand crashes, in batches, while the server is told to begin anew, ended and started again,
/// killed, and the program replaced: each has its core.
#[test]
fn an_upgrade_under_load_loses_nothing() {
    const BATCHES: usize = 40;
    const EACH: usize = 25;
    if !Way::Socket.is_possible() {
        return;
    }
    let host = Host::installed(WANTED);
    let mut server = Some(Server::start(&host));
    let directory = TempDir::new_in("/dev/shm").unwrap();
    let (container, victim) = scene(&host, directory.path());
    let mut cores = 0;
    for batch in 0..BATCHES {
        let mut victims: Vec<_> = (0..EACH).map(|_| container.victim(&victim, "tiny", 0)).collect();
        let (before, after) = victims.split_at_mut(EACH / 2);
        before.iter_mut().for_each(Victim::crash);
        match batch % 4 {
            0 => server.as_ref().unwrap().signal(Signal::SIGHUP),
            1 => drop(host.install()),
            2 => {
                // Half a batch comes while nobody serves.
                assert!(server.take().unwrap().stop().success());
            }
            _ => {
                let serving = server.as_ref().unwrap().serving();
                kill(Pid::from_raw(serving), Signal::SIGHUP).unwrap();
            }
        }
        after.iter_mut().for_each(Victim::crash);
        if server.is_none() {
            server = Some(Server::start(&host));
        }
        for victim in &mut victims {
            victim.end();
            assert!(victim.core().exists(), "batch {batch}: {} is lost", victim.core().display());
            cores += 1;
        }
        for victim in &victims {
            fs::remove_file(victim.core()).unwrap();
        }
    }
    assert_eq!(cores, BATCHES * EACH);
    host.settle();
    let records = host.records_of("served").len();
    println!("{cores} crashes have their cores, {records} of them still a record");
}

/// Before a container has asked for anything, and with the pipe configured, the server changes
/// nothing of the kernel's.
#[test]
fn a_server_that_nobody_wants() {
    if !Way::Socket.is_possible() {
        return;
    }
    let host = Host::installed("kernel_interface = \"pipe\"\n");
    let server = Server::start(&host);
    let directory = TempDir::new().unwrap();
    let container = Container::new("piped", directory.path(), &[]);
    assert!(Way::Pipe.is_taken(&host));
    dies(container.victim(&bare::victim(), "tiny", 0));
    let status = Command::new(BINARY).args(["watch", "--once"]).status().unwrap();
    assert!(status.success() && Way::Pipe.is_taken(&host));
    assert!(server.stop().success());
}
