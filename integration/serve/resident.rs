//! What the resident dispatcher does that a process for each crash does not; and that nothing is lost without it.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::scene;
use crate::support::bare::{self, Container};
use crate::support::between::{Between, wait_gone};
use crate::support::host::{BINARY, Host, RUN, waiting};
use crate::support::require;

/// A container, and a program to crash in it.
struct Scene {
    host: Host,
    directory: TempDir,
    container: Container,
    victim: PathBuf,
}

impl Scene {
    fn new(annotations: &[(&str, &str)]) -> Self {
        let host = scene::host();
        let directory = TempDir::with_prefix("serve").unwrap();
        let container = Container::new("served", directory.path(), annotations);
        Scene { host, directory, container, victim: bare::compile("victim") }
    }

    /// One crash, which must leave one whole core and one record. How long the parent waited.
    fn crash(&self, what: &str) -> Duration {
        let mut victim = self.container.victim(&self.victim, "tiny", 0);
        victim.crash();
        let (start, end) = victim.end();
        self.host.settle();
        let records: Vec<_> = self.host.records_of("served").into_iter().filter(|r| r["host_pid"] == victim.pid()).collect();
        let [record] = records.as_slice() else { panic!("{what}: {} records", records.len()) };
        assert_eq!(record["outcome"], "written", "{what}: {record:#}");
        let core = fs::read(victim.core()).unwrap();
        assert_eq!(record["size"], core.len(), "{what}");
        assert!(core.starts_with(b"\x7fELF"), "{what}");
        fs::remove_file(victim.core()).unwrap();
        Duration::from_nanos(end - start)
    }
}

fn signal(all: &[i32], signal: Signal) {
    all.iter().for_each(|pid| kill(Pid::from_raw(*pid), signal).unwrap());
}

/// The system calls of the process that the kernel starts.
fn calls(scene: &Scene) -> Vec<String> {
    let between = Between::new(&scene.host, "exec >/dev/null 2>&1\nexec strace -qq -o ${0%/*}/trace $helper \"$@\"");
    scene.crash("traced");
    let text = fs::read_to_string(between.path().join("trace")).unwrap();
    text.lines().filter_map(|line| line.split('(').next().map(str::to_owned)).collect()
}

/// The kernel's helper ends before its C library has started up; when nobody serves it does it all.
#[test]
fn the_helper_hands_over_and_ends() {
    if !require::programs(&["strace"]) {
        return;
    }
    let scene = Scene::new(&[]);
    let handed = ["execve", "socket", "connect", "ppoll", "recvfrom", "sendmsg", "ppoll", "recvfrom", "exit_group"];
    assert_eq!(calls(&scene), handed);
    assert_eq!(scene.host.end_serving(), Some(true));
    let check_alone = || {
        let alone = calls(&scene);
        assert_eq!(alone[..4], ["execve", "socket", "connect", "close"]);
        assert!(alone.len() > 60, "{alone:?}");
    };
    check_alone();
    // What the compiler makes of code that runs before everything differs.
    if scene.host.install_optimized() {
        check_alone();
        scene.host.serve();
        assert_eq!(calls(&scene), handed);
    }
}

/// Killed, with SIGKILL: all of it, or one of those who wait.
#[test]
fn killed() {
    let scene = Scene::new(&[]);
    scene.host.end_serving();
    let resident = scene.host.serve();
    let one = waiting(resident)[0];
    signal(&[one], Signal::SIGKILL);
    scene.crash("one of those who wait was killed");
    let rest = waiting(resident);
    signal(&[resident as i32], Signal::SIGKILL);
    for pid in rest {
        wait_gone(pid, Duration::from_secs(5));
    }
    let time = scene.crash("the resident dispatcher was killed");
    assert!(time < Duration::from_secs(1), "it was waited for: {time:?}");
    // What the killed one left does not keep the next one from serving.
    scene.host.serve();
    scene.crash("served again");
}

/// It hangs: the helper does it itself, and what wakes up later does not do it again.
#[test]
fn hangs() {
    let scene = Scene::new(&[]);
    scene.host.end_serving();
    let resident = scene.host.serve();
    let mut all = waiting(resident);
    all.push(resident as i32);
    signal(&all, Signal::SIGSTOP);
    let time = scene.crash("it hangs");
    assert!(time > Duration::from_secs(1), "somebody else took it: {time:?}");
    signal(&all, Signal::SIGCONT);
    assert!(scene.crash("it goes on") < Duration::from_secs(1));
    assert_eq!(scene.host.records_of("served").len(), 2);
}

/// Told to end in the middle of a dump: the core is whole first, and the crashes that come meanwhile are not its own.
#[test]
fn ends_when_its_crashes_are_done() {
    let scene = Scene::new(&[]);
    let mut large = scene.container.victim(&scene.victim, "random", 512);
    large.crash();
    let until = Instant::now() + Duration::from_secs(20);
    while fs::metadata(large.core()).map_or(0, |m| m.len()) == 0 {
        assert!(Instant::now() < until, "no dump");
        std::thread::yield_now();
    }
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| large.end());
        assert_eq!(scene.host.end_serving(), Some(true));
        ended.join().unwrap();
    });
    assert!(fs::metadata(large.core()).unwrap().len() > 512 << 20);
    assert!(!Path::new(RUN).join("serve").exists());
    scene.crash("nobody serves");
}

/// Many at once, beyond those who wait.
#[test]
fn storm() {
    let scene = Scene::new(&[]);
    let mut victims: Vec<_> = (0..100).map(|_| scene.container.victim(&scene.victim, "tiny", 0)).collect();
    victims.iter_mut().for_each(|v| v.crash());
    for victim in &mut victims {
        victim.end();
    }
    scene.host.settle();
    assert_eq!(victims.iter().filter(|v| v.core().exists()).count(), 100);
    assert_eq!(scene.host.records_of("served").iter().filter(|r| r["outcome"] == "written").count(), 100);
    drop(scene.directory);
}

/// A second one, one without rights, and a user at its socket.
#[test]
fn who_may() {
    let scene = Scene::new(&[]);
    let second = Command::new(BINARY).arg("serve").output().unwrap();
    assert!(!second.status.success() && String::from_utf8_lossy(&second.stderr).contains("another `oci-coredump serve` runs"), "{second:?}");
    let user = Command::new("setpriv").args(["--reuid", "65534", "--clear-groups", BINARY, "serve"]).output().unwrap();
    assert!(!user.status.success() && String::from_utf8_lossy(&user.stderr).contains("only root of the host"), "{user:?}");
    let connect = format!("import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect('{RUN}/serve')");
    for (args, may) in [(&["python3"][..], true), (&["setpriv", "--reuid", "65534", "--clear-groups", "python3"][..], false)] {
        let status = Command::new(args[0]).args(&args[1..]).args(["-c", &connect]).output().unwrap().status;
        assert_eq!(status.success(), may);
    }
    let doctor = Command::new(BINARY).arg("doctor").output().unwrap();
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("ok       serve"), "{doctor:?}");
    scene.crash("after those who only connected");
}
