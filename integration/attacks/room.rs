//! The host's disk: the space that must stay free, what counts for a container, and
//! what is removed to make room.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, umount2};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use support::bundle::DEFAULT_CAPABILITIES;
use support::crasher::compile;
use support::fixture::{bundle, crash, in_the_store, names, store_of};
use support::host::{Host, RUN, STORE};
use support::runtime::{Container, Kind, Runtime};
use support::scene::{self, ECI, product};

const MIB: u64 = 1 << 20;

/// A file system on a disk of the test's own, which everybody may write.
struct Disk {
    directory: TempDir,
    mounted: PathBuf,
}

impl Disk {
    fn new(size: u64, options: &[&str]) -> Self {
        let directory = TempDir::with_prefix_in("disk", "/var/tmp").unwrap();
        let (image, mounted) = (directory.path().join("image"), directory.path().join("mounted"));
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        fs::create_dir(&mounted).unwrap();
        let run = |command: &mut Command| {
            assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{command:?}");
        };
        run(Command::new("mkfs.ext4").args(["-q", "-m0"]).args(options).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted));
        fs::set_permissions(&mounted, fs::Permissions::from_mode(0o1777)).unwrap();
        Self { directory, mounted }
    }

    /// Bytes that are free.
    fn free(&self) -> u64 {
        let s = statvfs(&self.mounted).unwrap();
        s.blocks_available() * s.fragment_size()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(cause) = umount2(&self.mounted, MntFlags::MNT_DETACH) {
            eprintln!("umount {:?} in {:?}: {cause}", self.mounted, self.directory);
        }
    }
}

fn crashes(container: &Container<'_>, script: &str) {
    container.exec(&["/bin/sh", "-c", &format!("ulimit -c unlimited; {script}; true")]);
}

/// Every dump saw the same free space before its first byte, and together they used all of it.
#[test]
fn row_43_many_at_a_time_leave_what_must_stay_free() {
    const FLOOR: u64 = 200 * MIB;
    let host = scene::host();
    host.configure("[limits]\nmin_free = \"200Mi\"\n");
    let disk = Disk::new(400 * MIB, &[]);
    let runtime = Runtime::new(Kind::Runc);
    for (id, compress) in [("many", false), ("compressed", true)] {
        let mut bundle = in_the_store();
        bundle.annotation(ECI, "/dump/core").bind(&disk.mounted, "/dump");
        if compress {
            bundle.annotation("oci-coredump/compress", "zstd");
        }
        let container = runtime.start(&bundle, id);
        crashes(
            &container,
            "for i in 1 2 3 4 5 6 7 8 9 10; do /bin/crasher --fill 60 null & done; wait",
        );
        host.settle();
        // Each of ten dumps may be a few MiB ahead of the space that it has seen.
        assert!(disk.free() > FLOOR - 60 * MIB, "{id}: {} MiB are free", disk.free() / MIB);
        let records = host.records_of(id);
        assert_eq!(records.len(), 10, "{id}");
        if !compress {
            let by_limit = |r: &&serde_json::Value| r["limit"] == "min_free = 200Mi";
            assert!(records.iter().filter(by_limit).count() >= 5, "{records:#?}");
        }
        container.remove();
        names(&disk.mounted)
            .iter()
            .filter(|name| name.starts_with("core"))
            .for_each(|name| fs::remove_file(disk.mounted.join(name)).unwrap());
    }
}

/// A core of one page takes an inode like a large one.
#[test]
fn row_43_inodes_stay_free() {
    let host = scene::host();
    let disk = Disk::new(64 * MIB, &["-N", "512"]);
    host.configure("[limits]\nmin_free = \"20%\"\n");
    let runtime = Runtime::new(Kind::Runc);
    let mut bundle = in_the_store();
    bundle.annotation(ECI, "/dump/core").bind(&disk.mounted, "/dump");
    bundle.annotation("oci-coredump/limit", "8K");
    let container = runtime.start(&bundle, "small");
    crashes(&container, "for i in $(seq 500); do /bin/crasher null; done 2>/dev/null");
    host.settle();
    let s = statvfs(&disk.mounted).unwrap();
    assert!(s.files_available() >= s.files() / 5 - 16, "{} of {}", s.files_available(), s.files());
    let records = host.records_of("small");
    let by_limit = |r: &&serde_json::Value| r["limit"] == "min_free = 20%";
    assert!(records.iter().any(|r| by_limit(&r)), "{records:#?}");
}

