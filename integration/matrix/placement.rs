//! Where a core lands: the container's own volume, the host's store, or the container's own
//! layer; and who can use it.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use support::bundle::USERNS_BASE;
use support::core_file::{self, Crashed, owner_and_mode};
use support::host::STORE;
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, bundle, crash, ended, host, only_record};

support::per_runtime!(
    below_a_volume,
    a_directory_with_something_in_it,
    an_empty_directory,
    a_read_only_root,
    a_user_namespace,
    a_relative_pattern,
    nothing_on_the_host,
    a_volume_in_memory,
    a_privileged_container,
    the_pid_namespace_of_the_host,
    a_nested_root
);

fn store(id: &str) -> PathBuf {
    Path::new(STORE).join("containers").join(id)
}

/// A directory on a volume which is not there yet is made there, usable by
/// every user of the container.
fn below_a_volume(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let volume = TempDir::new().unwrap();
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut bundle = bundle();
    bundle.annotation(ECI, "/data/dump/new/core").bind(volume.path(), "/data");
    let container = runtime.start(&bundle, "volume");
    let directory = volume.path().join("dump/new");
    assert_eq!(directory.metadata().unwrap().mode() & 0o7777, 0o1777);
    let output = container.exec_with(&["--user", "1000:1000"], &["/bin/victim", "wait", "segv"]);
    let (pid, _) = ended(&String::from_utf8(output.stdout).unwrap());
    container.remove();
    let core = directory.join(format!("core.{pid}"));
    assert_eq!(core_file::read(&core), Crashed { signal: 11, tid: pid });
    assert_eq!(owner_and_mode(&core), (1000, 1000, 0o600));
    assert!(
        !store("volume").exists(),
        "nothing is kept in the store for a container with a volume"
    );
    let record = only_record(&host, "volume");
    assert_eq!(record["location"], "volume", "{record:#}");
    assert_eq!(record["core_path"], format!("/data/dump/new/core.{pid}"), "{record:#}");
    fs::remove_dir_all(Path::new(STORE).join("records")).unwrap();
}

/// A directory of the image that holds something is never covered: the core goes beside it, away
/// with the container, and the record says so.
fn a_directory_with_something_in_it(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let mut bundle = bundle();
    let directory = bundle.rootfs().host_path("/srv/old");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("kept"), "kept").unwrap();
    bundle.annotation(ECI, "/srv/old/core");
    let container = runtime.start(&bundle, "full");
    let (pid, status) = crash(|script| container.sh(script), "segv");
    assert_eq!(status, 11 | 0x80);
    assert_eq!(container.sh("ls /srv/old"), format!("core.{pid}\nkept\n"));
    assert_eq!(core_file::read(&directory.join(format!("core.{pid}"))).tid, pid);
    let record = only_record(&host, "full");
    assert_eq!(record["location"], "layer", "{record:#}");
    container.remove();
    fs::remove_dir_all(Path::new(STORE).join("records")).unwrap();
}

/// An empty directory of the image is covered by the store, like a missing one.
fn an_empty_directory(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let id = format!("empty-{}", kind.name());
    let mut bundle = bundle();
    let directory = bundle.rootfs().host_path("/srv/empty");
    fs::create_dir_all(&directory).unwrap();
    bundle.annotation(ECI, "/srv/empty/core");
    let container = runtime.start(&bundle, &id);
    let (pid, _) = crash(|script| container.sh(script), "segv");
    container.remove();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    assert_eq!(core_file::read(&store(&id).join(format!("core.{pid}"))).tid, pid);
    assert_eq!(only_record(&host, &id)["location"], "store");
}

/// Under a read-only root the missing directory is still made, and the store
/// mounted on it is writable.
fn a_read_only_root(kind: Kind) {
    let _host = host();
    for relative in [false, true] {
        let runtime = Runtime::new(kind);
        let id = format!("read-only-{}-{relative}", kind.name());
        let mut bundle = bundle();
        bundle.annotation(ECI, "/pod/data/dump/core-eci").readonly_root();
        if relative {
            bundle.relative_root();
        }
        let container = runtime.start(&bundle, &id);
        assert!(!container.exec(&["touch", "/new"]).status.success(), "the root is not read-only");
        let (pid, _) = crash(|script| container.sh(script), "segv");
        container.remove();
        assert_eq!(core_file::read(&store(&id).join(format!("core-eci.{pid}"))).tid, pid);
    }
}

/// A user namespace: the container's root is nobody special on the host, and still gets
/// its cores, as does its user 1000. By the init and its child: an exec of youki 0.7 does
/// not join the user namespace.
fn a_user_namespace(kind: Kind) {
    let host = host();
    for uid in [0, 1000] {
        let runtime = Runtime::new(kind);
        let id = format!("userns-{}-{uid}", kind.name());
        let mut bundle = bundle();
        bundle.annotation(ECI, "/pod/data/dump/core-eci").user(uid, uid).user_namespace();
        bundle.shell(
            "cat /proc/sys/kernel/core_pattern; /bin/victim wait segv; stat -c %u:%g:%a \
             /pod/data/dump/*; sleep 1000",
        );
        let container = runtime.start(&bundle, &id);
        // In the container it is the crasher's own file.
        let expected = format!("{uid}:{uid}:600\n");
        let printed = container.wait_for_stdout(&expected);
        assert!(printed.starts_with("/pod/data/dump/core-eci\n"), "{printed}");
        let (pid, status) = ended(&printed);
        assert_eq!(status, 11 | 0x80);
        container.remove();
        let core = store(&id).join(format!("core-eci.{pid}"));
        assert_eq!(core_file::read(&core), Crashed { signal: 11, tid: pid });
        assert_eq!(owner_and_mode(&core), (USERNS_BASE + uid, USERNS_BASE + uid, 0o600));
        assert_eq!(only_record(&host, &id)["outcome"], "written");
    }
}

