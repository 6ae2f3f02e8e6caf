//! Accounts: no container uses up the limits of another, and none has an
//! unlimited number of accounts.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use support::bundle::Bundle;
use support::crasher::compile;
use support::fixture::{LONG, bundle, crash, in_the_store, names};
use support::fuse::{Answer, Fuse};
use support::host::{Host, RUN, STORE};
use support::processes::helpers;
use support::runtime::{Kind, Runtime};
use support::scene::{self, ECI, ECI_PATTERN};
use support::wait::wait_for;

/// Names the container as containerd, or the author of an annotation, would.
fn name_as_pod(bundle: &mut Bundle) {
    bundle
        .annotation("io.kubernetes.cri.sandbox-namespace", "prod")
        .annotation("io.kubernetes.cri.sandbox-name", "bank-0")
        .annotation("io.kubernetes.cri.container-name", "app");
}

fn outcome(host: &Host, id: &str) -> Vec<String> {
    host.records_of(id).iter().map(|r| r["outcome"].as_str().unwrap().to_owned()).collect()
}

/// A pod's names in annotations select no account, since any container may have them.
#[test]
fn row_41_the_names_of_another_pod() {
    let host = scene::host();
    host.configure("[limits]\nrate = \"3/day\"\nrecords = 8\nconcurrent = 4\nwait = 5\n");
    let runtime = Runtime::new(Kind::Runc);
    let (mut victim_bundle, volume) = bundle();
    name_as_pod(&mut victim_bundle);
    let victim = runtime.start(&victim_bundle, "victim");
    let target = Fuse::mount();
    let (mut evil_bundle, _volume) = bundle();
    evil_bundle.annotation(ECI, "/fuse/core").bind(target.path(), "/fuse");
    name_as_pod(&mut evil_bundle);
    let evil = runtime.start(&evil_bundle, "evil");

    crash(&victim, "0:0", "", &["/bin/crasher", "null"]);
    // Its slots, its tokens, its records.
    target.on_write(0, Answer::Hold);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| crash(&evil, "0:0", "", &["/bin/crasher", "null"]));
        }
        assert!(target.wait_held(LONG));
        crash(&victim, "0:0", "", &["/bin/crasher", "null"]);
        target.go_on();
    });
    evil.exec(&[
        "/bin/sh",
        "-c",
        "ulimit -c unlimited; for i in $(seq 20); do /bin/crasher null; done 2>/dev/null; true",
    ]);
    host.settle();
    assert_eq!(outcome(&host, "victim"), ["written", "written"]);
    assert_eq!(names(volume.path()).len(), 2);
    let refused = crash(&victim, "0:0", "--core 4095", &["/bin/crasher", "null"]);
    host.settle();
    assert!(
        host.records_of("victim").iter().any(|r| r["pid"] == refused.0),
        "the crash of one stands in the record of another: {:#?}",
        host.records()
    );
}

/// Under a kubelet each start is another container: what it may have is its pod's, on a
/// volume and in the host's store.
#[test]
fn row_41_a_crash_loop_of_a_pod() {
    const UID: &str = "0f3c8a1e-77aa-4c6e-9f3d-2b1f5a6e7d80";
    let host = scene::host();
    host.configure("[limits]\ncores = 2\n");
    let runtime = Runtime::new(Kind::Runc);
    let volume = TempDir::with_prefix("volume").unwrap();
    let starts = |kind: &str, pod: &str, prepare: &dyn Fn(&mut Bundle)| {
        for i in 0..5 {
            let id = format!("{kind}-{i}");
            let mut bundle = in_the_store();
            name_as_pod(&mut bundle);
            prepare(&mut bundle);
            bundle.config["linux"]["cgroupsPath"] =
                format!("/kubepods/besteffort/pod{pod}/{id}").into();
            let container = runtime.start(&bundle, &id);
            crash(&container, "0:0", "", &["/bin/crasher", "null"]);
            host.settle();
            container.remove();
        }
    };
    starts("volume", UID, &|bundle| {
        bundle.annotation(ECI, "/dump/core-%t-%P").bind(volume.path(), "/dump");
    });
    assert_eq!(names(volume.path()).len(), 2);
    starts("store", &UID.replace('0', "1"), &|_| ());
    let stored = |i: i32| {
        fs::read_dir(Path::new(STORE).join(format!("containers/store-{i}")))
            .map_or(0, Iterator::count)
    };
    assert_eq!([0, 1, 2, 3, 4].map(stored), [0, 0, 0, 1, 1]);
}

