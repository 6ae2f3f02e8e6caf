//! Cores, records and helpers that somebody without permission tries to read or to use.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use support::bare;
use support::core_bytes::is_core;
use support::core_file::owner_and_mode;
use support::fixture::{as_nobody, bundle, crash, names, tree};
use support::fuse::{Answer, Fuse};
use support::host::{RUN, STORE};
use support::processes::helpers;
use support::processes::wait_gone;
use support::runtime::{Kind, Runtime};
use support::scene::{self, only_record};

support::cases!(
    row_02_core_of_a_set_user_id_program: suid_dumpable_1("1", false),
    suid_dumpable_2("2", true)
);

/// A user crashes a set-user-ID program. A core with data that a program of root has read would be
/// a way to root, even if the administrator has set `fs.suid_dumpable` to 1, with which the kernel
/// treats the program as an ordinary one: then there is none. With 2 there is one of root's.
fn row_02_core_of_a_set_user_id_program(suid_dumpable: &str, is_roots: bool) {
    let host = scene::host();
    host.set("fs/suid_dumpable", suid_dumpable);
    let runtime = Runtime::new(Kind::Runc);
    let (bundle, volume) = bundle();
    let program = bundle.rootfs().host_path("/bin/crasher");
    let id = format!("suid-{suid_dumpable}");
    for mode in [0o4755, 0o2755] {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let container = runtime.start(&bundle, &id);
        let (pid, status) = crash(&container, "1000:1000", "", &["/bin/crasher", "null"]);
        assert_eq!(status & 0x7f, 11);
        let record = only_record(&host, &id);
        assert_eq!(record["dump_mode"], suid_dumpable.parse::<i32>().unwrap(), "{record:#}");
        if is_roots {
            let core = volume.path().join(format!("core.{pid}"));
            let (uid, _, mode) = owner_and_mode(&core);
            assert_eq!((uid, mode), (0, 0o600), "{record:#}");
            assert_eq!(record["outcome"], "written", "{record:#}");
            let inside = format!("/dump/core.{pid}");
            for user in ["1000:1000", "2000:2000", "1000:0"] {
                let options = ["--user", user, "--cap", ""];
                let read = container.exec_with(&options, &["/bin/cat", &inside]);
                assert!(!read.status.success() && read.stdout.is_empty(), "{user} reads it");
                container.exec_with(&options, &["/bin/sh", "-c", &format!("rm -f {inside}")]);
                container.exec_with(&options, &["/bin/mv", &inside, "/dump/mine"]);
            }
            assert!(is_core(&fs::read(&core).unwrap()), "somebody has removed or changed it");
            fs::remove_file(core).unwrap();
        } else {
            assert_eq!(record["outcome"], "none", "{record:#}");
            assert!(record["reason"].as_str().unwrap().contains("set-user-ID"), "{record:#}");
        }
        assert_eq!(names(volume.path()), [] as [&str; 0], "suid_dumpable={suid_dumpable} {mode:o}");
        container.remove();
        fs::remove_dir_all(Path::new(STORE).join("records")).unwrap();
    }
}

/// Dump mode 2: the writer has root's rights, so a user of the container tries to lead it to where
/// root alone may write, or to have it write into something of his.
#[test]
fn row_02_a_user_leads_the_writer_of_roots_core() {
    let host = scene::host();
    host.set("fs/suid_dumpable", "2");
    host.configure("core_uses_pid = false\n");
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, volume) = bundle();
    bundle.annotation(support::scene::ECI, "/dump/user/way/core");
    let suid = bundle.rootfs().host_path("/bin/suid");
    fs::copy(bundle.rootfs().host_path("/bin/crasher"), &suid).unwrap();
    fs::set_permissions(&suid, fs::Permissions::from_mode(0o4755)).unwrap();
    bundle.rootfs().directory("/roots", 0o755);
    bundle.rootfs().directory("/jail/dump/user/way", 0o777);
    let theirs = volume.path().join("user");
    fs::create_dir_all(theirs.join("way")).unwrap();
    fs::set_permissions(theirs.join("way"), fs::Permissions::from_mode(0o1777)).unwrap();
    let container = runtime.start(&bundle, "led");
    let roots = bundle.rootfs().host_path("/roots");
    let crashes = || {
        crash(&container, "1000:1000", "", &["/bin/suid", "null"]);
        let drops = ["/bin/crasher", "--drop-to", "1000", "null"];
        crash(&container, "0:0", "", &drops);
        // From a root directory that a user could have made.
        crash(&container, "0:0", "--chroot /jail", &["/bin/crasher", "--drop-to", "1000", "null"]);
    };
    bundle.rootfs().put(support::crasher::crasher(), "/jail/bin/crasher");
    let user = |script: &str| {
        let done = container.exec_with(&["--user", "1000:1000"], &["/bin/sh", "-ec", script]);
        assert!(done.status.success(), "{script}: {done:?}");
    };

    // What has the name already stays what it is.
    for make in [
        "echo mine > core",
        "ln -s /roots/core core",
        "echo mine > one; ln one core",
        "mkfifo core",
        "mkdir core",
    ] {
        user(&format!("cd /dump/user/way; {make}"));
        let before = tree(volume.path());
        crashes();
        assert_eq!(tree(volume.path()), before, "{make}");
        user("rm -rf /dump/user/way/*");
    }
    // A way that a user can change, even while it still leads to the right place.
    std::os::unix::fs::chown(&theirs, Some(1000), Some(1000)).unwrap();
    for make in ["true", "mv way old; ln -s /roots way", "rm way; ln -s /dump/user/old way"] {
        user(&format!("cd /dump/user; {make}"));
        crashes();
        assert_eq!(names(&roots), [] as [&str; 0], "{make}");
        let all = tree(volume.path());
        assert!(!all.keys().any(|path| path.ends_with("core")), "{make}: {all:?}");
    }
    let records = host.records_of("led");
    assert!(records.iter().all(|r| r["outcome"] == "none"), "{records:#?}");
    assert_eq!(names(&bundle.rootfs().host_path("/jail/dump/user/way")), [] as [&str; 0]);
}

