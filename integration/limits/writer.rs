//! The process that writes a core has the credentials of the crashed process and nothing more.
//! Examined in /proc while its target blocks it.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use support::bare::{self, Container};
use support::bundle::Bundle;
use support::fuse::{Answer, Fuse};
use support::host::{BINARY, Host};
use support::processes;
use support::require;
use support::runtime::{Kind, Runtime};
use support::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for the one process for which `is` is true.
fn find(what: &str, is: impl Fn(&str) -> bool) -> String {
    wait_for(what, PATIENCE, || {
        let mut found: Vec<_> = processes::all().map(|pid| pid.to_string()).collect();
        found.retain(|pid| is(pid));
        if found.len() == 1 { found.pop() } else { None }
    })
}

fn read(pid: &str, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

fn field(pid: &str, name: &str) -> String {
    processes::field(pid, name).unwrap_or_else(|| panic!("no {name} of {pid}"))
}

/// The child of the helper that the kernel has started, which does not write records.
fn is_writer(pid: &str) -> bool {
    let is_helper = |pid: i32| processes::helpers().contains(&pid);
    let parent = processes::field(pid, "PPid").and_then(|pid| pid.parse().ok());
    pid.parse().is_ok_and(is_helper) && parent.is_some_and(is_helper)
}

/// The target of a magic link: device and inode.
fn place(pid: &str, link: &str) -> (u64, u64) {
    let meta = fs::metadata(format!("/proc/{pid}/{link}"))
        .unwrap_or_else(|e| panic!("/proc/{pid}/{link}: {e}"));
    (meta.dev(), meta.ino())
}

/// The descriptors, by what they are.
fn descriptors(pid: &str) -> Vec<String> {
    let name = |link: String| match link.split_once(':') {
        Some((kind, _)) => kind.to_owned(),
        None => link,
    };
    let mut all: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|e| fs::read_link(e.unwrap().path()).ok())
        .map(|link| name(link.to_string_lossy().replace(|c: char| c.is_ascii_digit(), "")))
        .collect();
    all.sort();
    all
}

/// Writes a core of a victim in a container that `prepare` sets up, to a target that accepts some
/// data and then blocks, and examines the writer.
fn while_it_writes(name: &str, prepare: impl FnOnce(&mut Bundle)) {
    if !require::programs(&["runc"]) {
        return;
    }
    let host = Host::installed("");
    // What a process becomes that changes its IDs: one that its new user may look into.
    host.set("fs/suid_dumpable", "1");
    let target = Fuse::mount();
    target.on_write(4 << 20, Answer::Hold);
    let mut bundle = Bundle::new();
    bundle.rootfs().put(&bare::victim(), "/bin/victim");
    bundle
        .coredump_hooks(Path::new(BINARY))
        .bind(target.path(), "/cores")
        .annotation("oci-coredump/pattern", "/cores/core")
        .shell("echo x | victim random 100; sleep 100");
    prepare(&mut bundle);
    let runtime = Runtime::new(Kind::Runc);
    let container = runtime.start(&bundle, name);
    assert!(target.wait_held(PATIENCE), "{name}: no core came");
    let crasher = find("the crasher", |pid| {
        read(pid, "status").contains("\nCoreDumping:\t1") && read(pid, "comm") == "victim\n"
    });
    let writer = find("the writer", is_writer);

    let credentials = ["Uid", "Gid", "Groups", "CapPrm", "CapEff", "Umask"];
    let mut tasks = 0;
    for task in fs::read_dir(format!("/proc/{writer}/task")).unwrap() {
        let task = format!("{writer}/task/{}", task.unwrap().file_name().display());
        for key in credentials {
            assert_eq!(
                field(&task, key),
                field(&crasher, key),
                "{name}: {key} of {task}, and of the crasher"
            );
        }
        for (key, value) in [
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("CapInh", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
        ] {
            assert_eq!(field(&task, key), value, "{name}: {key} of {task}");
        }
        tasks += 1;
    }
    assert!(tasks > 1, "{name}: the fast lane was not taken");
    for link in ["root", "cwd", "ns/user"] {
        assert_eq!(place(&writer, link), place(&crasher, link), "{name}: {link}");
    }
    assert_eq!(read(&writer, "environ"), "", "{name}: environment");
    let limits = read(&writer, "limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("1"), "{name}: {core}");
    let memory = fs::metadata(format!("/proc/{writer}/mem")).unwrap();
    assert_eq!(
        (memory.uid(), memory.gid()),
        (0, 0),
        "{name}: the writer is dumpable: its own user may read its memory"
    );
    // The kernel's pipe and the report, standard output and error, the process to copy, the
    // slot, the file and its directory. Its cores go to a volume, for which they count
    // under a name that is a hash.
    let account = fs::read_dir("/run/oci-coredump/limits").unwrap().find_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.starts_with(".volume-").then_some(name)
    });
    let slot = format!("/run/oci-coredump/limits/{}/slot-", account.unwrap())
        .replace(|c: char| c.is_ascii_digit(), "");
    let mut expected = [
        "/cores",
        "/cores/core.",
        "/dev/null",
        "/dev/null",
        "/proc//task//mem",
        "/proc//task//pagemap",
        &slot,
        "anon_inode",
        "pipe",
        "pipe",
    ]
    .map(str::to_owned);
    expected.sort();
    assert_eq!(descriptors(&writer), expected, "{name}: open descriptors");

    target.go_on();
    container.remove();
}

/// Before it has opened its file it has no filter yet, but already nothing of the helper's.
#[test]
fn before_it_has_its_file() {
    let _host = Host::installed("");
    let target = Fuse::mount();
    let container = Container::new("early", target.path(), &[]);
    target.hold_create();
    let mut victim = container.victim(&bare::victim(), "tiny", 0);
    victim.crash();
    assert!(target.wait_held(PATIENCE), "no file is made");
    let writer = find("the writer", is_writer);
    for (key, value) in
        [("NoNewPrivs", "1"), ("CapInh", "0000000000000000"), ("CapAmb", "0000000000000000")]
    {
        assert_eq!(field(&writer, key), value, "{key}");
    }
    target.go_on();
    assert!(victim.ends_within(PATIENCE));
}

#[test]
fn for_root_with_some_capabilities() {
    while_it_writes("writer-root", |bundle| {
        bundle.capabilities(&["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    });
}

#[test]
fn for_a_user() {
    while_it_writes("writer-user", |bundle| {
        bundle.user(1000, 1000);
        bundle.config["process"]["user"]["additionalGids"] = serde_json::json!([4, 24]);
        bundle.config["process"]["user"]["umask"] = serde_json::json!(0o27);
    });
}

#[test]
fn in_a_user_namespace() {
    while_it_writes("writer-userns", |bundle| {
        bundle.user_namespace();
    });
}
