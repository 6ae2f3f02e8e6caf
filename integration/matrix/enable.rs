//! A running container gets its own core pattern, and gives it back.
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use std::time::Duration;
use support::core_file::{self, Crashed};
use support::host::{RUN, STORE};
use support::runtime::{Kind, Runtime};
use support::scene::{ECI_PATTERN, Engine, bundle, crash, host, only_record, product};
use support::wait::wait_for;

support::per_engine!(a_running_container);

/// The command that knows the engine's containers, as `--by` takes it.
fn by(engine: &Engine) -> String {
    let words = |command: Command| {
        let all = std::iter::once(command.get_program()).chain(command.get_args());
        all.map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    match engine {
        Engine::Direct(runtime) => words(runtime.command()),
        Engine::Podman(podman) => words(podman.command()),
    }
}

/// A script that prints all that a container can see of its pattern.
const LOOK: &str = "cat /proc/sys/kernel/core_pattern; grep 'Max core' /proc/1/limits; cat \
                    /proc/1/coredump_filter; ls -d /pod /pod/data /pod/data/dump 2>&1; \
                    cut -d' ' -f4- /proc/self/mountinfo";

fn succeed(args: &[&str]) -> String {
    let output = product(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(args: &[&str], why: &str) {
    let output = product(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains(why) && said.lines().count() == 1,
        "{args:?}: {said}"
    );
}

fn a_running_container(engine: Engine) {
    let host = host();
    let container = engine.start("live", &[], &[], &["sleep", "1000"]);
    let id = container.id().to_owned();
    let name = if matches!(engine, Engine::Direct(_)) { id.as_str() } else { "live" };
    let before = container.sh(LOOK);
    assert!(!before.contains("/pod/data/dump\n"), "{before}");
    let enable = [
        "enable",
        name,
        "--by",
        &by(&engine),
        "--pattern",
        ECI_PATTERN,
        "--limit",
        "64M",
        "--filter",
        "0x31",
    ];
    assert_eq!(succeed(&enable), format!("container {id} has the core pattern {ECI_PATTERN}\n"));

    let now = container.sh(LOOK);
    let lines: Vec<&str> = now.lines().collect();
    assert_eq!((lines[0], lines[2]), (ECI_PATTERN, "00000031"));
    assert!(lines[1].split_whitespace().nth(4) == Some("67108864"), "{}", lines[1]);
    let (pid, status) = crash(|script| container.sh(script), "segv");
    assert_eq!(status, 11 | 0x80);
    assert_eq!(container.sh("ls /pod/data/dump"), format!("core-eci.{pid}\n"));
    let core = Path::new(STORE).join("containers").join(&id).join(format!("core-eci.{pid}"));
    assert_eq!(core_file::read(&core), Crashed { signal: 11, tid: pid });
    assert_eq!(only_record(&host, &id)["location"], "store");
    refused(&enable, "it has the core pattern \"/pod/data/dump/core-eci\" already");

    assert_eq!(succeed(&["disable", &id[..4]]), format!("container {id} is as it was before\n"));
    // The host's pattern has become ours in the meantime, which a
    // container without its own sees.
    let rest = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(rest(&container.sh(LOOK)), rest(&before));
    assert!(
        core.exists() && !Path::new(RUN).join("containers").join(format!("{id}.json")).exists()
    );
    refused(&["disable", &id], "no registered container is called");
    host.settle();
    fs::remove_dir_all(Path::new(STORE).join("records")).unwrap();
    container.remove();
}

/// Processes that run already, whoever started them; a volume; and containers that are refused.
#[test]
fn processes_volumes_and_refusals() {
    let host = host();
    let runtime = Runtime::new(Kind::Runc);
    let volume = TempDir::new().unwrap();
    let mut plain = bundle();
    plain.bind(volume.path(), "/data").rlimit("RLIMIT_CORE", 0, 1 << 30);
    plain.shell(
        "(while [ ! -e /data/go ]; do sleep 0.05; done; /bin/victim wait segv >/data/ended; sleep \
         1000) & sleep 1000",
    );
    let container = runtime.start(&plain, "running");
    let pid = container.pid().to_string();
    succeed(&["enable", "running", "--pid", &pid, "--pattern", "/data/dump/core"]);
    fs::write(volume.path().join("go"), "").unwrap();
    let ended = wait_for("the crash of a process that ran before", Duration::from_secs(60), || {
        let text = fs::read_to_string(volume.path().join("ended")).ok()?;
        text.ends_with('\n').then(|| support::scene::ended(&text))
    });
    assert_eq!(ended.1, 11 | 0x80);
    let core = volume.path().join(format!("dump/core.{}", ended.0));
    assert_eq!(core_file::read(&core), Crashed { signal: 11, tid: ended.0 });
    let record = only_record(&host, "running");
    assert_eq!(
        (record["location"].as_str(), record["host_path"].as_str()),
        (Some("volume"), core.to_str()),
        "{record:#}"
    );
    let limit = |what: &str| {
        fs::read_to_string(format!("/proc/{pid}/limits"))
            .unwrap()
            .lines()
            .any(|l| l.split_whitespace().eq(what.split(' ')))
    };
    assert!(limit("Max core file size 1073741824 1073741824 bytes"));
    succeed(&["disable", "running"]);
    assert!(limit("Max core file size 0 1073741824 bytes"));

    let id = ["enable", "running", "--pid", &pid, "--pattern"];
    refused(&[&id[..], &["|/bin/sh"]].concat(), "|/bin/sh");
    refused(&[&id[..], &["/data/go/core"]].concat(), "dump directory");
    assert!(
        limit("Max core file size 0 1073741824 bytes")
            && !Path::new(RUN).join("containers/running.json").exists()
    );
    refused(
        &["enable", "--pid", &std::process::id().to_string(), "--pattern", "core"],
        "the host's mount namespace",
    );
    refused(
        &["enable", "nobody", "--by", "runc --root /nonexistent", "--pattern", "core"],
        "runc --root /nonexistent",
    );
    // `disable` does not undo what the hook did.
    let mut hooked = bundle();
    hooked.annotation(support::scene::ECI, ECI_PATTERN);
    let hooked = runtime.start(&hooked, "hooked");
    refused(&["disable", "hooked"], "since its start, by its annotations");
    refused(
        &["enable", "--pid", &hooked.pid().to_string(), "hooked", "--pattern", "core"],
        "since its start, by its annotations",
    );
}

/// A container without any request, and what its processes see of their pattern.
fn with_plain_container(id: &str, work: impl FnOnce(&dyn Fn() -> String, &str)) {
    let runtime = Runtime::new(Kind::Runc);
    let mut plain = bundle();
    plain.shell("sleep 1000");
    let container = runtime.start(&plain, id);
    // The first line is the host's pattern, unless the container has its own.
    let seen = || container.sh(LOOK).split_once('\n').unwrap().1.to_owned();
    work(&seen, &container.pid().to_string());
}

/// The last thing that `enable` does fails: all that it has changed before is as it was.
#[test]
fn a_failure_at_the_end_leaves_nothing() {
    let _host = host();
    with_plain_container("failing", |seen, pid| {
        let before = seen();
        let enable = ["enable", "failing", "--pid", pid, "--pattern", ECI_PATTERN, "--filter", "1"];
        succeed(&enable);
        assert_ne!(seen(), before);
        succeed(&["disable", "failing"]);
        assert_eq!(seen(), before);
        // Not a directory, so the changes cannot be kept in it.
        let place = Path::new(RUN).join("enabled");
        fs::remove_dir(&place).unwrap();
        fs::write(&place, "").unwrap();
        refused(&enable, "enabled");
        assert_eq!(seen(), before);
        assert!(!Path::new(RUN).join("containers/failing.json").exists());
        assert!(!Path::new(STORE).join("containers/failing").exists());
    });
}

/// What an earlier version has left is not guessed at.
#[test]
fn enabled_by_another_version() {
    let _host = host();
    with_plain_container("earlier", |seen, pid| {
        let before = seen();
        succeed(&["enable", "earlier", "--pid", pid, "--pattern", ECI_PATTERN]);
        let file = Path::new(RUN).join("enabled/earlier");
        let own = fs::read(&file).unwrap();
        fs::write(&file, r#"{"made": 3, "processes": []}"#).unwrap();
        let out = product(&["disable", "earlier"]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains("of another version"), "{said}");
        fs::write(&file, own).unwrap();
        succeed(&["disable", "earlier"]);
        assert_eq!(seen(), before);
    });
}
