//! Real daemons that are started as root and give up its rights without exec.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use support::core_bytes::whole;
use support::core_file::owner_and_mode;
use support::podman::Podman;
use support::require;
use support::runtime::Kind;
use support::scene::{fill, hooks, host, only_record};
use tempfile::TempDir;

/// memcached, `-u` another user, under `fs.suid_dumpable = 2`,
/// which systemd sets: its core is for the container's root.
#[test]
fn memcached_that_gave_up_roots_rights() {
    if !require::programs(&["podman", "runc", "memcached"]) {
        return;
    }
    let host = host();
    host.set("fs/suid_dumpable", "2");
    let found = Command::new("which").arg("memcached").output().unwrap();
    let memcached = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
    let podman = Podman::new(Kind::Runc, |rootfs| {
        fill(rootfs);
        rootfs.put_dynamic(&memcached, "/usr/bin/memcached");
        fs::create_dir_all(rootfs.host_path("/etc")).unwrap();
        let users = "root:x:0:0::/:/bin/sh\nmemcache:x:1007:1007::/:/bin/sh\n";
        fs::write(rootfs.host_path("/etc/passwd"), users).unwrap();
    });
    hooks(&podman);
    let volume = TempDir::with_prefix("volume").unwrap();
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let mount = format!("{}:/dump", volume.path().display());
    let options = ["--annotation", "oci-coredump/pattern=/dump/core", "--volume", &mount];
    // As the first process it would not take the signal.
    let script = "/usr/bin/memcached -u memcache -m 8 -s /tmp/socket & echo $! >/pid; wait";
    let id = podman.start("cache", &options, &["/bin/sh", "-c", script]);
    // The socket is made before the rights are given up.
    let uid = "grep -s ^Uid /proc/$(cat /pid)/status || true";
    support::wait::wait_for("that memcached is another user's", support::fixture::LONG, || {
        podman.sh("cache", uid).contains("1007\t1007")
    });
    let pid = podman.sh("cache", "cat /pid; kill -SEGV $(cat /pid)");
    podman.verb(&["wait", "cache"]);
    let core = volume.path().join(format!("core.{}", pid.trim()));
    assert_eq!(owner_and_mode(&core), (0, 1007, 0o600), "{:#?}", host.records());
    assert!(whole(&fs::read(&core).unwrap()));
    let record = only_record(&host, &id);
    assert_eq!((&record["outcome"], &record["dump_mode"]), (&"written".into(), &2.into()));
    assert_eq!(record["comm"], "memcached");
}
