//! Crashes outside of registered containers: they go to the earlier handler, which
//! cannot tell the difference.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use support::bundle::Bundle;
use support::core_file::{self, Crashed, owner_and_mode};
use support::crasher::{compile, parent};
use support::host::{BINARY, Host, RUN, STORE};
use support::require;
use support::runtime::{Kind, Runtime};
use support::scene::{
    ECI, ECI_PATTERN, bundle, crash, ended, host, only_record, product, uninstall, victim,
};
use support::server::Way;
use support::systemd::Systemd;
use support::wait::wait_for;

/// How long somebody else's handler may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The test's own handler (`handler.c`) in a directory of its own.
struct Handler {
    directory: TempDir,
    program: PathBuf,
}

/// What the handler saw of one crash.
#[derive(Debug)]
struct Seen {
    arguments: Vec<String>,
    /// The `Pid:` line of /proc/self/fdinfo/3, where descriptor 3 was a pidfd.
    pidfd_of: Option<i32>,
    ids: String,
    crashed: Crashed,
}

impl Handler {
    fn new() -> Self {
        // core_pattern has room for 127 bytes: both paths are short.
        let directory = TempDir::with_prefix("h").unwrap();
        let program = directory.path().join("handler");
        fs::copy(compile("handler", include_str!("handler.c"), &[]), &program).unwrap();
        Self { directory, program }
    }

    /// `arguments` as they stand in core_pattern, after the directory.
    fn pattern(&self, arguments: &str) -> String {
        format!("|{} {} {arguments}", self.program.display(), self.directory.path().display())
    }

    /// What the handler saw of the one crash since it was last asked. The kernel did not wait for
    /// the handler, which renames the core last.
    fn seen(&self) -> Seen {
        let file = |name: &str| self.directory.path().join(name);
        wait_for("the call of the earlier handler", PATIENCE, || file("core").exists());
        let text = |name: &str| fs::read_to_string(file(name)).unwrap();
        let seen = Seen {
            arguments: text("argv").split_terminator('\0').map(str::to_owned).collect(),
            pidfd_of: text("fd3")
                .lines()
                .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok()),
            ids: text("ids"),
            crashed: core_file::read(&file("core")),
        };
        fs::remove_file(file("core")).unwrap();
        seen
    }

    fn was_called(&self) -> bool {
        self.directory.path().join("core").exists()
    }
}

/// A crash on the host: its PID and wait status.
fn crash_on_host(directory: &Path) -> (i32, i32) {
    let output = Command::new(parent())
        .args(["--core", "unlimited", "--"])
        .arg(victim())
        .arg("segv")
        .current_dir(directory)
        .output()
        .unwrap();
    ended(&String::from_utf8(output.stdout).unwrap())
}

/// The kernel's handler is the product now: what the tests see of somebody
/// else's handler was forwarded.
fn assert_taken_over(host: &Host, way: Way) {
    let pattern = host.sysctl("kernel/core_pattern");
    assert!(way.is_taken(host), "the product did not take over: {pattern}");
}

fn annotated() -> Bundle {
    let mut bundle = bundle();
    bundle.annotation(ECI, ECI_PATTERN);
    bundle
}

support::cases!(a_pipe_handler: by_pipe(Way::Pipe), by_socket(Way::Socket));
support::cases!(a_file_pattern: by_pipe(Way::Pipe), by_socket(Way::Socket));
support::cases!(no_handler: by_pipe(Way::Pipe), by_socket(Way::Socket));
support::cases!(systemd_coredump: by_pipe(Way::Pipe), by_socket(Way::Socket));

