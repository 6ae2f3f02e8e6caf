//! Early release: the core shows the process as it was when it died, whatever happens to its
//! threads, its memory and its container in the meantime.

use crate::memory;
use crate::template::{
    Core, Lane, Stage, Template, Way, assert_same, inaccessible_is_given, unlimited,
};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use support::bare;
use support::bundle::Bundle;
use support::fuse::{Answer, Fuse};
use support::host::{BINARY, Host};
use support::require;
use support::runtime::{Kind, Runtime};

fn stage(name: &'static str) -> Stage {
    Stage::new(name, "allow_early_release = true\n", &[("oci-coredump/release", "early")])
}

fn released(core: &Core) -> bool {
    let record = core.record.as_ref().unwrap();
    let at = |key: &str| record[key].as_str().map(str::to_owned);
    assert!(at("released_at") <= at("completed_at"), "{record}");
    at("released_at").is_some()
}

/// The kernel's core, and one that was released early if `early`.
fn judge(stage: &Stage, kind: &str, way: Way, (early, lane): (bool, Lane)) {
    let mut template = Template::start(&stage.container, kind, "100");
    let [kernel, ours] =
        [Way::Kernel, way].map(|way| stage.core(&mut template, way, unlimited).unwrap());
    assert_same(&kernel, &ours, &format!("{kind}, {way:?}"));
    assert_eq!((released(&ours), ours.lane()), (early, lane), "{kind}, {way:?}: {:?}", ours.record);
}

#[test]
fn what_the_end_of_the_threads_changes() {
    let stage = stage("ends");
    let doctor = std::process::Command::new(BINARY).arg("doctor").output().unwrap();
    assert!(
        String::from_utf8_lossy(&doctor.stdout).contains("counts as nobody's"),
        "doctor does not say what it costs: {doctor:?}"
    );
    judge(&stage, "robust", Way::Project, (true, Lane::Fast));
    judge(&stage, "threads", Way::Project, (true, Lane::Fast));
}

// In memory the core would be charged to no one, so there the process waits.
support::cases!(kinds_of_memory:
    shared_to_disk("shared", "/var/tmp", true),
    inaccessible_to_disk("inaccessible", "/var/tmp", true),
    transparent_to_disk("transparent", "/var/tmp", true),
    shared_to_memory("shared", "/dev/shm", false),
    inaccessible_to_memory("inaccessible", "/dev/shm", false),
    transparent_to_memory("transparent", "/dev/shm", false),
);

fn kinds_of_memory(kind: &str, place: &str, released: bool) {
    let stage = Stage::below(
        place,
        "kinds",
        "allow_early_release = true\n",
        &[("oci-coredump/release", "early")],
    );
    let expected = if kind == "inaccessible" && !inaccessible_is_given() {
        (false, Lane::Stream)
    } else {
        (released, Lane::Fast)
    };
    judge(&stage, kind, Way::Project, expected);
}

/// If its memory cannot be pinned, is shared with its parent, or cannot all be read in time,
/// the process waits as usual.
#[test]
fn no_release_without_a_hold() {
    let stage = stage("hold");
    judge(&stage, "shared", Way::Without("u"), (false, Lane::Fast));
    judge(&stage, "shared", Way::Without("t"), (false, Lane::Stream));
    judge(&stage, "shared", Way::Stream, (false, Lane::Stream));
    judge(&stage, "sharer", Way::Project, (false, Lane::Fast));
    judge(&stage, "never-filled", Way::Project, (false, Lane::Stream));
}

/// A living process changes memory that it shares with the dead one.
#[test]
fn memory_that_others_change() {
    let stage = stage("changed");
    let file = stage.directory.path().join("writer");
    let mut template = Template::start(&stage.container, "changed", file.to_str().unwrap());
    let kernel = stage.core(&mut template, Way::Kernel, unlimited).unwrap();
    let writer = Writer(
        std::fs::read_to_string(&file).unwrap().parse().ok().and_then(Pid::from_raw).unwrap(),
    );
    stage.set(Way::Project);
    let pid = template.copy();
    unlimited(pid);
    template.end();
    writer.start();
    let record = stage.complete(pid);
    assert!(record["released_at"].is_string(), "{record}");
    let core = stage.directory.path().join("core.1");
    let ours =
        Core { bytes: std::fs::read(core).unwrap(), blocks: 0, sent: 0, record: Some(record) };
    assert_same(&kernel, &ours, "changed");
}

struct Writer(Pid);

impl Writer {
    fn start(&self) {
        kill_process(self.0, Signal::USR1).unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// MiB of memory of the victim.
const LARGE: usize = 64;

/// After this many bytes the process has been released: before, at most 4 MiB of small areas and
/// the mapped files are copied.
const RELEASED: u64 = 16 << 20;

/// The process is released, its container ends and is deleted, and the core is completed
/// only then, on the volume.
#[test]
fn a_container_that_is_removed_meanwhile() {
    if !require::programs(&["runc"]) {
        return;
    }
    let host = Host::take();
    let binary = host.install();
    host.configure("allow_early_release = true\n");
    let (volume, runtime) = (Fuse::mount(), Runtime::new(Kind::Runc));
    let mut bundle = Bundle::new();
    bundle.rootfs().put(&bare::victim(), "/bin/victim");
    bundle
        .args(&["/bin/victim", "random", &LARGE.to_string()])
        .bind(volume.path(), "/dump")
        .coredump_hooks(&binary);
    bundle
        .annotation("oci-coredump/pattern", "/dump/core")
        .annotation("oci-coredump/release", "early");
    bundle.write();
    let mut container = runtime.command();
    container
        .arg("run")
        .arg("--bundle")
        .arg(bundle.path())
        .arg("removed")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut container = container.spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(container.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    // The volume does not answer, so that the core cannot be complete before the container is gone.
    volume.on_write(RELEASED, Answer::Hold);
    container.stdin.take().unwrap().write_all(b"x").unwrap();
    assert!(
        volume.wait_held(crate::PATIENCE),
        "nothing was written: {:?}, {:?}",
        host.records(),
        volume.names()
    );
    let status = container.wait().unwrap();
    assert!(
        !runtime
            .command()
            .args(["state", "removed"])
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success(),
        "runc still knows it ({status})"
    );
    drop(bundle);
    assert_eq!(host.records_of("removed")[0]["outcome"], "started");
    volume.go_on();

    host.settle();
    let record = host.records_of("removed").pop().unwrap();
    assert_eq!(record["outcome"], "written", "{record}");
    assert!(
        record["released_at"].as_str().unwrap() < record["completed_at"].as_str().unwrap(),
        "{record}"
    );
    let core = volume.file("core.1");
    assert_eq!(record["host_path"], core.to_str().unwrap(), "{record}");
    assert!(memory(&core) == filled(LARGE << 20), "not the victim's memory");
}

/// What `victim random` fills its memory with.
fn filled(bytes: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut all = Vec::with_capacity(bytes);
    while all.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend(state.to_ne_bytes());
    }
    all
}
