//! What a container could do to its host and its neighbours: use up their disk, inodes, start times
//! and pattern. Also a process's own limit of 0, which nobody else may override.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use support::bundle::Bundle;
use support::crasher::crasher;
use support::fixture::{LONG, bundle, crash, in_the_store, names, store_of};
use support::fuse::{Fuse, op};
use support::host::{BINARY, STORE};
use support::runtime::{Container, Kind, Runtime};
use support::scene::{self, ECI, product};
use support::wait::wait_for;

/// With a read-only root the dump directory was all that a container could write to, and it
/// was the host's disk. Now it is read-only for the container, and the cores of root and of a
/// user are written as before.
#[test]
fn row_30_the_dump_directory_is_no_disk() {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let mut bundle = in_the_store();
    bundle.readonly_root();
    let container = runtime.start(&bundle, "reader");
    for attempt in [
        "dd if=/dev/zero of=/pod/data/dump/free bs=1M count=64",
        "mkdir /pod/data/dump/free",
        "ln -s /etc /pod/data/dump/free",
        "mount -o remount,rw /pod/data/dump && touch /pod/data/dump/free",
    ] {
        assert!(!container.exec(&["/bin/sh", "-c", attempt]).status.success(), "{attempt}");
    }
    assert_eq!(names(&store_of("reader")), [] as [&str; 0]);

    let mut wanted = ["0:0", "1000:1000"].map(|user| {
        let (pid, _) = crash(&container, user, "", &["/bin/crasher", "null"]);
        format!("core-eci.{pid}")
    });
    wanted.sort();
    assert_eq!(names(&store_of("reader")), wanted);
    for (name, owner) in wanted.iter().zip([0, 1000]) {
        let meta = fs::metadata(store_of("reader").join(name)).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (owner, 0o600), "{name}");
        let inside = container.exec_with(
            &["--user", &owner.to_string()],
            &["/bin/sh", "-c", &format!("cat /pod/data/dump/{name}")],
        );
        assert_eq!(inside.stdout.len() as u64, meta.len(), "the container cannot read {name}");
        let gone = container.exec(&["/bin/sh", "-c", &format!("rm -f /pod/data/dump/{name}")]);
        assert!(!gone.status.success(), "the container removed {name}");
    }
    host.settle();
    let written = host.records_of("reader").into_iter().filter(|r| r["outcome"] == "written");
    assert_eq!(written.count(), 2);
}

/// The administrator can make it writable.
#[test]
fn row_30_unless_the_administrator_wants_it() {
    let host = scene::host();
    host.configure("store_view = \"rw\"\n");
    let runtime = Runtime::new(Kind::Runc);
    let bundle = in_the_store();
    let container = runtime.start(&bundle, "writer");
    container.sh("echo mine >/pod/data/dump/mine");
    assert_eq!(names(&store_of("writer")), ["mine"]);
}

/// Every refused crash had a record of its own, until the host ran out of inodes.
#[test]
fn row_31_refused_crashes_are_one_record() {
    const CRASHES: usize = 60;
    let host = scene::host();
    host.configure("[limits]\nrate = \"1/day\"\n");
    let runtime = Runtime::new(Kind::Runc);
    let (bundle, volume) = bundle();
    let container = runtime.start(&bundle, "loops");
    let script = format!(
        "ulimit -c unlimited; for i in $(seq {CRASHES}); do /bin/crasher null; done 2>/dev/null; \
         true"
    );
    container.sh(&script);
    host.settle();
    assert_eq!(names(volume.path()).len(), 1);
    let records = host.records_of("loops");
    // Five records in each minute; the loop may run into a second minute, or on a
    // busy machine into a third.
    assert!((3..=17).contains(&records.len()), "{} records", records.len());
    let counted = records.iter().map(|r| r["count"].as_u64().unwrap_or(1)).sum::<u64>();
    assert_eq!(counted as usize, CRASHES, "{records:#?}");
    let sum = records.iter().find(|r| r["count"].is_u64()).expect("none that counts");
    assert_eq!((&sum["outcome"], &sum["limit"]), (&"none".into(), &"rate = 1/day".into()));
    assert!(sum["last"].as_str().unwrap() >= sum["time"].as_str().unwrap(), "{sum:#}");
    assert_eq!(
        fs::read_dir(Path::new(STORE).join("records")).unwrap().count(),
        records.len(),
        "one file for each record"
    );
    let listed = product(&["list"]).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(text.contains(&format!("×{}", sum["count"])), "{text}");
}

/// A `createRuntime` hook before ours, which reports that it runs and then waits.
struct Gate(TempDir);

impl Gate {
    fn before_ours(bundle: &mut Bundle) -> Self {
        let directory = TempDir::with_prefix("gate").unwrap();
        let script = directory.path().join("gate");
        fs::write(
            &script,
            "#!/bin/sh\ncd \"${0%/*}\"; : >arrived; while [ ! -e pass ]; do sleep 0.02; done\n",
        )
        .unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        bundle.hook("createRuntime", &script, &["gate"]);
        let hooks = bundle.config["hooks"]["createRuntime"].as_array_mut().unwrap();
        hooks.rotate_right(1);
        Self(directory)
    }

