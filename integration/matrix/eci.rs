//! The demonstration of Alibaba's documentation, and what it could not show: two containers at
//! once, each its own pattern.
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use support::core_file::{self, Crashed};
use support::host::STORE;
use support::scene::{ECI, ECI_PATTERN, Engine, crash, host, only_record};

support::per_engine!(the_demonstration_of_eci, two_containers_two_patterns);

const SIGQUIT: i32 = 3;
const SIGSEGV: i32 = 11;
const CORE_DUMPED: i32 = 0x80;

/// A shell by exec, a program in it, `^\`: "Quit (core dumped)", and the core is where the
/// annotation said, in the container and, after the container is gone, in the host's store.
fn the_demonstration_of_eci(engine: Engine) {
    let host = host();
    let container = engine.start("eci", &[(ECI, ECI_PATTERN)], &[], &["sleep", "1000"]);
    let id = container.id().to_owned();

    let mut terminal = container.shell();
    terminal.type_keys("cat /proc/sys/kernel/core_pattern\n");
    terminal.wait_for(&format!("\n{ECI_PATTERN}\r"));
    terminal.type_keys("/bin/victim pause\n");
    terminal.wait_for("ready");
    let pid: i32 = container.sh("pidof victim").trim().parse().unwrap();
    terminal.type_keys("\x1c");
    terminal.wait_for("Quit (core dumped)");
    terminal.type_keys("exit\n");
    terminal.wait_for_end();

    let name = format!("core-eci.{pid}");
    assert_eq!(container.sh("ls /pod/data/dump"), format!("{name}\n"));
    container.remove();

    let core = Path::new(STORE).join("containers").join(&id).join(&name);
    assert_eq!(core_file::read(&core), Crashed { signal: SIGQUIT, tid: pid });
    assert_eq!(core_file::owner_and_mode(&core), (0, 0, 0o600));
    let record = only_record(&host, &id);
    assert_eq!(record["core_path"], format!("/pod/data/dump/{name}"), "{record:#}");
    assert_eq!(record["host_path"], core.to_str().unwrap(), "{record:#}");
    assert_eq!(record["location"], "store", "{record:#}");
    assert_eq!(record["outcome"], "written", "{record:#}");
    assert_eq!(record["signal_name"], "SIGQUIT", "{record:#}");
    assert_eq!(record["comm"], "victim", "{record:#}");
    assert_eq!(record["pid"], pid, "{record:#}");
    fs::remove_dir_all(Path::new(STORE).join("records")).unwrap();
}

/// Two containers on one kernel: each reads its own pattern, and each core is where its
/// container asked and nowhere else.
fn two_containers_two_patterns(engine: Engine) {
    let host = host();
    let volume = TempDir::new().unwrap();
    let first = engine.start("first", &[(ECI, ECI_PATTERN)], &[], &["sleep", "1000"]);
    let second = engine.start(
        "second",
        &[("oci-coredump/pattern", "/var/crash/%e-%s-%p")],
        &[(volume.path(), "/var/crash")],
        &["sleep", "1000"],
    );
    let pattern = "cat /proc/sys/kernel/core_pattern";
    assert_eq!(first.sh(pattern), format!("{ECI_PATTERN}\n"));
    assert_eq!(second.sh(pattern), "/var/crash/%e-%s-%p\n");

    let (first_pid, first_status) = crash(|script| first.sh(script), "segv");
    let (second_pid, second_status) = crash(|script| second.sh(script), "segv");
    assert_eq!((first_status, second_status), (SIGSEGV | CORE_DUMPED, SIGSEGV | CORE_DUMPED));
    assert_eq!(first.sh("ls /pod/data/dump"), format!("core-eci.{first_pid}\n"));
    assert_eq!(second.sh("ls /var/crash"), format!("victim-11-{second_pid}\n"));

    let (first_id, second_id) = (first.id().to_owned(), second.id().to_owned());
    first.remove();
    second.remove();
    let stored =
        Path::new(STORE).join("containers").join(&first_id).join(format!("core-eci.{first_pid}"));
    let on_volume = volume.path().join(format!("victim-11-{second_pid}"));
    assert_eq!(core_file::read(&stored), Crashed { signal: SIGSEGV, tid: first_pid });
    assert_eq!(core_file::read(&on_volume), Crashed { signal: SIGSEGV, tid: second_pid });
    assert_eq!(only_record(&host, &first_id)["location"], "store");
    assert_eq!(only_record(&host, &second_id)["location"], "volume");
    fs::remove_dir_all(Path::new(STORE).join("records")).unwrap();
}