/// A container with a user namespace: its root gets the core of what is the container's, and not
/// that of a program that belongs to the host and that nobody in the container may read.
#[test]
fn row_02_roots_core_in_a_user_namespace() {
    let host = scene::host();
    host.set("fs/suid_dumpable", "2");
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, volume) = bundle();
    bundle.user_namespace();
    let foreign = TempDir::with_prefix("foreign").unwrap();
    fs::set_permissions(foreign.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let closed = foreign.path().join("crasher");
    fs::copy(support::crasher::crasher(), &closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o711)).unwrap();
    bundle.bind(foreign.path(), "/foreign");
    let container = runtime.start(&bundle, "mapped");
    let (pid, _) = crash(&container, "0:0", "", &["/bin/crasher", "--drop-to", "1000", "null"]);
    let core = volume.path().join(format!("core.{pid}"));
    let base = support::bundle::USERNS_BASE;
    assert_eq!(owner_and_mode(&core), (base, base + 1000, 0o600), "{:#?}", host.records());
    assert!(is_core(&fs::read(core).unwrap()));
    for user in ["0:0", "1000:1000"] {
        let (pid, _) = crash(&container, user, "", &["/foreign/crasher", "null"]);
        assert!(!volume.path().join(format!("core.{pid}")).exists(), "{user}");
        let records = host.records_of("mapped");
        let record = records.iter().find(|r| r["pid"] == pid).unwrap();
        assert_eq!((&record["outcome"], &record["dump_mode"]), (&"none".into(), &2.into()));
        assert!(record["reason"].as_str().unwrap().contains("may not read"), "{record:#}");
    }
}

/// The process clears its umask, which would make its core world-readable.
#[test]
fn row_06_world_readable_core() {
    let _host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let (bundle, volume) = bundle();
    let container = runtime.start(&bundle, "readable");
    for user in ["0:0", "1000:1000"] {
        let (pid, _) = crash(&container, user, "--umask 0", &["/bin/crasher", "null"]);
        let id: u32 = user.split(':').next().unwrap().parse().unwrap();
        assert_eq!(owner_and_mode(&volume.path().join(format!("core.{pid}"))), (id, id, 0o600));
        let other = container.exec_with(
            &["--user", "2000:2000", "--cap", ""],
            &["/bin/cat", &format!("/dump/core.{pid}")],
        );
        assert!(
            !other.status.success() && other.stdout.is_empty(),
            "another user of the container reads the core of {user}"
        );
    }
}

