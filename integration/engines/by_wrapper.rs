//! The runtime wrapper: over each runtime, under `ctr` and under Docker.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::containerd::Containerd;
use super::docker::Docker;
use super::enabled;
use super::suite::Suite;
use support::bundle::Bundle;
use support::crasher::crasher;
use support::host::{BINARY, Host};
use support::photo::Photo;
use support::product::{core_of, doctor_says, host, product};
use support::runtime::{Kind, Runtime};

/// The wrapper's link, where `make install` puts it; gone on drop.
struct Link(PathBuf);

impl Link {
    fn make() -> Self {
        let path = Path::new(BINARY).with_file_name("oci-coredump-runtime");
        std::os::unix::fs::symlink("oci-coredump", &path).unwrap();
        Self(path)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

support::cases!(over_every_runtime: runc(Kind::Runc), crun(Kind::Crun), youki(Kind::Youki));

/// The wrapper itself, over each runtime: the same answers as the real one's, and a core.
fn over_every_runtime(kind: Kind) {
    if !support::require::programs(&[kind.name()]) {
        return;
    }
    let host = host();
    let link = Link::make();
    // youki prints its features in another order each time.
    let lines = |text: &[u8]| -> BTreeSet<String> {
        String::from_utf8_lossy(text)
            .lines()
            .map(|line| line.trim_end_matches(',').to_owned())
            .collect()
    };
    let runtime = Runtime::new(kind);
    host.configure(&format!("runtime = {:?}\n", runtime.program()));
    // The real one's command line, with the wrapper in its place.
    let wrapper = |args: &[&str]| {
        let real = runtime.command();
        runtime.output(Command::new(&link.0).args(real.get_args()).args(args))
    };
    let real = |args: &[&str]| runtime.output(runtime.command().args(args));
    for args in [
        &["--version"][..],
        &["features"],
        &["state", "none"],
        &["run"],
        &["create", "--bundle", "/nowhere", "none"],
        &["delete", "none"],
    ] {
        let (ours, theirs) = (wrapper(args), real(args));
        assert_eq!(ours.status.code(), theirs.status.code(), "{} {args:?}", kind.name());
        assert_eq!(lines(&ours.stdout), lines(&theirs.stdout), "{} {args:?}", kind.name());
    }

    let mut bundle = Bundle::new();
    bundle.rootfs().put(crasher(), "/bin/crasher");
    // What a program inherits is the same. SigQ counts the signals of all processes of the user.
    bundle.shell(
        "umask; ulimit -a; grep -E '^(Sig[^Q]|Shd|NoNewPrivs|Seccomp)' /proc/self/status; ls \
         /proc/self/fd; cat /proc/self/oom_score_adj",
    );
    bundle.write();
    let path = bundle.path().to_str().unwrap().to_owned();
    let inherits = ["run", "--bundle", &path, "inherits"];
    let (ours, theirs) = (wrapper(&inherits), real(&inherits));
    assert_eq!(
        String::from_utf8_lossy(&ours.stdout),
        String::from_utf8_lossy(&theirs.stdout),
        "{}",
        kind.name()
    );
    assert!(theirs.stdout.starts_with(b"0022\n"), "{theirs:?}");

    bundle.shell("/bin/crasher null; exit 7");
    // A container that requests nothing: not a byte of config.json changes.
    let before = std::fs::read(bundle.write()).unwrap();
    let id = format!("silent-{}", kind.name());
    assert_eq!(wrapper(&["run", "--bundle", &path, &id]).status.code(), Some(7), "{}", kind.name());
    assert_eq!(std::fs::read(bundle.path().join("config.json")).unwrap(), before);
    assert!(host.records_of(&id).is_empty());
    // A file that cannot be edited is left to the real runtime.
    std::fs::write(bundle.path().join("config.json"), "{\"annotations\": 5").unwrap();
    let (ours, theirs) =
        (wrapper(&["run", "--bundle", &path, &id]), real(&["run", "--bundle", &path, &id]));
    assert!(
        !ours.status.success() && ours.status.code() == theirs.status.code(),
        "{}",
        kind.name()
    );

    bundle.annotation("oci-coredump/pattern", "/dump/core");
    bundle.write();
    let id = format!("asks-{}", kind.name());
    assert_eq!(wrapper(&["run", "--bundle", &path, &id]).status.code(), Some(7), "{}", kind.name());
    assert_eq!(core_of(&host, &id)["pattern"], "/dump/core");
    assert!(
        std::fs::read_dir(bundle.path()).unwrap().all(|entry| !entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains(".new"))
    );
}

const SH: [&str; 2] = ["/bin/sh", "-c"];

fn under_ctr(suite: Suite, version: u32) {
    if !suite.has(&["containerd", "ctr", "containerd-shim-runc-v2"]) {
        return;
    }
    let host: Host = host();
    let link = Link::make();
    let mut containerd = Containerd::prepare(suite, version, false);
    containerd.start();
    let before = Photo::take(&[]);

    containerd.ctr_run(
        "asks",
        &link.0,
        &["--annotation", "k8s.aliyun.com/eci-core-pattern=/dump/core-eci"],
    );
    containerd.ctr_run(
        "limited",
        &link.0,
        &[
            "--annotation",
            "oci-coredump/pattern=/dump/core",
            "--annotation",
            "oci-coredump/limit=0",
        ],
    );
    containerd.ctr_run("silent", &link.0, &[]);
    let exec = |id: &str, script: &str| {
        containerd.try_ctr(&["task", "exec", "--exec-id", "x", id, SH[0], SH[1], script])
    };
    let said = |id: &str, script: &str| String::from_utf8(exec(id, script).stdout).unwrap();
    // The daemon's own soft limit is 0, and an exec is its grandchild.
    assert_eq!(
        said("asks", "ulimit -Sc; cat /proc/sys/kernel/core_pattern"),
        "unlimited\n/dump/core-eci\n"
    );
    assert_eq!(said("limited", "ulimit -Sc"), "0\n");
    assert_eq!(said("limited", "ulimit -Hc"), said("silent", "ulimit -Hc"));
    assert_eq!(said("silent", "ulimit -Sc; ls -d /dump || echo none"), "0\nnone\n");
    let bundle = |id: &str| {
        std::fs::read_to_string(
            containerd
                .file(&format!("state/io.containerd.runtime.v2.task/k8s.io/{id}/config.json")),
        )
        .unwrap()
    };
    assert!(bundle("asks").contains(BINARY) && !bundle("silent").contains("oci-coredump"));

    exec("asks", "/bin/crasher null");
    assert_eq!(core_of(&host, "asks")["pattern"], "/dump/core-eci");
    exec("limited", "/bin/crasher null");
    let record = host.records_of("limited").pop().unwrap();
    assert_eq!(record["outcome"], "none", "{record}");
    exec("silent", "/bin/crasher null");
    assert!(host.records_of("silent").is_empty());
    enabled(&host, "silent", "silent", containerd.ctr_command(&[]), || {
        drop(exec("silent", "/bin/crasher null"))
    });
    assert_eq!(said("silent", "ls -d /enabled || echo none"), "none\n");

    for id in ["asks", "limited", "silent"] {
        containerd.ctr(&["task", "rm", "--force", id]);
        containerd.ctr(&["container", "rm", id]);
    }
    product(&["uninstall", "--purge"]);
    before.assert_unchanged(&[]);
}

#[test]
fn ctr_of_containerd_1_6() {
    under_ctr(Suite::Machine, 2);
}

#[test]
fn ctr_of_containerd_2() {
    under_ctr(Suite::Sid, 3);
}

fn under_docker(suite: Suite) {
    if !suite.has(&["dockerd", "docker", "containerd"]) {
        return;
    }
    let host = host();
    let mut docker = Docker::start(suite);
    let config = docker.config();
    let before = Photo::take(&[&config]);

    let said = product(&["install", "docker", "--config", config.to_str().unwrap(), "--dry-run"]);
    assert!(said.contains("default-runtime"), "{said}");
    before.assert_unchanged(&[&config]);
    doctor_says("docker", &config, "warning", "does not name the runtime");
    product(&["install", "docker", "--config", config.to_str().unwrap()]);
    docker.reload("oci-coredump");
    doctor_says("docker", &config, "ok", "by the default runtime oci-coredump");

    let run = |name: &str, options: &[&str]| {
        let mut args = vec!["run", "--detach", "--network=none", "--name", name];
        args.extend(options);
        args.extend([support::image::IMAGE, "/bin/sleep", "1000"]);
        docker.docker(&args).trim().to_owned()
    };
    let asks = run("asks", &["--annotation", "k8s.aliyun.com/eci-core-pattern=/dump/core-eci"]);
    let silent = run("silent", &[]);
    let said = |name: &str, script: &str| docker.docker(&["exec", name, SH[0], SH[1], script]);
    assert_eq!(
        said("asks", "ulimit -Sc; cat /proc/sys/kernel/core_pattern"),
        "unlimited\n/dump/core-eci\n"
    );
    assert_eq!(said("silent", "ls -d /dump || echo none"), "none\n");
    let crash =
        |name: &str| docker.try_docker(&["exec", name, "/bin/crasher", "null"]).status.code();
    assert_eq!((crash("asks"), crash("silent")), (Some(139), Some(139)));
    let record = core_of(&host, &asks);
    assert_eq!(
        ["pattern", "container_name", "image"].map(|key| record[key].as_str().unwrap_or_default()),
        ["/dump/core-eci", "asks", support::image::IMAGE],
        "{record:#}"
    );
    assert!(host.records_of(&silent).is_empty());
    enabled(&host, &silent, "silent", docker.command(&[]), || {
        assert_eq!(crash("silent"), Some(139))
    });
    assert_eq!(said("silent", "ls -d /enabled || echo none"), "none\n");
    // A refusal that the container insists on reaches whoever started it.
    let refused = docker.try_docker(&[
        "run",
        "--annotation=oci-coredump/pattern=|sh",
        "--annotation=oci-coredump/required=true",
        support::image::IMAGE,
        "true",
    ]);
    assert!(!refused.status.success(), "{refused:?}");

    docker.docker(&["rm", "--force", "asks", "silent"]);
    assert!(product(&["uninstall", "--purge"]).contains("restart docker"));
    docker.restart();
    assert_eq!(docker.docker(&["info", "--format", "{{.DefaultRuntime}}"]), "runc\n");
    docker.docker(&["run", "--rm", "--network=none", support::image::IMAGE, "true"]);
    before.assert_unchanged(&[&config]);
}

#[test]
fn docker_26() {
    under_docker(Suite::Trixie);
}

#[test]
fn docker_28() {
    under_docker(Suite::Sid);
}
