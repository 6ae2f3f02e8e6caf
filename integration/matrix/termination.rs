//! The line that `kubectl describe pod` shows: written to the container's termination log when its
//! first process dumps core, and to nothing else.
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use support::bundle::Bundle;
use support::runtime::{Kind, Runtime};
use support::scene::{bundle, host};

support::per_runtime!(the_first_process, which_process_is_the_first);

const LOG: &str = "/dev/termination-log";
/// The first line of a log. The second, which comes when the process is gone, says where it died.
fn first(text: &str) -> &str {
    match text.split_once('\n') {
        Some((line, place)) => {
            assert!(place.starts_with("SIGSEGV in ") && place.contains("victim.c:"), "{text}");
            line
        }
        None => {
            assert!(!text.starts_with("core dumped"), "{text}");
            text
        }
    }
}

const LINE: &str = "core dumped: /dump/core.1 (SIGSEGV in victim)";

/// A container as the kubelet makes one: a file of the host's over the log, writable by everybody.
fn with_log(log: &Path, before: &str) -> Bundle {
    fs::write(log, before).unwrap();
    fs::set_permissions(log, fs::Permissions::from_mode(0o666)).unwrap();
    let mut bundle = bundle();
    bundle.annotation("oci-coredump/pattern", "/dump/core").mount(
        "bind",
        log.to_str().unwrap(),
        LOG,
        &["bind", "rw"],
    );
    bundle
}

fn the_first_process(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let scratch = TempDir::new().unwrap();
    let log = scratch.path().join("log");
    let number = Cell::new(0);
    // Another ID each time: a user may not replace another's core in
    // the store of one container.
    let run = |bundle: &Bundle| {
        number.set(number.get() + 1);
        // Not `run`: youki's does not notice the end of a program that dies at once.
        let container = runtime.start(bundle, &format!("told-{}-{}", kind.name(), number.get()));
        container.wait_stopped();
        container.remove();
        host.settle();
        first(&fs::read_to_string(&log).unwrap()).to_owned()
    };
    for user in [0, 1000] {
        let mut bundle = with_log(&log, "");
        assert_eq!(run(bundle.args(&["/bin/victim", "segv"]).user(user, user)), LINE);
    }
    // The program's own text stays, and a file that the crashed process may
    // not write to is not written.
    assert_eq!(
        run(with_log(&log, "out of coffee").args(&["/bin/victim", "segv"])),
        "out of coffee"
    );
    let mut closed = with_log(&log, "");
    fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(run(closed.args(&["/bin/victim", "segv"]).user(1000, 1000)), "");
    // No core: the line says why.
    let mut none = with_log(&log, "");
    assert_eq!(
        run(none.args(&["/bin/victim", "segv"]).annotation("oci-coredump/limit", "0")),
        "no core: RLIMIT_CORE is 0 bytes, less than one page (SIGSEGV in victim)"
    );
    // A child's core did not end the container, and is reported only if the
    // administrator wants that.
    let mut child = with_log(&log, "");
    child.args(&["/bin/victim", "wait", "segv"]);
    assert_eq!(run(&child), "");
    host.configure("termination_log = \"any\"\n");
    let line = run(&child);
    assert!(
        line.starts_with("core dumped: /dump/core.")
            && line.ends_with(" (SIGSEGV in victim)")
            && line != LINE,
        "{line}"
    );
    host.configure("termination_log = \"off\"\n");
    assert_eq!(run(with_log(&log, "").args(&["/bin/victim", "segv"])), "");
    host.configure("");
}

support::cases!(traps_at_the_log: 
    link("ln -s /bin/target /dev/termination-log"),
    fifo("mkfifo /dev/termination-log"),
    device("ln -s /dev/null /dev/termination-log"),
    directory("mkdir /dev/termination-log"));

/// The first process is the one that the runtime has started, and the program of an init; not one
/// that is PID 1 of a namespace of its own. A path that the kubelet was told is found by its mount.
fn which_process_is_the_first(kind: Kind) {
    if !support::require::programs(&["catatonit"]) {
        return;
    }
    let host = host();
    let catatonit = support::require::find("catatonit").unwrap();
    let runtime = Runtime::new(kind);
    let scratch = TempDir::new().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let log = scratch.path().join("log");
    let run = |bundle: &Bundle, id: &str, log: &Path| {
        let container = runtime.start(bundle, &format!("{id}-{}", kind.name()));
        container.wait_stopped();
        container.remove();
        host.settle();
        first(&fs::read_to_string(log).unwrap()).to_owned()
    };
    let is_told = |line: &str| {
        line.starts_with("core dumped: /dump/core.") && line.ends_with(" (SIGSEGV in victim)")
    };

    let mut shared = with_log(&log, "");
    shared.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|namespace| namespace["type"] != "pid");
    let line = run(shared.args(&["/bin/victim", "segv"]), "host-pid", &log);
    assert!(is_told(&line) && line != LINE, "{line}");

    let mut init = with_log(&log, "");
    init.put_dynamic(&catatonit, "/bin/catatonit");
    let line =
        run(init.args(&["/bin/catatonit", "--", "/bin/victim", "segv"]), "program-of-init", &log);
    assert!(is_told(&line), "{line}");

    // A child of that program's is not the container's end.
    let mut child = with_log(&log, "");
    child.put_dynamic(&catatonit, "/bin/catatonit");
    let line = run(
        child.args(&["/bin/catatonit", "--", "/bin/victim", "wait", "segv"]),
        "child-under-init",
        &log,
    );
    assert_eq!(line, "");

    let mut sandbox = with_log(&log, "");
    sandbox.shell("unshare -p -f /bin/victim segv; exit 0").capabilities(&["CAP_SYS_ADMIN"]);
    assert_eq!(run(&sandbox, "sandboxed", &log), "");

    let elsewhere = scratch.path().join("pods/u-1/containers/app");
    fs::create_dir_all(&elsewhere).unwrap();
    let elsewhere = elsewhere.join("0a1b2c3d");
    let mut moved = with_log(&log, "");
    fs::write(&elsewhere, "").unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o666)).unwrap();
    moved.mount("bind", elsewhere.to_str().unwrap(), "/run/last", &["bind", "rw"]);
    let line = run(moved.args(&["/bin/victim", "segv"]), "elsewhere", &elsewhere);
    assert_eq!(line, LINE);
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
}

/// What a container can put in its place: a link, a FIFO, a device. The dispatcher, which is
/// root, must not follow them.
fn traps_at_the_log(trap: &str) {
    let host = host();
    let runtime = Runtime::new(Kind::Runc);
    let target = "/bin/target";
    let mut bundle = bundle();
    fs::write(bundle.rootfs().host_path(target), "").unwrap();
    bundle
        .annotation("oci-coredump/pattern", "/dump/core")
        .shell(&format!("{trap}; exec /bin/victim segv"));
    runtime.run(&bundle, "trap");
    host.settle();
    assert_eq!(fs::read_to_string(bundle.rootfs().host_path(target)).unwrap(), "", "{trap}");
    assert_eq!(host.records_of("trap").len(), 1, "{trap}");
    fs::remove_dir_all(Path::new(support::host::STORE).join("records")).unwrap();
}