    fn arrived(&self) {
        let path = self.0.path().join("arrived");
        wait_for("the gate", LONG, || path.exists());
    }

    fn pass(&self) {
        fs::write(self.0.path().join("pass"), "").unwrap();
    }
}

/// The volume of a container that starts does not answer one of the hook's calls: the container
/// starts without its cores, and others start, dump and go as if nothing was.
fn hung_volume(operation: u32) -> bool {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let (other_bundle, other_volume) = bundle();
    let going = runtime.start(&other_bundle, "going");
    let target = Fuse::mount();
    let (mut hung, _volume) = bundle();
    hung.annotation(ECI, "/fuse/deep/core").bind(target.path(), "/fuse");
    let gate = Gate::before_ours(&mut hung);
    let held = std::thread::scope(|scope| {
        let starting = scope.spawn(|| runtime.try_create(&hung, "hung"));
        gate.arrived();
        target.hold(operation);
        gate.pass();
        let held = target.wait_held(Duration::from_secs(5));
        let (beside_bundle, beside_volume) = bundle();
        let beside = runtime.start(&beside_bundle, "beside");
        let (pid, _) = crash(&beside, "0:0", "", &["/bin/crasher", "null"]);
        assert_eq!(names(beside_volume.path()), [format!("core.{pid}")], "operation {operation}");
        let (pid, _) = crash(&going, "0:0", "", &["/bin/crasher", "null"]);
        assert_eq!(names(other_volume.path()), [format!("core.{pid}")], "operation {operation}");
        beside.remove();
        going.remove();
        assert!(product(&["install"]).output().unwrap().status.success());
        let started = starting.join().unwrap();
        // The volume still does not answer; that the container is deleted needs nobody's answer.
        let started = started.map(Container::remove);
        target.go_on();
        assert!(started.is_ok(), "operation {operation}: {started:?}");
        held
    });
    host.settle();
    held
}

#[test]
fn row_33_a_volume_that_does_not_answer_delays_nobody() {
    let operations = [op::LOOKUP, op::GETATTR, op::MKDIR, op::STATFS, op::OPENDIR, op::READDIR];
    let held: Vec<_> = operations.into_iter().filter(|operation| hung_volume(*operation)).collect();
    // What the kernel had in its cache, or did not need, was not asked.
    assert!(held.contains(&op::LOOKUP) && held.contains(&op::MKDIR), "held: {held:?}");
    println!("held: {held:?}");
}

/// A directory in place of a core used to stop every vacuum.
#[test]
fn row_34_a_directory_in_place_of_a_core() {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let bundle = in_the_store();
    let mut cores = Vec::new();
    for id in ["one", "odd", "two"] {
        let container = runtime.start(&bundle, id);
        let (pid, _) = crash(&container, "0:0", "", &["/bin/crasher", "null"]);
        container.remove();
        cores.push(store_of(id).join(format!("core-eci.{pid}")));
    }
    host.settle();
    fs::remove_file(&cores[1]).unwrap();
    fs::create_dir(&cores[1]).unwrap();
    fs::write(cores[1].join("in it"), "").unwrap();
    let vacuum = product(&["vacuum", "--keep", "0"]).output().unwrap();
    let said = String::from_utf8_lossy(&vacuum.stderr).into_owned()
        + &String::from_utf8_lossy(&vacuum.stdout);
    assert!(vacuum.status.success(), "{said}");
    assert!(!cores[0].exists() && !cores[2].exists(), "{said}");
    assert!(cores[1].join("in it").exists(), "what is not a core was removed: {said}");
}

support::cases!(
    row_34_damaged_state: empty(b""),
    cut_off(b"{"),
    garbage(b"\xff\xff\xff\xff"),
    a_number(b"{\"core_pattern\":7}")
);

/// A power failure left the saved sysctls empty, and nothing worked any more.
fn row_34_damaged_state(damage: &[u8]) {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let before = host.sysctl("kernel/core_pattern");
    let bundle = in_the_store();
    drop(runtime.start(&bundle, "first"));
    for name in ["sysctl.json", "sysctl.json.copy"] {
        fs::write(Path::new(STORE).join(name), damage).unwrap();
    }
    let container = runtime.start(&bundle, "second");
    let (pid, _) = crash(&container, "0:0", "", &["/bin/crasher", "null"]);
    assert!(store_of("second").join(format!("core-eci.{pid}")).exists(), "{damage:?}");
    // A crash of the host's own.
    let scratch = TempDir::new().unwrap();
    let script = format!("ulimit -c unlimited; {} null; true", crasher().display());
    let host_crash = Command::new("sh").args(["-c", &script]).current_dir(&scratch).output();
    assert!(host_crash.unwrap().status.success());
    host.settle();
    if !before.starts_with(['|', '/', '@']) {
        assert_eq!(names(scratch.path()).len(), 1, "the host's own core is lost: {damage:?}");
    }
    for verb in ["install", "uninstall"] {
        let output = product(&[verb]).output().unwrap();
        assert!(output.status.success(), "{verb}, {damage:?}: {output:?}");
    }
    assert_eq!(host.sysctl("kernel/core_pattern"), before, "{damage:?}");
    container.remove();
}