/// From a mount namespace with another mount over the directory no core was visible: the cores were
/// forgotten, and the container could have any number.
#[test]
fn row_44_cores_are_not_forgotten_from_elsewhere() {
    let host = scene::host();
    host.configure("[limits]\ncores = 2\n");
    let runtime = Runtime::new(Kind::Runc);
    let mut bundle = in_the_store();
    let mut capabilities = DEFAULT_CAPABILITIES.to_vec();
    capabilities.push("CAP_SYS_ADMIN");
    bundle.capabilities(&capabilities);
    let container = runtime.start(&bundle, "forgets");
    for _ in 0..4 {
        crashes(&container, "/bin/crasher null; /bin/crasher null");
        host.settle();
        assert_eq!(names(&store_of("forgets")).len(), 2);
        crashes(
            &container,
            "unshare -m sh -c 'mount -t tmpfs none /pod/data/dump; /bin/crasher null; true'",
        );
        host.settle();
        assert!(names(&store_of("forgets")).len() <= 2, "{:?}", names(&store_of("forgets")));
    }
}

/// The host may remove everything in its own store: another user's old core,
/// and one of an earlier start.
#[test]
fn row_44_the_host_removes_what_is_in_its_store() {
    let host = scene::host();
    host.configure("[limits]\ncores = 2\n");
    let runtime = Runtime::new(Kind::Runc);
    let bundle = in_the_store();
    let container = runtime.start(&bundle, "users");
    let mut last = Vec::new();
    for user in ["0:0", "1000:1000", "1001:1001", "0:0", "1000:1000"] {
        let (pid, _) = crash(&container, user, "", &["/bin/crasher", "null"]);
        host.settle();
        last.push(format!("core-eci.{pid}"));
    }
    let mut wanted = last.split_off(3);
    wanted.sort();
    assert_eq!(names(&store_of("users")), wanted);
}

const MAPS: &str = r#"
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int fd = open(argv[i], O_RDONLY);
		if (fd < 0)
			return 3;
		if (mmap(0, 65536, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED)
			return 4;
	}
	kill(getpid(), SIGSEGV);
	return 0;
}
"#;

/// Names and paths chosen by the container made a record too large to be read: the crash was not
/// listed, and its core in the store belonged to no crash.
#[test]
fn row_47_no_record_is_too_large_to_be_read() {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let mut bundle = in_the_store();
    bundle.annotation("io.kubernetes.cri.image-name", &"x".repeat(64_000));
    bundle.rootfs().put(&compile("maps", MAPS, &[]), "/bin/maps");
    let container = runtime.start(&bundle, "large");
    // Paths of nearly 4 KiB, of bytes that are escaped.
    let deep = "n=$(printf 'é%.0s' $(seq 100)); m=$(printf '\\001%.0s' $(seq 200)); cd /tmp";
    container.sh(&format!(
        "{deep}; for i in $(seq 19); do mkdir \"$n\"; cd -P \"$n\"; done; \
         for i in $(seq 14); do cp /bin/maps ./m$i; done; \
         cd /tmp; for i in $(seq 19); do mkdir \"$m\"; cd -P \"$m\"; done; cp /bin/maps ./c"
    ));
    crashes(
        &container,
        &format!(
            "{deep}; for i in $(seq 19); do cd -P \"$m\"; done; exec 9<./c; \
             cd /tmp; for i in $(seq 19); do cd -P \"$n\"; done; \
             /proc/self/fd/9 m1 m2 m3 m4 m5 m6 m7 m8 m9 m10 m11 m12 m13 m14"
        ),
    );
    host.settle();
    assert_eq!(names(&store_of("large")).len(), 1);
    let listed = product(&["list", "--json"]).output().unwrap();
    assert!(listed.stderr.is_empty(), "{}", String::from_utf8_lossy(&listed.stderr));
    assert_eq!(host.records_of("large").len(), 1);
    container.remove();
    assert!(product(&["vacuum", "--keep", "0"]).output().unwrap().status.success());
    assert!(!store_of("large").exists(), "{:?}", names(&store_of("large")));
}