/// Crashes, each by another user ID: `uids FIRST COUNT [nowait]`.
const UIDS: &str = r#"
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long first = atol(argv[1]), count = atol(argv[2]);
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };

	if (setrlimit(RLIMIT_CORE, &unlimited))
		return 3;
	for (long i = 0; i < count; i++) {
		pid_t pid = fork();
		if (!pid) {
			if (setgid(first + i) || setuid(first + i))
				_exit(4);
			prctl(PR_SET_DUMPABLE, 1);
			kill(getpid(), SIGSEGV);
			_exit(5);
		}
		if (argc < 4)
			waitpid(pid, 0, 0);
	}
	while (wait(0) > 0)
		;
	return 0;
}
"#;

/// A container that requests nothing and can switch to any user ID.
fn stranger(mount: Option<&Path>) -> Bundle {
    let mut bundle = Bundle::new();
    bundle.rootfs().put(&compile("uids", UIDS, &[]), "/bin/uids");
    bundle.rlimit("RLIMIT_CORE", u64::MAX, u64::MAX);
    if let Some(path) = mount {
        bundle.bind(path, "/fuse");
    }
    bundle
}

/// Each user ID used to have an account of its own in /run, with slots of its own.
#[test]
fn row_42_user_ids_without_number() {
    let host = scene::host();
    host.configure("[limits]\nhost_concurrent = 8\nconcurrent = 8\nwait = 1\nstall = 5\n");
    host.set("kernel/core_pattern", "core.%p");
    let runtime = Runtime::new(Kind::Runc);
    let (calm_bundle, volume) = bundle();
    let calm = runtime.start(&calm_bundle, "calm");
    let target = Fuse::mount();
    let stranger_bundle = stranger(Some(target.path()));
    let stranger = runtime.start(&stranger_bundle, "stranger");
    let accounts = || fs::read_dir(Path::new(RUN).join("limits")).map_or(0, Iterator::count);

    stranger.exec(&["/bin/sh", "-c", "cd /tmp; /bin/uids 100000 400"]);
    host.settle();
    assert!(accounts() <= 256 + 8, "{} accounts", accounts());

    // Their target does not answer: the number of dumps in progress is bounded, and a
    // container's core is written.
    target.on_write(0, Answer::Hold);
    std::thread::scope(|scope| {
        let crashing = scope
            .spawn(|| stranger.exec(&["/bin/sh", "-c", "cd /fuse; /bin/uids 200000 200 nowait"]));
        assert!(target.wait_held(LONG));
        let mut most = 0;
        while !crashing.is_finished() {
            // Each waiting helper has a crashed process, which counts for the container.
            let writers = helpers().into_iter().filter(|pid| {
                fs::read_to_string(format!("/proc/{pid}/status"))
                    .is_ok_and(|text| text.contains("NoNewPrivs:\t1"))
            });
            most = most.max(writers.count());
            // It takes samples and waits for nothing.
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(most <= 6, "{most} writers: six of eight places are not the host's own");
        let (pid, _) = crash(&calm, "0:0", "", &["/bin/crasher", "null"]);
        assert_eq!(names(volume.path()), [format!("core.{pid}")]);
        target.go_on();
    });
    host.settle();
    stranger.remove();
    calm.remove();
    host.restore_sysctls();
}

/// The crashes that a container sends to the earlier handler leave slots for the host's own.
#[test]
fn row_42_the_hosts_own_has_places_with_the_earlier_handler() {
    let host = scene::host();
    host.configure("[limits]\nhost_concurrent = 8\nwait = 1\n");
    let directory = TempDir::with_prefix("handler").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| directory.path().join(name);
    // Slow for the container's crashes until the gate opens.
    let script = format!(
        "#!/bin/sh\necho $1 >>{}\nwhile [ $1 -ge 100000 ] && [ ! -e {} ]; do sleep 0.05; done\n",
        at("log").display(),
        at("go").display()
    );
    fs::write(at("handler"), script).unwrap();
    fs::set_permissions(at("handler"), fs::Permissions::from_mode(0o755)).unwrap();
    host.set("kernel/core_pattern", &format!("|{} %u", at("handler").display()));
    let runtime = Runtime::new(Kind::Runc);
    let (calm_bundle, _volume) = bundle();
    let calm = runtime.start(&calm_bundle, "calm");
    let stranger_bundle = stranger(None);
    let stranger = runtime.start(&stranger_bundle, "stranger");
    let seen = |is: fn(&str) -> bool| {
        fs::read_to_string(at("log")).unwrap_or_default().lines().filter(|l| is(l)).count()
    };
    std::thread::scope(|scope| {
        let crashing = scope.spawn(|| stranger.exec(&["/bin/uids", "100000", "30", "nowait"]));
        wait_for("six in the handler's hands", LONG, || seen(|l| l.starts_with("100")) >= 6);
        let script = "ulimit -c unlimited; kill -SEGV $$";
        Command::new("sh").args(["-c", script]).status().unwrap();
        assert_eq!(seen(|l| l == "0"), 1, "the host's own crash was skipped");
        assert_eq!(seen(|l| l.starts_with("100")), 6);
        fs::write(at("go"), "").unwrap();
        crashing.join().unwrap();
    });
    host.settle();
    stranger.remove();
    calm.remove();
    host.restore_sysctls();
}

/// Two engines, or two namespaces of one engine, can have containers with the same ID.
#[test]
fn row_53_the_same_id_twice() {
    let host = scene::host();
    let (one, two) = (Runtime::new(Kind::Runc), Runtime::new(Kind::Runc));
    let (mut first_bundle, mut second_bundle) = (in_the_store(), in_the_store());
    for bundle in [&mut first_bundle, &mut second_bundle] {
        bundle.hook("createRuntime", Path::new("/bin/true"), &["true"]);
    }
    let store: PathBuf = Path::new(STORE).join("containers/web");
    let first = one.start(&first_bundle, "web");
    let (before, _) = crash(&first, "0:0", "", &["/bin/crasher", "null"]);
    let second = two.start(&second_bundle, "web");
    assert!(
        !second.exec(&["/bin/sh", "-c", "ls /pod/data/dump/core*"]).status.success(),
        "the second one sees the first one's cores"
    );
    assert_ne!(second.sh("cat /proc/sys/kernel/core_pattern").trim(), ECI_PATTERN);
    crash(&second, "0:0", "", &["/bin/crasher", "null"]);
    second.remove();
    let (after, _) = crash(&first, "0:0", "", &["/bin/crasher", "null"]);
    let mut wanted = [before, after].map(|pid| format!("core-eci.{pid}"));
    wanted.sort();
    assert_eq!(names(&store), wanted, "the first one lost its cores to the second");
    host.settle();
    assert_eq!(outcome(&host, "web"), ["written", "written"]);
    first.remove();

    // A container that requires its core pattern does not start.
    let first = one.start(&first_bundle, "web");
    second_bundle.annotation("oci-coredump/required", "true");
    let refused = two.try_create(&second_bundle, "web").map(|c| c.id().to_owned());
    assert!(refused.as_ref().is_err_and(|log| log.contains("runs already")), "{refused:?}");
    assert_eq!(first.sh("cat /proc/sys/kernel/core_pattern").trim(), ECI_PATTERN);
}