/// A password in the environment and one on the command line are in the core, which belongs to
/// the owner, and nowhere else.
#[test]
fn row_15_environment_and_arguments() {
    const SECRET: &str = "correct-horse-battery";
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, volume) = bundle();
    bundle.env(&format!("PASSWORD={SECRET}"));
    let container = runtime.start(&bundle, "secret");
    container.sh(&format!("ulimit -c unlimited; /bin/victim segv {SECRET}; true"));
    let core = fs::read(volume.path().join(&names(volume.path())[0])).unwrap();
    assert!(
        contains(&core, SECRET) && contains(&core, &format!("PASSWORD={SECRET}")),
        "the secret was never there"
    );
    for (path, (mode, _, _, content)) in
        tree(Path::new(STORE)).into_iter().chain(tree(Path::new(RUN)))
    {
        assert!(!contains(&content, SECRET), "{path:?} holds the secret");
        assert!(
            mode & 0o077 == 0 || path.starts_with(Path::new(RUN).join("views")),
            "{path:?} is open to others: {mode:o}"
        );
    }
    // Other users must not even learn which programs crash.
    for path in [STORE, RUN] {
        assert!(
            !as_nobody("ls", &[path]).output().unwrap().status.success(),
            "{path} can be listed"
        );
    }
    let listed =
        as_nobody("/usr/libexec/oci/hooks.d/oci-coredump", &["list", "--json"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("secret"), "{listed:?}");
    only_record(&host, "secret");
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

support::cases!(
    row_18_helper_that_crashes_itself: writer("writer", "truncated"),
    helper("helper", "started")
);

/// The helper and its writer crash themselves. The kernel must not start another helper
/// for that, no core of the helper, which holds the container's memory, may appear, and
/// the crash keeps its record.
fn row_18_helper_that_crashes_itself(victim_of_the_signal: &str, outcome: &str) {
    let host = scene::host();
    let elsewhere = TempDir::new().unwrap();
    host.set("kernel/core_pattern", &format!("{}/core.of.helper.%P", elsewhere.path().display()));
    let target = Fuse::mount();
    let id = format!("stumble-{victim_of_the_signal}");
    let container = bare::Container::new(&id, target.path(), &[]);
    target.on_write(0, Answer::Hold);
    let mut victim = container.victim(&bare::victim(), "tiny", 0);
    victim.crash();
    assert!(target.wait_held(Duration::from_secs(10)));
    let both = helpers();
    let (parent, writer) = relation(&both);
    let hit = if victim_of_the_signal == "writer" { writer } else { parent };
    // It is about to be killed, and must not become a process whose memory
    // everybody can read either.
    assert_eq!(
        fs::metadata(format!("/proc/{writer}/mem")).unwrap().uid(),
        0,
        "the writer could be traced by the container"
    );
    // A signal that dumps core and that Rust's runtime does not handle.
    assert!(Command::new("kill").args(["-ILL", &hit.to_string()]).status().unwrap().success());
    if hit == parent {
        wait_gone(parent, Duration::from_secs(10));
        assert!(
            helpers().iter().all(|pid| *pid == writer),
            "the kernel started a helper for the helper"
        );
    }
    target.go_on();
    for pid in both {
        wait_gone(pid, Duration::from_secs(10));
    }
    assert!(victim.ends_within(Duration::from_secs(10)));
    assert_eq!(names(elsewhere.path()), [] as [&str; 0], "the helper left a core");
    let record = only_record(&host, &id);
    assert_eq!(record["outcome"], outcome, "{record:#}");
    assert_eq!(record["truncated"], true, "{record:#}");
    let store = names(Path::new(STORE)).concat();
    assert!(!store.contains("core."), "{store}");
}

/// Which of two processes is the parent, and which the child.
fn relation(pids: &[i32]) -> (i32, i32) {
    let parent = |pid: i32| -> i32 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
    };
    let [a, b] = pids else { panic!("expected a helper and its writer, got {pids:?}") };
    if parent(*a) == *b { (*b, *a) } else { (*a, *b) }
}

/// What a long dump runs as, seen from outside (point 2 of the design).
#[test]
fn the_writer_has_nothing_that_the_crasher_had_not() {
    let _host = scene::host();
    let target = Fuse::mount();
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, _volume) = bundle();
    bundle.annotation(support::scene::ECI, "/fuse/core").bind(target.path(), "/fuse");
    let container = runtime.start(&bundle, "poor");
    target.on_write(0, Answer::Hold);
    let options = ["--user", "1000:1000", "--additional-gids", "7", "--additional-gids", "8"];
    std::thread::scope(|scope| {
        let crashing = scope.spawn(|| {
            container.exec_with(
                &options,
                &["/bin/parent", "--core", "unlimited", "--", "/bin/crasher", "null"],
            )
        });
        let held = target.wait_held(Duration::from_secs(10));
        let seen = held.then(|| {
            let (_, writer) = relation(&helpers());
            let text = |name: &str| {
                fs::read_to_string(format!("/proc/{writer}/{name}")).unwrap_or_default()
            };
            let descriptors = fs::read_dir(format!("/proc/{writer}/fd")).unwrap().count();
            (text("status"), text("limits"), text("environ"), descriptors)
        });
        target.go_on();
        crashing.join().unwrap();
        let (status, limits, environ, descriptors) = seen.expect("no write was held");
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("{name} in {status}"))
                .trim()
                .to_owned()
        };
        assert_eq!(field("Uid:"), "1000\t1000\t1000\t1000");
        assert_eq!(field("Gid:"), "1000\t1000\t1000\t1000");
        assert_eq!(field("Groups:"), "7 8");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        // With that the bounding set has no effect.
        assert_eq!(field("NoNewPrivs:"), "1");
        assert!(
            limits.lines().any(|line| line.starts_with("Max core file size")
                && line.split_whitespace().nth(4).is_some_and(|soft| soft.len() == 1)),
            "{limits}"
        );
        assert_eq!(environ, "");
        // Standard input (the core), output and error, the report, the file and its directory, and
        // what the fast lane reads.
        assert!(descriptors <= 10, "{descriptors} descriptors are open");
    });
}
