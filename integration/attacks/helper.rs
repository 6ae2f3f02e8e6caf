//! The helper: who may start it, send to it, or replace it.
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use support::bare;
use support::fixture::{as_nobody, bundle, crash, names, tree};
use support::fuse::{Answer, Fuse};
use support::host::{BINARY, RUN, STORE};
use support::processes::helpers;
use support::runtime::{Kind, Runtime};
use support::scene::{self, product};

/// Inodes of the sockets that a process has open.
fn sockets(pid: i32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            Some(
                fs::read_link(entry.ok()?.path())
                    .ok()?
                    .to_str()?
                    .strip_prefix("socket:")?
                    .to_owned(),
            )
        })
        .collect()
}

/// The project listens on no socket, not even during a dump. What is left is to run the verbs by
/// hand: as an ordinary user, and, by root's mistake, for a process that has not crashed.
#[test]
fn row_11_impostor_of_the_kernel() {
    let host = scene::host();
    let target = Fuse::mount();
    let container = bare::Container::new("talked-about", target.path(), &[]);
    target.on_write(0, Answer::Hold);
    let mut victim = container.victim(&bare::victim(), "tiny", 0);
    victim.crash();
    assert!(target.wait_held(Duration::from_secs(10)));
    let open: Vec<_> = helpers().into_iter().flat_map(sockets).collect();
    let listening = fs::read_to_string("/proc/net/unix").unwrap();
    target.go_on();
    victim.end();
    assert!(open.is_empty(), "a helper has a socket: {open:?} of {listening}");
    assert!(!listening.contains("oci-coredump"), "{listening}");

    // A healthy process of the container that is claimed to have crashed.
    let mut healthy = container.victim(&bare::victim(), "tiny", 0);
    let pid = healthy.pid().to_string();
    let forged = |pidfd: &'static str| {
        let words = [
            "handle",
            &pid,
            &pid,
            &pid,
            &pid,
            "0",
            "0",
            "1",
            "11",
            "1700000000",
            "18446744073709551615",
            "0",
            pidfd,
            "h",
            "victim",
            "victim",
            "!victim",
        ];
        words.map(str::to_owned)
    };
    host.settle();
    // Without the notes on what went to the earlier handler and on what was logged.
    let state = || {
        let mut run = tree(Path::new(RUN));
        run.retain(|path, _| {
            let path = path.to_string_lossy();
            !path.contains("/limits/.") && !path.contains("/said-")
        });
        (run, tree(Path::new(STORE)), target.names(), host.sysctl("kernel/core_pattern"))
    };
    let before = state();
    let unchanged = |what: &str| {
        // Not assert_eq: the trees hold whole programs.
        assert!(state() == before, "{what}: something has changed");
    };
    let elsewhere = TempDir::new().unwrap();
    fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let run = |command: &mut Command| {
        let mut child = command
            .current_dir(elsewhere.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Not everybody reads that far.
        let _ = child.stdin.take().unwrap().write_all(b"\x7fELF forged");
        child.wait().unwrap();
    };
    let words = forged("");
    run(&mut as_nobody(BINARY, &words.each_ref().map(String::as_str)));
    unchanged("handle, by a user");
    run(product(&words.each_ref().map(String::as_str)).env("PATH", "/nowhere"));
    unchanged("handle, by root, of a process that has not crashed");
    let state = serde_json::json!({
        "ociVersion": "1.0.2", "id": "forged", "status": "creating", "pid": container.init(),
        "bundle": elsewhere.path(),
    });
    let config = serde_json::json!({
        "ociVersion": "1.0.2", "root": { "path": "/" },
        "annotations": { "oci-coredump/pattern": "/tmp/core" },
    });
    fs::write(elsewhere.path().join("config.json"), config.to_string()).unwrap();
    let mut hook = as_nobody(BINARY, &["hook", "createRuntime"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    hook.stdin.take().unwrap().write_all(state.to_string().as_bytes()).unwrap();
    hook.wait().unwrap();
    unchanged("hook, by a user");
    for verb in [&["install"][..], &["uninstall", "--purge"], &["vacuum", "--keep", "0"]] {
        as_nobody(BINARY, verb).output().unwrap();
        unchanged(&format!("{verb:?}, by a user"));
    }
    assert_eq!(names(elsewhere.path()), ["config.json"]);
    assert_eq!(fs::metadata(BINARY).unwrap().permissions().mode() & 0o6000, 0, "set-user-ID");
    healthy.crash();
    healthy.end();
    assert!(target.names().contains(&format!("core.{pid}")), "the real crash counts all the same");
}

/// A helper that another user could replace is not given to the kernel. A container
/// can neither change the pattern nor reach the program in it. A change by other means
/// is reported and repaired.
#[test]
fn row_17_tampering_with_the_pattern_or_the_helper() {
    let host = scene::host();
    let before = host.sysctl("kernel/core_pattern");
    let directory = Path::new(BINARY).parent().unwrap();
    let writable = |path: &Path, mode: u32| {
        let old = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let refused = !product(&["install"]).output().unwrap().status.success();
        fs::set_permissions(path, old).unwrap();
        assert!(refused, "{path:?} with mode {mode:o} was accepted");
        assert_eq!(host.sysctl("kernel/core_pattern"), before);
    };
    writable(directory, 0o777);
    writable(Path::new(BINARY), 0o775);
    chown(BINARY, Some(1000), None).unwrap();
    assert!(
        !product(&["install"]).output().unwrap().status.success(),
        "a helper of user 1000 was accepted"
    );
    assert_eq!(host.sysctl("kernel/core_pattern"), before);
    chown(BINARY, Some(0), None).unwrap();

    let runtime = Runtime::new(Kind::Runc);
    let (bundle, volume) = bundle();
    let container = runtime.start(&bundle, "tampers");
    let ours = host.sysctl("kernel/core_pattern");
    for attempt in [
        "echo '|/evil' >/proc/sys/kernel/core_pattern",
        "umount /proc/sys/kernel/core_pattern && echo '|/evil' >/proc/sys/kernel/core_pattern",
        "mkdir -p /tmp/p && mount -t proc proc /tmp/p && echo '|/evil' \
         >/tmp/p/sys/kernel/core_pattern",
    ] {
        assert!(!container.exec(&["/bin/sh", "-c", attempt]).status.success(), "{attempt}");
        assert_eq!(host.sysctl("kernel/core_pattern"), ours, "{attempt}");
    }
    // The container contains no file of the project, neither the program nor the registry, except
    // the two lines that it may read.
    let mounts = container.sh("cat /proc/1/mountinfo");
    let ours_in_it: Vec<_> = mounts.lines().filter(|line| line.contains("oci-coredump")).collect();
    assert!(!ours_in_it.is_empty(), "{mounts}");
    let views = [
        "/views/tampers /proc/sys/kernel/core_pattern ro,",
        "/views/.pid-tampers /proc/sys/kernel/core_uses_pid ro,",
    ];
    assert!(ours_in_it.iter().all(|line| views.iter().any(|view| line.contains(view))), "{mounts}");
    assert_eq!(container.sh("cat /proc/sys/kernel/core_pattern"), "/dump/core\n");

    host.set("kernel/core_pattern", "|/evil %p");
    let doctor = product(&["doctor"]).output().unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let line =
        said.lines().find(|line| line.contains("core_pattern")).unwrap_or_else(|| panic!("{said}"));
    assert!(!line.starts_with("ok") && line.contains("/evil"), "{line}");
    let (beside, _volume) = self::bundle();
    let beside = runtime.start(&beside, "beside");
    assert_eq!(
        host.sysctl("kernel/core_pattern"),
        ours,
        "the next container's start did not mend the pattern"
    );
    let (pid, _) = crash(&container, "0:0", "", &["/bin/crasher", "null"]);
    assert_eq!(names(volume.path()), [format!("core.{pid}")]);
    beside.remove();
}