/// The same crash before and after the product takes over: same arguments but for PIDs and the
/// time, same standard input, same pidfd on descriptor 3, same user.
fn a_pipe_handler(way: Way) {
    if !way.is_possible() {
        return;
    }
    let host = host();
    let _server = way.serve(&host);
    let cwd = TempDir::new().unwrap();
    let handler = Handler::new();
    let theirs = handler.pattern("%P %p %s %u %g %d %e %c %F %% literal");
    host.set("kernel/core_pattern", &theirs);
    let (pid, status) = crash_on_host(cwd.path());
    let before = handler.seen();
    // What the kernel does by itself is what the test believes that it does.
    assert_eq!(before.crashed, Crashed { signal: 11, tid: pid });
    assert_eq!(before.pidfd_of, Some(pid), "{before:?}");

    let runtime = Runtime::new(Kind::Runc);
    let container_bundle = annotated();
    let container = runtime.start(&container_bundle, "meanwhile");
    assert_taken_over(&host, way);
    let (second_pid, second_status) = crash_on_host(cwd.path());
    let after = handler.seen();
    assert_eq!(second_status, status);
    assert_eq!(after.crashed, Crashed { signal: 11, tid: second_pid });
    assert_eq!(after.pidfd_of, Some(second_pid), "{after:?}");
    assert_eq!(after.ids, before.ids);
    let without_pids = |seen: &Seen, pid: i32| -> Vec<String> {
        seen.arguments
            .iter()
            .map(|word| if *word == pid.to_string() { "PID".into() } else { word.clone() })
            .collect()
    };
    assert_eq!(without_pids(&after, second_pid), without_pids(&before, pid));

    // A container's crash does not reach it.
    crash(|script| container.sh(script), "segv");
    assert!(!handler.was_called());

    // A container that requested nothing is treated like the host.
    let stranger_bundle = Bundle::new();
    support::scene::fill(stranger_bundle.rootfs());
    let stranger = runtime.start(&stranger_bundle, "stranger");
    let (inside, _) =
        crash(|script| stranger.sh(&format!("ulimit -c unlimited; {script}")), "abrt");
    let theirs_too = handler.seen();
    assert_eq!(theirs_too.crashed, Crashed { signal: 6, tid: inside });
    assert_eq!(theirs_too.arguments[3], inside.to_string(), "%p is the PID inside: {theirs_too:?}");
    assert_ne!(
        theirs_too.arguments[2],
        inside.to_string(),
        "%P is the PID outside: {theirs_too:?}"
    );
    assert_eq!(
        theirs_too.pidfd_of.map(|pid| pid.to_string()).as_ref(),
        Some(&theirs_too.arguments[2])
    );
}