/// vacuum counts and removes a core of a container that is gone and whose record
/// is damaged or was removed.
#[test]
fn row_47_cores_without_a_record() {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let bundle = in_the_store();
    for id in ["gone", "running"] {
        let container = runtime.start(&bundle, id);
        crash(&container, "0:0", "", &["/bin/crasher", "null"]);
        host.settle();
        if id == "gone" {
            container.remove();
            continue;
        }
        for entry in fs::read_dir(Path::new(STORE).join("records")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        // Old enough not to be work in progress.
        for id in ["gone", "running"] {
            for name in names(&store_of(id)) {
                let file = fs::File::options().write(true).open(store_of(id).join(name)).unwrap();
                file.set_modified(
                    std::time::SystemTime::now() - std::time::Duration::from_secs(7200),
                )
                .unwrap();
            }
        }
        assert!(product(&["vacuum", "--max-size", "0"]).output().unwrap().status.success());
        assert!(!store_of("gone").exists(), "{:?}", names(&store_of("gone")));
        assert_eq!(names(&store_of("running")).len(), 1, "of a container that runs");
    }
}

/// A container that crashes very often displaced the cores of all others.
#[test]
fn row_51_vacuum_takes_from_who_has_most() {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let few_bundle = in_the_store();
    let few = runtime.start(&few_bundle, "few");
    for _ in 0..2 {
        crash(&few, "0:0", "", &["/bin/crasher", "null"]);
    }
    host.settle();
    let (many_bundle, _volume) = bundle();
    let many = runtime.start(&many_bundle, "many");
    crashes(&many, "for i in $(seq 12); do /bin/crasher null; done 2>/dev/null");
    host.settle();
    assert!(product(&["vacuum", "--keep", "10"]).output().unwrap().status.success());
    assert_eq!((names(&store_of("few")).len(), host.records_of("few").len()), (2, 2));
    assert_eq!(host.records_of("many").len(), 8);
}

/// A handler that records which user's crash it received.
struct Handler(TempDir);

impl Handler {
    fn before_ours(host: &Host) -> Self {
        let directory = TempDir::with_prefix("handler").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let script = directory.path().join("h");
        fs::write(&script, format!("#!/bin/sh\necho $1 >>{}/log\n", directory.path().display()))
            .unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let handler = Self(directory);
        host.set("kernel/core_pattern", &handler.pattern());
        handler
    }

    fn pattern(&self) -> String {
        format!("|{}/h %u", self.0.path().display())
    }

    /// Whether a crash of the host reaches it.
    fn gets_one(&self, host: &Host) -> bool {
        let seen =
            || fs::read_to_string(self.0.path().join("log")).map_or(0, |t| t.lines().count());
        let before = seen();
        let script = "ulimit -c unlimited; kill -SEGV $$";
        Command::new("sh").args(["-c", script]).current_dir(&self.0).status().unwrap();
        host.settle();
        seen() == before + 1
    }
}

/// The store is moved, or is on a full disk: the earlier handler is still known.
#[test]
fn row_52_the_earlier_handler_outlives_the_store() {
    let host = scene::host();
    let handler = Handler::before_ours(&host);
    let runtime = Runtime::new(Kind::Runc);
    let (bundle, _volume) = bundle();
    let container = runtime.start(&bundle, "calm");
    assert!(handler.gets_one(&host));
    let other = TempDir::with_prefix("other").unwrap();
    host.configure(&format!("store = \"{}/store\"\n", other.path().display()));
    assert!(handler.gets_one(&host), "with another store");
    let (another_bundle, _another_volume) = self::bundle();
    let another = runtime.start(&another_bundle, "another");
    assert!(handler.gets_one(&host), "after the next start");
    another.remove();
    fs::remove_dir_all(other.path().join("store")).unwrap();
    assert!(handler.gets_one(&host), "without a store");
    container.remove();
    scene::uninstall();
    assert_eq!(host.sysctl("kernel/core_pattern"), handler.pattern());
    assert!(!Path::new(RUN).exists());
    host.restore_sysctls();
}

/// The list of removed cores was longer than the writer could report, and each crash hung.
#[test]
fn row_44_many_cores_that_have_gone() {
    let host = scene::host();
    host.configure("[limits]\nbytes = \"10Gi\"\n");
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, volume) = bundle();
    bundle.annotation("oci-coredump/limit", "8K");
    let container = runtime.start(&bundle, "forgotten");
    crashes(&container, "for i in $(seq 900); do /bin/crasher null; done 2>/dev/null");
    host.settle();
    let all = names(volume.path());
    assert_eq!(all.len(), 900);
    all.iter().for_each(|name| fs::remove_file(volume.path().join(name)).unwrap());
    let (pid, _) = crash(&container, "0:0", "", &["/bin/crasher", "null"]);
    host.settle();
    assert_eq!(names(volume.path()), [format!("core.{pid}")]);
    let record = host.records_of("forgotten").into_iter().find(|r| r["pid"] == pid).unwrap();
    assert!(record["reason"].as_str().unwrap_or_default().contains("RLIMIT_CORE"), "{record:#}");
}