/// From a privileged container the kernel would look for the program on the host, and not find it.
#[test]
fn row_35_the_pattern_is_taken_over_from_the_host_only() {
    let host = scene::host();
    let before = host.sysctl("kernel/core_pattern");
    let another = TempDir::new().unwrap();
    let copy = another.path().join("oci-coredump");
    fs::copy(BINARY, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let bind = format!("mount --bind {} {BINARY} && {BINARY} install", copy.display());
    for (what, options, script) in [
        ("a PID namespace", &["--pid", "--fork", "--mount-proc"][..], format!("{BINARY} install")),
        ("another program of the same name", &["--mount"], bind),
    ] {
        let output =
            Command::new("unshare").args(options).args(["sh", "-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{what}: {said}");
        assert_eq!(host.sysctl("kernel/core_pattern"), before, "{what}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{what}: {said}");
        let script = script.replace(" install", " doctor");
        let output =
            Command::new("unshare").args(options).args(["sh", "-c", &script]).output().unwrap();
        assert!(!output.status.success(), "{what}: doctor finds no fault: {output:?}");
    }
    // As a DaemonSet does it: a mount namespace in which the same program is seen.
    let output = Command::new("unshare").args(["--mount", BINARY, "install"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(host.sysctl("kernel/core_pattern").starts_with(&format!("|{BINARY} ")));
}

/// Killed at the end.
struct Watch(Child);

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// systemd-sysctl, or any other program, sets the pattern while containers run.
#[test]
fn row_36_an_overwritten_pattern_comes_back() {
    const FOREIGN: &str = "|/nowhere/systemd-coredump %P";
    let drop_in = Path::new("/etc/sysctl.d/61-oci-coredump.conf");
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let (bundle, volume) = bundle();
    let container = runtime.start(&bundle, "running");
    let ours = host.sysctl("kernel/core_pattern");
    assert!(product(&["install"]).output().unwrap().status.success());
    // For the next boot, and for every run of systemd-sysctl.
    if drop_in.parent().unwrap().is_dir() {
        let text = fs::read_to_string(drop_in).unwrap();
        assert!(text.contains(&format!("kernel.core_pattern={ours}")), "{text}");
    }

    let is_back = || host.sysctl("kernel/core_pattern") == ours;
    let watch = Watch(product(&["watch"]).stderr(Stdio::null()).spawn().unwrap());
    host.set("kernel/core_pattern", FOREIGN);
    wait_for("the pattern, by watch", LONG, is_back);
    let (pid, _) = crash(&container, "0:0", "", &["/bin/crasher", "null"]);
    assert_eq!(names(volume.path()), [format!("core.{pid}")]);
    drop(watch);

    // Without the service: the next hook of any container repairs it, at any stage.
    let (short_bundle, _short_volume) = self::bundle();
    let short = runtime.start(&short_bundle, "short");
    host.set("kernel/core_pattern", FOREIGN);
    short.remove();
    wait_for("the pattern, by poststop", LONG, is_back);

    // The pattern of the other program is the host's own now.
    scene::uninstall();
    assert_eq!(host.sysctl("kernel/core_pattern"), FOREIGN);
    assert!(!drop_in.exists(), "uninstall left its drop-in");
    host.restore_sysctls();
}

/// A command of a test with a soft RLIMIT_CORE of 0, as many engines have.
fn without_core(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -Sc 0; exec \"$@\"", "sh"]).arg(command.get_program());
    shell.args(command.get_args()).stdin(Stdio::null());
    shell
}

/// gpg sets its soft limit to 0 to protect its secrets. A limit of 0 that an engine's exec
/// sets has no such meaning.
#[test]
fn row_37_a_process_that_wants_no_core() {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let (bundle, volume) = bundle();
    let container = runtime.start(&bundle, "secret");
    let exec = |args: &[&str]| {
        let output = without_core(&container.exec_command(&[], args)).output().unwrap();
        host.settle();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // The engine's 0, for the program itself and for one below a shell.
    exec(&["/bin/crasher", "null"]);
    assert_eq!(names(volume.path()).len(), 1);
    exec(&["/bin/sh", "-c", "/bin/crasher null; true"]);
    assert_eq!(names(volume.path()).len(), 2);

    // A limit of 0 of its own, below a shell that has another limit.
    let script = "ulimit -Sc unlimited; (ulimit -Sc 0; exec /bin/crasher null); echo status $?";
    assert_eq!(exec(&["/bin/sh", "-c", script]).trim(), "status 139");
    assert_eq!(names(volume.path()).len(), 2, "what wanted no core has one");
}
