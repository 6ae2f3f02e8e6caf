//! The runtime wrapper, under `ctr` and under Docker.
use std::path::{Path, PathBuf};

use super::containerd::Containerd;
use super::docker::Docker;
use super::photo::Photo;
use super::suite::Suite;
use super::{core_of, host, product};
use crate::support::host::{BINARY, Host};

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

    containerd.ctr_run("asks", &link.0, &["--annotation", "k8s.aliyun.com/eci-core-pattern=/dump/core-eci"]);
    containerd.ctr_run("limited", &link.0, &["--annotation", "oci-coredump/pattern=/dump/core", "--annotation", "oci-coredump/limit=0"]);
    containerd.ctr_run("silent", &link.0, &[]);
    let exec = |id: &str, script: &str| containerd.try_ctr(&["task", "exec", "--exec-id", "x", id, SH[0], SH[1], script]);
    let said = |id: &str, script: &str| String::from_utf8(exec(id, script).stdout).unwrap();
    // The daemon's own soft limit is 0, and an exec is its grandchild.
    assert_eq!(said("asks", "ulimit -Sc; cat /proc/sys/kernel/core_pattern"), "unlimited\n/dump/core-eci\n");
    assert_eq!(said("limited", "ulimit -Sc"), "0\n");
    assert_eq!(said("silent", "ulimit -Sc; ls -d /dump || echo none"), "0\nnone\n");
    let bundle = |id: &str| std::fs::read_to_string(containerd.file(&format!("state/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"))).unwrap();
    assert!(bundle("asks").contains(BINARY) && !bundle("silent").contains("oci-coredump"));

    exec("asks", "/bin/crasher null");
    assert_eq!(core_of(&host, "asks")["pattern"], "/dump/core-eci");
    exec("limited", "/bin/crasher null");
    let record = host.records_of("limited").pop().unwrap();
    assert_eq!(record["outcome"], "none", "{record}");
    exec("silent", "/bin/crasher null");
    assert!(host.records_of("silent").is_empty());

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
    product(&["install", "docker", "--config", config.to_str().unwrap()]);
    docker.reload("oci-coredump");

    let run = |name: &str, options: &[&str]| {
        let mut args = vec!["run", "--detach", "--network=none", "--name", name];
        args.extend(options);
        args.extend([super::image::IMAGE, "/bin/sleep", "1000"]);
        docker.docker(&args).trim().to_owned()
    };
    let asks = run("asks", &["--annotation", "k8s.aliyun.com/eci-core-pattern=/dump/core-eci"]);
    let silent = run("silent", &[]);
    let said = |name: &str, script: &str| docker.docker(&["exec", name, SH[0], SH[1], script]);
    assert_eq!(said("asks", "ulimit -Sc; cat /proc/sys/kernel/core_pattern"), "unlimited\n/dump/core-eci\n");
    assert_eq!(said("silent", "ls -d /dump || echo none"), "none\n");
    let crash = |name: &str| docker.try_docker(&["exec", name, "/bin/crasher", "null"]).status.code();
    assert_eq!((crash("asks"), crash("silent")), (Some(139), Some(139)));
    assert_eq!(core_of(&host, &asks)["pattern"], "/dump/core-eci");
    assert!(host.records_of(&silent).is_empty());
    // A refusal that the container insists on reaches whoever started it.
    let refused = docker.try_docker(&["run", "--annotation=oci-coredump/pattern=|sh", "--annotation=oci-coredump/required=true", super::image::IMAGE, "true"]);
    assert!(!refused.status.success(), "{refused:?}");

    docker.docker(&["rm", "--force", "asks", "silent"]);
    assert!(product(&["uninstall", "--purge"]).contains("restart docker"));
    docker.restart();
    assert_eq!(docker.docker(&["info", "--format", "{{.DefaultRuntime}}"]), "runc\n");
    docker.docker(&["run", "--rm", "--network=none", super::image::IMAGE, "true"]);
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
