//! No crash is lost when the server ends, hangs, is killed or replaced.
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use support::bare::{self, Container, Victim};
use support::host::{BINARY, Host};
use support::processes;
use support::scene::product;
use support::server::{DEADLINE, SOCKET, Server, WANTED, Way};
use support::wait::{becomes, wait_for};

/// A host with a server whose socket the kernel uses, and a container. Dropped from the container
/// on.
struct Scene {
    container: Container,
    _directory: TempDir,
    server: Option<Server>,
    host: Host,
}

impl Scene {
    /// `None` where this kernel has no such socket. The kernel's own pattern is `core`.
    fn new() -> Option<Self> {
        if !Way::Socket.is_possible() {
            return None;
        }
        let host = Host::installed(WANTED);
        host.set("kernel/core_pattern", "core");
        let server = Server::start(&host);
        let directory = TempDir::new_in("/dev/shm").unwrap();
        let container = Container::new("served", directory.path(), &[]);
        assert!(Way::Socket.is_taken(&host), "the kernel does not use the socket");
        Some(Self { container, _directory: directory, server: Some(server), host })
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it serves")
    }

    /// Ends the server as its unit does.
    fn stop(&mut self) {
        assert!(self.server.take().expect("it serves").stop().success());
    }

    fn victim(&self) -> Victim {
        self.container.victim(&bare::victim(), "tiny", 0)
    }

    /// A crash, which has its core.
    fn crash(&self) {
        let mut victim = self.victim();
        victim.crash();
        victim.end();
        assert!(victim.core().exists(), "{} is lost", victim.core().display());
    }
}

fn watch_once() {
    assert!(product(&["watch", "--once"]).status().unwrap().success());
}

/// Told to end, it gives the pipe back; started again, it has the kernel's crashes again. Whichever
/// way they come, there is a core.
#[test]
fn the_pipe_is_given_back() {
    let Some(mut scene) = Scene::new() else { return };
    scene.crash();
    scene.stop();
    assert!(Way::Pipe.is_taken(&scene.host), "{}", scene.host.sysctl("kernel/core_pattern"));
    scene.crash();
    let again = Server::start(&scene.host);
    again.wait_used();
    scene.crash();
    // Another server does not take the socket from it.
    assert!(!product(&["serve"]).output().unwrap().status.success());
    assert!(again.is_used());
    assert!(product(&["uninstall"]).status().unwrap().success());
    assert_eq!(scene.host.sysctl("kernel/core_pattern"), "core");
}

/// One that hangs is noticed by whoever looks: `watch`, a hook, and `doctor` says it.
#[test]
fn a_server_that_hangs() {
    let Some(scene) = Scene::new() else { return };
    let serving = Pid::from_raw(scene.server().serving());
    kill(serving, Signal::SIGSTOP).unwrap();
    let said = product(&["doctor"]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("no server answers"), "{said}");
    watch_once();
    assert!(Way::Pipe.is_taken(&scene.host), "{}", scene.host.sysctl("kernel/core_pattern"));
    scene.crash();
    kill(serving, Signal::SIGCONT).unwrap();
    watch_once();
    assert!(scene.server().is_used());
    scene.crash();
}

/// Processes wait for the crashes that come next. Killed, they are missed by no crash; they end
/// with the server.
#[test]
fn helpers_that_are_ready() {
    let Some(mut scene) = Scene::new() else { return };
    let waits = |pid: &i32| processes::field(*pid, "Name").as_deref() == Some("oci-ready");
    let ready = || processes::helpers().into_iter().filter(waits).collect::<Vec<_>>();
    for _ in 0..3 {
        wait_for("helpers that are ready", DEADLINE, || ready().len() == 2);
        let before = ready();
        scene.crash();
        wait_for("another one", DEADLINE, || ready().iter().any(|pid| !before.contains(pid)));
        ready().into_iter().for_each(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap());
        scene.crash();
    }
    scene.stop();
    wait_for("their end", DEADLINE, || ready().is_empty());
}

/// Killed, it is started again by who holds the socket, and what came meanwhile is served. Where
/// that one is killed too, the last act of the server is to give the pipe back.
#[test]
fn a_server_that_is_killed() {
    let Some(scene) = Scene::new() else { return };
    for _ in 0..3 {
        let serving = scene.server().serving();
        kill(Pid::from_raw(serving), Signal::SIGKILL).unwrap();
        scene.crash();
        processes::wait_gone(serving, DEADLINE);
    }
    kill(Pid::from_raw(scene.server().serving()), Signal::SIGHUP).unwrap();
    scene.crash();
    let serving = scene.server().serving();
    scene.server().signal(Signal::SIGKILL);
    wait_for("the pipe", DEADLINE, || Way::Pipe.is_taken(&scene.host));
    processes::wait_gone(serving, DEADLINE);
    scene.crash();
    // A socket that nobody listens on, and a pattern that leads to it.
    assert!(Path::new(SOCKET).exists());
    scene.host.set("kernel/core_pattern", support::server::PATTERN);
    watch_once();
    assert!(Way::Pipe.is_taken(&scene.host));
}

/// A thousand crashes, in batches, while the keeper and its server are told to begin anew, both are
/// ended and started again, and the program is replaced: each has its core.
#[test]
fn an_upgrade_under_load_loses_nothing() {
    const BATCHES: usize = 40;
    const EACH: usize = 25;
    let Some(mut scene) = Scene::new() else { return };
    let mut cores = 0;
    for batch in 0..BATCHES {
        let mut victims: Vec<_> = (0..EACH).map(|_| scene.victim()).collect();
        let (before, after) = victims.split_at_mut(EACH / 2);
        before.iter_mut().for_each(Victim::crash);
        match batch % 4 {
            0 => scene.server().signal(Signal::SIGHUP),
            1 => drop(scene.host.install()),
            // Half a batch comes while no server runs.
            2 => scene.stop(),
            _ => kill(Pid::from_raw(scene.server().serving()), Signal::SIGHUP).unwrap(),
        }
        after.iter_mut().for_each(Victim::crash);
        if scene.server.is_none() {
            scene.server = Some(Server::start(&scene.host));
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
    scene.host.settle();
    let records = scene.host.records_of("served").len();
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
    let mut victim = container.victim(&bare::victim(), "tiny", 0);
    victim.crash();
    victim.end();
    assert!(victim.core().exists());
    let status = Command::new(BINARY).args(["watch", "--once"]).status().unwrap();
    assert!(status.success() && Way::Pipe.is_taken(&host));
    assert!(server.stop().success());
}

/// `watch` has started with another configuration: it goes by the one that is there now, and leaves
/// crashes to the server.
#[test]
fn a_watch_from_before() {
    if !Way::Socket.is_possible() {
        return;
    }
    let host = Host::installed("kernel_interface = \"pipe\"\n");
    let directory = TempDir::new().unwrap();
    let _container = Container::new("watched", directory.path(), &[]);
    let mut watch = product(&["watch"]).spawn().unwrap();
    assert!(Way::Pipe.is_taken(&host));
    host.configure(WANTED);
    let server = Server::start(&host);
    server.wait_used();
    // It looks every two seconds.
    let is_left = !becomes(Duration::from_secs(5), || !server.is_used());
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(is_left, "{}", host.sysctl("kernel/core_pattern"));
}
