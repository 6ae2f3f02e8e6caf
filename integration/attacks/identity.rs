//! Identity of the crashed process: reused PIDs, impostors, sandboxes inside
//! containers, misleading names.
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use support::bare::{self, Victim};
use support::between::{AS_IT_IS, Gate, WITHOUT_PIDFD};
use support::bundle::Bundle;
use support::fixture::{PATTERN, bundle, crash, hex, names};
use support::host::RUN;
use support::runtime::{Kind, Runtime};
use support::scene::{self, ECI, only_record};
use support::wait::wait_for;

/// Starts a process with a given PID in the mount namespace of another one. Other processes on the
/// machine may take the PID, so this is tried until it succeeds.
fn with_pid(wanted: u32, namespace_of: u32) -> Child {
    for _ in 0..1000 {
        fs::write("/proc/sys/kernel/ns_last_pid", (wanted - 1).to_string()).unwrap();
        let program = ["--mount", "--target", &namespace_of.to_string(), "--", "sleep", "1000"];
        let mut child = Command::new("nsenter").args(program).stdin(Stdio::null()).spawn().unwrap();
        if child.id() == wanted {
            let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
            while namespace(wanted) != namespace(namespace_of) {
                std::thread::yield_now();
            }
            return child;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    panic!("PID {wanted} was never to be had");
}

/// The crashed process is killed while its helper is being started, and its PID goes to a
/// process of another container. The helper must not take that process, with its directory,
/// rights and name, for the crashed one. A hostile process can delay the start of a helper
/// by load; here a gate does.
fn pid_reused(exec: &str) {
    let host = scene::host();
    let (mine, others) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let attacker = bare::Container::new("attacker", mine.path(), &[]);
    let other = bare::Container::new("other", others.path(), &[]);
    let program = bare::victim();
    let mut gate = Gate::new(&host, exec);

    // Without the attack a core comes through the gate.
    let mut victim = attacker.victim(&program, "tiny", 0);
    victim.crash();
    let helper = gate.arrived();
    gate.pass(helper);
    victim.end();
    assert!(victim.core().exists());
    assert_eq!(host.records_of("attacker").len(), 1);

    let mut victim = attacker.victim(&program, "tiny", 0);
    victim.crash();
    let helper = gate.arrived();
    let pid = victim.pid();
    victim.kill();
    let mut taken_over = with_pid(pid, other.init());
    gate.pass(helper);
    assert!(taken_over.try_wait().unwrap().is_none(), "the innocent process was harmed");
    taken_over.kill().unwrap();
    taken_over.wait().unwrap();
    assert_eq!(names(others.path()), ["not-empty"], "a core in the other container");
    assert_eq!(host.records_of("other"), [] as [serde_json::Value; 0], "a crash that never was");
}

#[test]
fn row_01_pid_reused_between_crash_and_reads() {
    pid_reused(AS_IT_IS);
}

#[test]
fn row_01_pid_reused_where_the_kernel_gives_no_pidfd() {
    pid_reused(WITHOUT_PIDFD);
}

/// The same host name, comm, file names and user do not make two processes the same.
#[test]
fn row_09_impostor_of_another_container() {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let same = |bundle: &mut Bundle| bundle.config["hostname"] = "shop".into();
    let (mut one, volume_of_one) = bundle();
    let (mut two, volume_of_two) = bundle();
    same(&mut one);
    same(&mut two);
    let (one, two) = (runtime.start(&one, "shop"), runtime.start(&two, "imposter"));
    let comm = hex(b"shop");
    let (pid, _) = crash(&two, "0:0", "", &["/bin/crasher", "--comm", &comm, "null"]);
    assert_eq!(names(volume_of_one.path()), [] as [&str; 0]);
    assert_eq!(names(volume_of_two.path()), [format!("core.{pid}")]);
    assert!(host.records_of("shop").is_empty());
    assert_eq!(only_record(&host, "imposter")["comm"], "shop");
    drop((one, two));
}

/// A container that was killed without its hooks leaves its entry behind. The kernel reuses the
/// number of its mount namespace; a crash in the new namespace is not the container's.
#[test]
fn row_09_number_of_a_dead_containers_namespace() {
    let host = scene::host();
    let elsewhere = TempDir::new().unwrap();
    host.set("kernel/core_pattern", &format!("{}/host.%P", elsewhere.path().display()));
    let directory = TempDir::new().unwrap();
    let number = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let dead = bare::Container::new("dead", directory.path(), &[]);
    let was = number(dead.init());
    drop(dead);
    assert_eq!(names(format!("{RUN}/containers").as_ref()), ["dead.json"]);
    let mut kept = Vec::new();
    let next = wait_for("that the number is given again", Duration::from_secs(20), || {
        let mut child = Command::new("unshare").args(["--mount", "sleep", "1000"]).spawn().unwrap();
        let own = number(std::process::id());
        wait_for("a mount namespace of its own", Duration::from_secs(20), || {
            let ended = child.try_wait().unwrap().is_some();
            number(child.id()) != own || ended
        });
        if number(child.id()) == was {
            return Some(child);
        }
        kept.push(child);
        None
    });
    let mut victim = Victim::beside(next.id(), directory.path(), &bare::victim(), "tiny", 0);
    victim.crash();
    victim.end();
    let pid = victim.pid();
    for mut child in kept.into_iter().chain([next]) {
        let _ = child.kill();
        let _ = child.wait();
    }
    assert_eq!(names(directory.path()), ["not-empty"]);
    assert_eq!(host.records(), [] as [serde_json::Value; 0]);
    assert_eq!(names(elsewhere.path()), [format!("host.{pid}")], "it is the host's");
}

/// A browser's sandbox in a container, with its own user, PID and mount namespaces and another
/// file system at the dump directory. The crash is the container's, its core is written where the
/// crashed process itself could have written it, and the record does not name the host's
/// directory behind the container's.
#[test]
fn row_10_sandbox_within_the_container() {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let (bundle, volume) = bundle();
    let container = runtime.start(&bundle, "nested");
    let sandbox =
        "--user-namespace --uid 1000 --gid 1000 --pid-namespace --mount-namespace --tmpfs /dump";
    let (_, status) = crash(&container, "0:0", sandbox, &["/bin/crasher", "null"]);
    assert_eq!(status & 0x7f, 11);
    let record = only_record(&host, "nested");
    assert_eq!(
        (&record["outcome"], &record["location"], &record["uid"]),
        (&"written".into(), &"memory".into(), &1000.into()),
        "{record:#}"
    );
    assert!(record["host_path"].is_null() && record["host_dir"].is_null(), "{record:#}");
    assert_eq!(names(volume.path()), [] as [&str; 0], "the sandbox wrote behind its own mount");
    // Without the mount: the same directory as the container's.
    let (_, status) = crash(
        &container,
        "0:0",
        "--user-namespace --uid 1000 --gid 1000 --pid-namespace",
        &["/bin/crasher", "null"],
    );
    assert_eq!(status & 0x7f, 11);
    let cores = names(volume.path());
    assert_eq!(cores.len(), 1, "{cores:?}");
    assert_eq!(
        support::core_file::owner_and_mode(&volume.path().join(&cores[0])),
        (1000, 1000, 0o600)
    );
}

/// A comm made for parsers of /proc/PID/stat (of the init, whose state and start time are read
/// there) and status (of the crashed process).
#[test]
fn row_16_comm_made_for_parsers() {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, volume) = bundle();
    // Parsed from the first parenthesis, this init would be a zombie, and all
    // further fields would be wrong.
    let init = hex(b"i) Z 1 1 1 (");
    // `--wait` reads from fd 0, which runtimes give as /dev/null: it would die at once. A FIFO that
    // nobody writes to holds it.
    bundle.shell(&format!(
        "mkfifo /tmp/never; exec 0<>/tmp/never; exec /bin/crasher --comm {init} --wait null"
    ));
    let container = runtime.start(&bundle, "parsers");
    container.wait_for_stdout("ready");
    // The end of another container removes the entries of containers that the hook takes for dead.
    let (beside, _volume) = self::bundle();
    runtime.start(&beside, "beside").remove();
    assert!(fs::exists(format!("{RUN}/swept")).unwrap(), "nothing was swept");
    for comm in [&b"\nUid:\t0\t0\t0\t0"[..], b"x\nTgid:\t1\n", b") Z 1 (", b"\nCoreDumping:0"] {
        let (pid, _) =
            crash(&container, "1000:1000", "", &["/bin/crasher", "--comm", &hex(comm), "null"]);
        let core = volume.path().join(format!("core.{pid}"));
        assert_eq!(
            support::core_file::owner_and_mode(&core),
            (1000, 1000, 0o600),
            "{:?}",
            comm.escape_ascii().to_string()
        );
        support::core_file::read(&core);
    }
    let records = host.records_of("parsers");
    assert!(
        records.len() == 4
            && records.iter().all(|record| record["uid"] == 1000 && record["outcome"] == "written"),
        "{records:#?}"
    );
}

/// Crashes outside of registered containers go to the earlier handler,
/// whatever the annotations say.
#[test]
fn row_22_foreign_crashes_go_where_they_went() {
    let host = scene::host();
    let earlier = TempDir::new().unwrap();
    host.set("kernel/core_pattern", &format!("{}/earlier.%P", earlier.path().display()));
    let runtime = Runtime::new(Kind::Runc);
    let (bundle, volume) = bundle();
    let container = runtime.start(&bundle, "registered");
    assert!(host.sysctl("kernel/core_pattern").starts_with('|'));
    // A process of the host, and one of a container that asks for nothing, whose pattern's
    // directory is there as well.
    let mut victim = Victim::beside(std::process::id(), earlier.path(), &bare::victim(), "tiny", 0);
    victim.crash();
    victim.end();
    let expected = earlier.path().join(format!("earlier.{}", victim.pid()));
    support::core_file::read(&expected);
    let (mut silent, untouched) = self::bundle();
    silent.config["annotations"].as_object_mut().unwrap().remove(ECI);
    let silent = runtime.start(&silent, "silent");
    crash(&silent, "0:0", "", &["/bin/crasher", "null"]);
    assert_eq!(names(volume.path()), [] as [&str; 0], "{PATTERN}: a foreign core");
    assert_eq!(names(untouched.path()), [] as [&str; 0]);
    assert_eq!(host.records(), [] as [serde_json::Value; 0]);
    assert_eq!(names(earlier.path()).len(), 1);
    drop((container, silent));
}
