//! Directories that a specifier of the pattern names: made in the store, not on volumes, where it
//! is as with the kernel, unless the administrator wants it.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use tempfile::TempDir;

use support::core_file::{self, owner_and_mode};
use support::fixture::store_of;
use support::host::Host;
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, bundle, crash, ended, host, only_record, product};

support::per_runtime!(in_the_store, on_a_volume, a_directory_of_the_patterns_name);

const PATTERN: &str = "/cores/%e/%s/core";

/// By any user of the container, also where another one was the first.
fn in_the_store(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let id = format!("made-{}", kind.name());
    let mut bundle = bundle();
    bundle.annotation(ECI, PATTERN);
    let container = runtime.start(&bundle, &id);
    let (first, _) = crash(|script| container.sh(script), "segv");
    let output = container.exec_with(&["--user", "1000:1000"], &["/bin/victim", "wait", "segv"]);
    let (second, _) = ended(&String::from_utf8(output.stdout).unwrap());
    let seen = container.sh("ls -d /cores/victim/11");
    assert_eq!(seen, "/cores/victim/11\n");
    host.settle();
    for (pid, owner) in [(first, 0), (second, 1000)] {
        let core = store_of(&id).join(format!("victim/11/core.{pid}"));
        assert_eq!(core_file::read(&core).tid, pid);
        assert_eq!(owner_and_mode(&core), (owner, owner, 0o600));
        let record = host.records_of(&id).into_iter().find(|r| r["pid"] == pid).unwrap();
        assert_eq!(record["host_path"], core.to_str().unwrap(), "{record:#}");
        assert_eq!(record["location"], "store", "{record:#}");
    }
    let made = store_of(&id).join("victim");
    assert_eq!(made.metadata().unwrap().permissions().mode() & 0o7777, 0o1777);
    container.remove();
    assert!(product(&["vacuum", "--keep", "0"]).status().unwrap().success());
    assert!(!store_of(&id).exists(), "empty directories are left in the store");
}

fn on_a_volume(kind: Kind) {
    for (choice, made) in [("store", false), ("nowhere", false), ("anywhere", true)] {
        let host = Host::installed(&format!("make_directories = \"{choice}\"\n"));
        let runtime = Runtime::new(kind);
        let id = format!("volume-{choice}-{}", kind.name());
        let volume = TempDir::new().unwrap();
        fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let mut bundle = bundle();
        bundle.annotation(ECI, PATTERN).bind(volume.path(), "/cores");
        let container = runtime.start(&bundle, &id);
        let output =
            container.exec_with(&["--user", "1000:1000"], &["/bin/victim", "wait", "segv"]);
        let (pid, _) = ended(&String::from_utf8(output.stdout).unwrap());
        container.remove();
        host.settle();
        let record = only_record(&host, &id);
        let core = volume.path().join(format!("victim/11/core.{pid}"));
        assert_eq!(core.exists(), made, "{choice}: {record:#}");
        if made {
            assert_eq!(volume.path().join("victim").metadata().unwrap().uid(), 1000);
            assert_eq!(record["host_path"], core.to_str().unwrap());
        } else {
            assert_eq!(record["cause"], "directory-missing", "{choice}: {record:#}");
        }
    }
}

/// As with the kernel the core is beside it; `plan` and `doctor` say so.
fn a_directory_of_the_patterns_name(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    let id = format!("directory-{}", kind.name());
    let mut bundle = bundle();
    fs::create_dir_all(bundle.rootfs().host_path("/srv/cores")).unwrap();
    bundle.annotation(ECI, "/srv/cores");
    bundle.write();
    let told = product(&["plan", bundle.path().to_str().unwrap()]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("\"/srv/cores\" is a directory"), "{told}");
    let container = runtime.start(&bundle, &id);
    let told = product(&["doctor"]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("\"/srv/cores\" is a directory"), "{told}");
    let (pid, _) = crash(|script| container.sh(script), "segv");
    container.remove();
    let record = only_record(&host, &id);
    assert_eq!(record["core_path"], format!("/srv/cores.{pid}"), "{record:#}");
}