/// The store names the program that root starts, so only root may own it.
#[test]
fn row_55_a_store_that_is_not_roots() {
    let host = scene::host();
    let handler = Handler::before_ours(&host);
    let directory = TempDir::with_prefix_in("theirs", "/var/tmp").unwrap();
    std::os::unix::fs::chown(directory.path(), Some(4321), Some(4321)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| directory.path().join(name);
    let ran = at("ran");
    fs::write(at("evil"), format!("#!/bin/sh\n: >{}\n", ran.display())).unwrap();
    fs::set_permissions(at("evil"), fs::Permissions::from_mode(0o755)).unwrap();
    // Made by the user beforehand, or in a directory of the user's.
    for (store, is_there) in [(at("store"), true), (at("other"), false)] {
        host.configure(&format!("store = {:?}\n", store.to_str().unwrap()));
        if is_there {
            fs::create_dir(&store).unwrap();
            let text = serde_json::json!({
                "core_pattern": format!("|{}", at("evil").display()), "core_uses_pid": 0,
                "core_pipe_limit": 0, "owners": [], "ours": host.sysctl("kernel/core_pattern"),
            });
            for name in ["sysctl.json", "sysctl.json.copy"] {
                fs::write(store.join(name), text.to_string()).unwrap();
                std::os::unix::fs::chown(store.join(name), Some(4321), Some(4321)).unwrap();
            }
            std::os::unix::fs::chown(&store, Some(4321), Some(4321)).unwrap();
        }
        let output = product(&["install"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("4321"), "{said}");
        assert_eq!(host.sysctl("kernel/core_pattern"), handler.pattern());
    }
    // The configuration changes while the product is installed.
    host.configure("");
    assert!(product(&["install"]).status().unwrap().success());
    host.configure(&format!("store = {:?}\n", at("store").to_str().unwrap()));
    assert!(handler.gets_one(&host));
    assert!(!ran.exists(), "root has run the user's program");
    host.configure("");
    scene::uninstall();
    assert_eq!(host.sysctl("kernel/core_pattern"), handler.pattern());
    host.restore_sysctls();
}

/// `store` may be a directory that also contains other files.
#[test]
fn row_55_purge_takes_only_what_is_ours() {
    let host = scene::host();
    let directory = TempDir::with_prefix_in("shared", "/var/tmp").unwrap();
    fs::create_dir(directory.path().join("other")).unwrap();
    fs::write(directory.path().join("other/precious"), "").unwrap();
    host.configure(&format!("store = {:?}\n", directory.path().to_str().unwrap()));
    let runtime = Runtime::new(Kind::Runc);
    let bundle = in_the_store();
    let container = runtime.start(&bundle, "ours");
    crash(&container, "0:0", "", &["/bin/crasher", "null"]);
    host.settle();
    container.remove();
    assert_eq!(names(&directory.path().join("containers/ours")).len(), 1);
    let output = product(&["uninstall", "--purge"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(names(directory.path()), ["other"]);
    assert!(directory.path().join("other/precious").exists());
}
