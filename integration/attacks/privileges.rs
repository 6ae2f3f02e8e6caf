//! Cores, records and helpers that somebody without permission tries to read or to use.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use support::bare;
use support::core_file::owner_and_mode;
use support::fixture::{as_nobody, bundle, crash, names, tree};
use support::fuse::{Answer, Fuse};
use support::host::{RUN, STORE};
use support::processes::dumping;
use support::processes::wait_gone;
use support::runtime::{Kind, Runtime};
use support::scene::{self, only_record};

support::cases!(row_02_core_of_a_set_user_id_program: suid_dumpable_1("1", 1), suid_dumpable_2("2", 2));

/// A user crashes a set-user-ID program. A core with data that a program of root has read would be
/// a way to root, even if the administrator has set `fs.suid_dumpable` to 1, with which the kernel
/// treats the program as an ordinary one.
fn row_02_core_of_a_set_user_id_program(suid_dumpable: &str, dump_mode: i32) {
    let host = scene::host();
    host.set("fs/suid_dumpable", suid_dumpable);
    let runtime = Runtime::new(Kind::Runc);
    let (bundle, volume) = bundle();
    let program = bundle.rootfs().host_path("/bin/crasher");
    let id = format!("suid-{suid_dumpable}");
    for mode in [0o4755, 0o2755] {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let container = runtime.start(&bundle, &id);
        let (_, status) = crash(&container, "1000:1000", "", &["/bin/crasher", "null"]);
        assert_eq!(status & 0x7f, 11);
        assert_eq!(names(volume.path()), [] as [&str; 0], "suid_dumpable={suid_dumpable} {mode:o}");
        let record = only_record(&host, &id);
        assert_eq!(
            (&record["outcome"], &record["dump_mode"]),
            (&"none".into(), &dump_mode.into()),
            "{record:#}"
        );
        assert!(record["reason"].as_str().unwrap().contains("set-user-ID"), "{record:#}");
        container.remove();
        fs::remove_dir_all(Path::new(STORE).join("records")).unwrap();
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

support::cases!(row_18_helper_that_crashes_itself: writer("writer", "truncated"), helper("helper", "started"));

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
    let both = dumping();
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
            dumping().iter().all(|pid| *pid == writer),
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
            let (_, writer) = relation(&dumping());
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