/// `core`, ECI's default: `core.PID` in the working directory of the process, as core(5) has it.
fn a_relative_pattern(kind: Kind) {
    let _host = host();
    let runtime = Runtime::new(kind);
    let mut bundle = bundle();
    bundle.annotation(ECI, "core");
    let container = runtime.start(&bundle, "relative");
    let (pid, status) = crash(|script| container.sh(&format!("cd /home/user && {script}")), "segv");
    assert_eq!(status, 11 | 0x80);
    assert_eq!(container.sh("ls /home/user"), format!("core.{pid}\n"));
}

/// An absolute pattern never means the host's directory of that name (security: attack 4).
fn nothing_on_the_host(kind: Kind) {
    let _host = host();
    let marked = TempDir::with_prefix("host-directory").unwrap();
    fs::set_permissions(marked.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let runtime = Runtime::new(kind);
    let mut bundle = bundle();
    bundle.annotation(ECI, &format!("{}/core", marked.path().display()));
    let container = runtime.start(&bundle, &format!("elsewhere-{}", kind.name()));
    let (pid, _) = crash(|script| container.sh(script), "segv");
    let listed = container.sh(&format!("ls {}", marked.path().display()));
    assert_eq!(listed, format!("core.{pid}\n"));
    container.remove();
    assert_eq!(fs::read_dir(marked.path()).unwrap().count(), 0);
}

/// A memory-backed volume: the core is there for the container to use, and the record says
/// that it goes away with it.
fn a_volume_in_memory(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let id = format!("memory-{}", kind.name());
    let mut bundle = bundle();
    bundle.annotation(ECI, "/dump/core").tmpfs("/dump", 16 << 20);
    let container = runtime.start(&bundle, &id);
    let (pid, status) = crash(|script| container.sh(script), "segv");
    assert_eq!(status, 11 | 0x80);
    assert_eq!(container.sh("ls /dump"), format!("core.{pid}\n"));
    assert_eq!(only_record(&host, &id)["location"], "memory");
}

/// A container that may write the host's sysctls must not be shown another value than it would
/// write over; its core is where it asked all the same.
fn a_privileged_container(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let id = format!("privileged-{}", kind.name());
    let mut bundle = bundle();
    bundle.annotation(ECI, "/dump/core");
    bundle.config["linux"]["readonlyPaths"] = serde_json::json!([]);
    bundle.config["linux"]["maskedPaths"] = serde_json::json!([]);
    let container = runtime.start(&bundle, &id);
    let read = container.sh("cat /proc/sys/kernel/core_pattern");
    assert_eq!(read.trim_end(), host.sysctl("kernel/core_pattern"));
    let (pid, _) = crash(|script| container.sh(script), "segv");
    container.remove();
    assert_eq!(core_file::read(&store(&id).join(format!("core.{pid}"))).tid, pid);
}

/// A container in the host's PID namespace: it is known by its mount namespace,
/// and its PIDs are the host's.
fn the_pid_namespace_of_the_host(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let id = format!("host-pid-{}", kind.name());
    let mut bundle = bundle();
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|namespace| namespace["type"] != "pid");
    bundle.annotation(ECI, "/dump/core").args(&["/bin/victim", "wait", "segv"]);
    let container = runtime.start(&bundle, &id);
    container.wait_stopped();
    let (pid, status) = ended(&container.stdout());
    assert_eq!(status, 11 | 0x80);
    container.remove();
    assert_eq!(core_file::read(&store(&id).join(format!("core.{pid}"))).tid, pid);
    assert_eq!(only_record(&host, &id)["host_pid"], pid);
}

/// Below another root in the container: the core is found where the directory is the container's
/// own all the same, else the record names that root.
fn a_nested_root(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let id = format!("nested-{}", kind.name());
    let mut bundle = bundle();
    bundle.annotation(ECI, "/dump/core");
    bundle.capabilities(&["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE"]);
    let container = runtime.start(&bundle, &id);
    let record = |crash: &str| {
        container.sh(crash);
        host.settle();
        let record = only_record(&host, &id);
        fs::remove_dir_all(Path::new(STORE).join("records")).unwrap();
        record
    };
    let make = "mkdir -p /inner/bin /inner/dump && cp /bin/victim /inner/bin/";
    let own = record(&format!("{make} && chroot /inner /bin/victim segv || true"));
    assert_eq!((own["location"].as_str(), &own["host_path"]), (Some("layer"), &Value::Null));
    let why = own["reason"].as_str().unwrap();
    assert!(why.ends_with("it is in a nested root, /inner in the container"), "{why}");

    // With a mount namespace of its own, as a container in the container has.
    let pivot = "mount --bind /inner /inner && cd /inner && mkdir -p old && pivot_root . old && \
                 exec /bin/victim segv";
    let own = record(&format!("unshare -m sh -c '{pivot}' || true"));
    let why = own["reason"].as_str().unwrap();
    assert!(why.contains("nested root, ") && why.ends_with("/inner in the container"), "{why}");

    let same = record(
        "unshare -m sh -c 'mount --bind /dump /inner/dump && chroot /inner /bin/victim segv' || \
         true",
    );
    assert_eq!(same["location"], "store", "{same:#}");
    let core = same["host_path"].as_str().unwrap();
    assert!(Path::new(core).starts_with(store(&id)), "{core}");
    assert_eq!(core_file::read(Path::new(core)).signal, 11);
}