/// A file pattern: the core is where the kernel would have put it, with the
/// kernel's name, owner and mode.
fn a_file_pattern(way: Way) {
    if !way.is_possible() {
        return;
    }
    let host = host();
    let runtime = Runtime::new(Kind::Runc);
    let cores = TempDir::new().unwrap();
    fs::set_permissions(cores.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    host.set("kernel/core_uses_pid", "1");
    for pattern in [format!("{}/host-%e-%s", cores.path().display()), "relative-%e-%s".to_owned()] {
        host.set("kernel/core_pattern", &pattern);
        // `uninstall` removes the socket of the one before.
        let _server = way.serve(&host);
        let bundle = annotated();
        let container = runtime.start(&bundle, "meanwhile");
        assert_taken_over(&host, way);
        let (pid, status) = crash_on_host(cores.path());
        assert_eq!(status, 11 | 0x80, "{pattern}");
        let name = Path::new(&pattern)
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .replace("%e-%s", "victim-11");
        let core = cores.path().join(format!("{name}.{pid}"));
        assert_eq!(core_file::read(&core), Crashed { signal: 11, tid: pid }, "{pattern}");
        assert_eq!(owner_and_mode(&core), (0, 0, 0o600), "{pattern}");
        container.remove();
        uninstall();
        assert_eq!(host.sysctl("kernel/core_pattern"), pattern);
    }
    assert_eq!(fs::read_dir(cores.path()).unwrap().count(), 2);
}

/// A file pattern keeps to the soft limit of the crasher, which the kernel
/// does not enforce for a pipe.
#[test]
fn a_file_pattern_with_a_limit() {
    let host = host();
    let cores = TempDir::new().unwrap();
    host.set("kernel/core_pattern", &format!("{}/core", cores.path().display()));
    let runtime = Runtime::new(Kind::Runc);
    let bundle = annotated();
    let _container = runtime.start(&bundle, "meanwhile");
    assert_taken_over(&host, Way::Pipe);
    let limited = Command::new(parent())
        .args(["--core", "0", "--"])
        .arg(victim())
        .arg("segv")
        .output()
        .unwrap();
    let (_, _) = ended(&String::from_utf8(limited.stdout).unwrap());
    assert_eq!(
        fs::read_dir(cores.path()).unwrap().count(),
        0,
        "a core although the soft limit is 0"
    );
}

/// An empty pattern: cores of the host are not wanted, and none is written.
fn no_handler(way: Way) {
    if !way.is_possible() {
        return;
    }
    let host = host();
    let _server = way.serve(&host);
    let cwd = TempDir::new().unwrap();
    host.set("kernel/core_pattern", "");
    host.set("kernel/core_uses_pid", "0");
    let runtime = Runtime::new(Kind::Runc);
    let bundle = annotated();
    let container = runtime.start(&bundle, "meanwhile");
    let (pid, _) = crash(|script| container.sh(script), "segv");
    assert_eq!(container.sh("ls /pod/data/dump"), format!("core-eci.{pid}\n"));
    crash_on_host(cwd.path());
    assert_eq!(fs::read_dir(cwd.path()).unwrap().count(), 0);
    container.remove();
    uninstall();
    assert_eq!(host.sysctl("kernel/core_pattern"), "");
}

/// Something (systemd-sysctl does it) writes core_pattern later: the next container's start repairs
/// that, and the newcomer is then the handler of everybody else.
#[test]
fn an_overwritten_pattern() {
    let host = host();
    let cwd = TempDir::new().unwrap();
    let (old, new) = (Handler::new(), Handler::new());
    host.set("kernel/core_pattern", &old.pattern("%P"));
    let runtime = Runtime::new(Kind::Runc);
    let (first_bundle, second_bundle) = (annotated(), annotated());
    let first = runtime.start(&first_bundle, "first");
    let ours = host.sysctl("kernel/core_pattern");
    host.set("kernel/core_pattern", &new.pattern("%P %s"));
    let _second = runtime.start(&second_bundle, "second");
    assert_eq!(host.sysctl("kernel/core_pattern"), ours, "not repaired");

    let (pid, _) = crash(|script| first.sh(script), "segv");
    assert_eq!(first.sh("ls /pod/data/dump"), format!("core-eci.{pid}\n"));
    let (pid, _) = crash_on_host(cwd.path());
    let seen = new.seen();
    assert_eq!(seen.arguments[2..], [pid.to_string(), "11".into()], "{seen:?}");
    assert!(!old.was_called());
    uninstall();
    assert_eq!(host.sysctl("kernel/core_pattern"), new.pattern("%P %s"));
}

/// `uninstall` restores every sysctl, whatever its value was.
#[test]
fn uninstall_gives_every_sysctl_back() {
    let host = host();
    let sysctls = [
        ("kernel/core_pattern", "/var/crash/%e.%p"),
        ("kernel/core_uses_pid", "1"),
        ("kernel/core_pipe_limit", "7"),
    ];
    for (name, value) in sysctls {
        host.set(name, value);
    }
    let runtime = Runtime::new(Kind::Runc);
    let bundle = annotated();
    let container = runtime.start(&bundle, "short");
    assert_ne!(host.sysctl("kernel/core_pattern"), sysctls[0].1);
    assert_ne!(host.sysctl("kernel/core_pipe_limit"), "0", "the kernel must wait for the helper");
    container.remove();
    uninstall();
    for (name, value) in sysctls {
        assert_eq!(host.sysctl(name), value, "{name}");
    }
    // A second time changes nothing.
    uninstall();
    assert_eq!(host.sysctl("kernel/core_pattern"), sysctls[0].1);
}

/// A file system of its own for cores, and one over /run/oci-coredump: their mount points stay, and
/// that is no failure.
#[test]
fn uninstall_where_the_store_is_a_mount() {
    let host = host();
    let before = host.sysctl("kernel/core_pattern");
    let _mounts = [STORE, RUN].map(Mounted::tmpfs);
    let runtime = Runtime::new(Kind::Runc);
    let bundle = annotated();
    let container = runtime.start(&bundle, "mounted");
    crash(|script| container.sh(script), "segv");
    only_record(&host, "mounted");
    container.remove();
    uninstall();
    assert_eq!(host.sysctl("kernel/core_pattern"), before);
    assert!(Path::new(STORE).join("records").exists(), "the cores stay");
    let purged = product(&["uninstall", "--purge"]).output().unwrap();
    assert!(purged.status.success(), "{purged:?}");
    for directory in [STORE, RUN] {
        let left: Vec<_> = fs::read_dir(directory).unwrap().map(Result::unwrap).collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
}

/// A file system in memory, for as long as this lives.
struct Mounted(&'static str);

impl Mounted {
    fn tmpfs(directory: &'static str) -> Self {
        fs::create_dir_all(directory).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "mode=700", "none", directory])
            .status()
            .unwrap();
        assert!(done.success());
        Mounted(directory)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", self.0]).status();
        let _ = fs::remove_dir(self.0);
    }
}

/// systemd's handler, as Debian's systemd-coredump has it in core_pattern, with the receiving
/// side of its socket as systemd would start it. It keeps the core of a host process, and
/// never hears of a container's.
fn systemd_coredump(way: Way) {
    if !way.is_possible() {
        return;
    }
    let host = host();
    let _server = way.serve(&host);
    let Some(systemd) = Systemd::start() else {
        require::skip("systemd-coredump is not installed");
        return;
    };
    host.set("kernel/core_pattern", &systemd.pattern);
    let runtime = Runtime::new(Kind::Runc);
    let bundle = annotated();
    let container = runtime.start(&bundle, "meanwhile");
    crash(|script| container.sh(script), "segv");
    let of_container = only_record(&host, "meanwhile")["host_pid"].as_i64().unwrap();
    let cwd = TempDir::new().unwrap();
    let (pid, status) = crash_on_host(cwd.path());
    assert_eq!(status, 11 | 0x80);
    let kept = wait_for(&format!("systemd-coredump's core of {pid}"), PATIENCE, || {
        Some(Systemd::cores(pid.into())).filter(|kept| !kept.is_empty())
    });
    for core in &kept {
        fs::remove_file(core).unwrap();
    }
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(
        Systemd::cores(of_container),
        Vec::<PathBuf>::new(),
        "systemd has the container's core"
    );
}

support::cases!(
    a_handler_that_hands_back_to_us: in_its_place("exec"),
    as_its_child(""),
    behind_its_back("setsid")
);

/// Another handler has saved our pattern as what was there before it, and hands on to that; ours
/// hands the host's crashes on to it. One round, whatever way it goes, and the crashed process is
/// let go.
fn a_handler_that_hands_back_to_us(way: &str) {
    const BRAKE: usize = 20;
    let host = host();
    let runtime = Runtime::new(Kind::Runc);
    let directory = TempDir::with_prefix("h").unwrap();
    let (other, log) = (directory.path().join("other"), directory.path().join("log"));
    let (end, beside) = match way {
        "setsid" => ("<&0 &", "sleep 1"),
        _ => ("", ""),
    };
    let script = format!(
        "#!/bin/sh\necho x >>{log}\n[ $(wc -l <{log}) -gt {BRAKE} ] && exit\n\
         PATH=/bin:/usr/bin {way} {BINARY} handle \"$@\" {end}\n{beside}\n",
        log = log.display()
    );
    fs::write(&other, script).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();

    let first_bundle = annotated();
    let first = runtime.start(&first_bundle, "first");
    assert_taken_over(&host, Way::Pipe);
    let ours = host.sysctl("kernel/core_pattern");
    let (_, arguments) = ours.split_once(" handle ").unwrap();
    host.set("kernel/core_pattern", &format!("|{} {arguments}", other.display()));
    // The next hook takes over again, and keeps that one as the earlier handler.
    let second_bundle = annotated();
    let second = runtime.start(&second_bundle, "second");
    assert_taken_over(&host, Way::Pipe);

    let rounds = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    for crash in 1..=2 {
        let (_, status) = crash_on_host(directory.path());
        assert_eq!(status & 0x7f, 11);
        assert_eq!(rounds(), crash, "rounds after {crash} crashes");
    }
    // Containers' crashes are ours alone.
    for (container, id) in [(&first, "first"), (&second, "second")] {
        crash(|script| container.sh(script), "segv");
        assert_eq!(only_record(&host, id)["outcome"], "written");
    }
    assert_eq!(rounds(), 2);
}
