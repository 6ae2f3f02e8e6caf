//! File systems made to mislead a writer that runs as root: in the container when it crashes, at
//! the name of the target, and under the hook when a container starts.
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tempfile::TempDir;

use support::core_file::{self, owner_and_mode};
use support::fixture::{bundle, crash, names, tree};
use support::host::{RUN, STORE};
use support::runtime::{Kind, Runtime};
use support::scene::{self, ECI};

/// A directory of the host that everybody may write to, with a file in it.
fn lure() -> TempDir {
    let lure = TempDir::with_prefix("lure").unwrap();
    fs::set_permissions(lure.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(lure.path().join("kept"), "kept").unwrap();
    lure
}

/// After the container's start, its dump directory becomes a link to a directory of the host, in
/// every way that a container can name one.
#[test]
fn row_03_crafted_file_system() {
    let host = scene::host();
    host.configure("core_uses_pid = false\n");
    let lure = lure();
    let before = tree(lure.path());
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, _volume) = bundle();
    let data = bundle.rootfs().host_path("/data");
    fs::create_dir_all(&data).unwrap();
    // Not empty, so that nothing is mounted there and the container can replace it.
    fs::write(data.join("kept"), "kept").unwrap();
    bundle.annotation(ECI, "/data/core");
    let container = runtime.start(&bundle, "crafted");
    container.sh("mv /data /old");
    let there = lure.path().display();
    let ways = [
        format!("{there}"),
        format!("../../../../../..{there}"),
        format!("/proc/1/root{there}"),
        format!("/proc/self/root{there}"),
        format!("/proc/self/cwd{there}"),
    ];
    for way in ways {
        container.sh(&format!("rm -f /data; ln -s {way} /data"));
        crash(&container, "0:0", "", &["/bin/crasher", "null"]);
        assert_eq!(tree(lure.path()), before, "{way}");
    }
    let records = host.records_of("crafted");
    assert!(
        records.len() == 5
            && records
                .iter()
                .all(|record| record["outcome"] == "none" && record["core_path"].is_null()),
        "{records:#?}"
    );
}

/// The pattern names a directory that exists on the host too. The crash is of a process with
/// another root, of a set-user-ID program, whose core the kernel itself would write below the
/// host's root, and of a process that is in the container in everything but its mounts.
#[test]
fn row_04_absolute_pattern_in_the_hosts_root() {
    let host = scene::host();
    host.set("fs/suid_dumpable", "2");
    let lure = lure();
    let before = tree(lure.path());
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, volume) = bundle();
    let inside = lure.path().display().to_string();
    bundle.annotation(ECI, &format!("{inside}/core")).bind(volume.path(), &inside);
    let program = bundle.rootfs().host_path("/bin/suid");
    fs::copy(bundle.rootfs().host_path("/bin/crasher"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    bundle.rootfs().directory(&format!("/jail{inside}"), 0o777);
    bundle.rootfs().put(support::crasher::crasher(), "/jail/bin/crasher");
    let container = runtime.start(&bundle, "absolute");
    let (pid, _) = crash(&container, "0:0", "", &["/bin/crasher", "null"]);
    assert_eq!(names(volume.path()), [format!("core.{pid}")]);
    let (jailed, _) = crash(&container, "0:0", "--chroot /jail", &["/bin/crasher", "null"]);
    assert_eq!(
        names(&bundle.rootfs().host_path("/jail").join(inside.trim_start_matches('/'))),
        [format!("core.{jailed}")]
    );
    let (roots, _) = crash(&container, "1000:1000", "", &["/bin/suid", "null"]);
    let of = |pid: i32| format!("core.{pid}");
    let mut both = [of(pid), of(roots)];
    both.sort();
    assert_eq!(names(volume.path()), both);
    assert_eq!(owner_and_mode(&volume.path().join(of(roots))), (0, 1000, 0o600));
    assert_eq!(tree(lure.path()), before);
    assert_eq!(host.records_of("absolute").len(), 3);
    // For a process in the host's mount namespace the pattern would name a directory of the host:
    // its crash goes to the earlier handler.
    let elsewhere = TempDir::with_prefix("elsewhere").unwrap();
    let mut guest = Command::new("nsenter");
    guest
        .args(["--pid", "--target", &container.pid().to_string()])
        .arg(support::crasher::parent())
        .args(["--core", "unlimited", "--"]);
    let output = guest
        .arg(support::crasher::crasher())
        .arg("null")
        .current_dir(elsewhere.path())
        .output()
        .unwrap();
    let (_, status) = support::scene::ended(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(status & 0x7f, Signal::SIGSEGV as i32, "{output:?}");
    assert_eq!(tree(lure.path()), before);
    assert_eq!(host.records_of("absolute").len(), 3);
}

/// Something exists at the name of the target: another user's file is not overwritten, a FIFO is
/// not waited for, a device is not opened. The core is a new file, or there is none.
#[test]
fn row_05_something_at_the_targets_name() {
    let host = scene::host();
    host.configure("core_uses_pid = false\n");
    let runtime = Runtime::new(Kind::Runc);
    let (bundle, volume) = bundle();
    let container = runtime.start(&bundle, "occupied");
    let core = volume.path().join("core");
    let secret = volume.path().join("secret");
    let mut listener = None;
    for what in
        ["symlink", "dangling symlink", "hard link", "FIFO", "device", "socket", "directory"]
    {
        fs::write(&secret, "secret").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o666)).unwrap();
        match what {
            "symlink" => symlink("/dump/secret", &core).unwrap(),
            "dangling symlink" => symlink("/dump/made", &core).unwrap(),
            "hard link" => fs::hard_link(&secret, &core).unwrap(),
            "FIFO" => nix::unistd::mkfifo(&core, Mode::from_bits_truncate(0o666)).unwrap(),
            "device" => {
                mknod(&core, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3))
                    .unwrap()
            }
            "socket" => listener = Some(UnixListener::bind(&core).unwrap()),
            _ => fs::create_dir(&core).unwrap(),
        }
        crash(&container, "0:0", "", &["/bin/crasher", "null"]);
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret", "{what}");
        assert!(!volume.path().join("made").exists(), "{what}: a file was made through the link");
        let records = host.records_of("occupied");
        if what == "directory" {
            assert_eq!(names(&core), [] as [&str; 0]);
            assert_eq!(records[0]["outcome"], "none", "{records:#?}");
            fs::remove_dir(&core).unwrap();
        } else {
            assert!(
                core.symlink_metadata().unwrap().file_type().is_file(),
                "{what}: {:?}",
                core.symlink_metadata().unwrap().file_type().is_fifo()
            );
            assert_eq!(owner_and_mode(&core), (0, 0, 0o600), "{what}");
            core_file::read(&core);
            assert_eq!(records[0]["outcome"], "written", "{what}: {records:#?}");
            fs::remove_file(&core).unwrap();
        }
        fs::remove_dir_all(Path::new(STORE).join("records")).unwrap();
    }
    drop(listener);
}

/// The root file system of the image has a link to a directory of the host in place of the dump
/// directory, which then switches between a link and a directory while containers start. Nothing is
/// made or mounted outside of the root file system.
#[test]
fn row_20_symlink_under_the_hook() {
    let _host = scene::host();
    let lure = lure();
    let before = tree(lure.path());
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let runtime = Runtime::new(Kind::Runc);
    let there = lure.path().display();
    for way in
        [format!("{there}"), format!("../../../../../..{there}"), format!("/proc/1/root{there}")]
    {
        let (mut bundle, _volume) = bundle();
        bundle.rootfs().directory(&there.to_string(), 0o755);
        symlink(&way, bundle.rootfs().host_path("/links")).unwrap();
        // A directory is to be made there, and the host's store mounted on it.
        bundle.annotation(ECI, "/links/made/core");
        let mounts_before = mounts();
        let container = runtime.start(&bundle, "links");
        crash(&container, "0:0", "", &["/bin/crasher", "null"]);
        assert_eq!(tree(lure.path()), before, "{way}");
        assert_eq!(mounts(), mounts_before, "{way}");
        container.remove();
    }
    let stored = Path::new(STORE).join("containers/links");
    assert!(!names(&stored).is_empty(), "the container's own directory of that name was not found");
    let (mut bundle, _volume) = bundle();
    bundle.annotation(ECI, "/races/dump/core");
    let races = bundle.rootfs().host_path("/races");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let _ = fs::create_dir_all(races.join("dump"));
                let _ = fs::remove_dir_all(&races);
                let _ = symlink(lure.path(), &races);
                let _ = fs::remove_file(&races);
            }
        });
        for _ in 0..10 {
            if let Ok(container) = runtime.try_create(&bundle, "races") {
                container.remove();
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(tree(lure.path()), before);
    assert!(!mounts().contains(&there.to_string()), "{}", mounts());
}

/// Every file that this project makes is below its own directories, which only root may enter, so
/// that nobody can create a file of that name first.
#[test]
fn row_21_temporary_files() {
    let host = scene::host();
    let shared = ["/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/run/user"];
    let ours = || -> Vec<String> {
        let all = shared
            .iter()
            .filter(|directory| Path::new(directory).exists())
            .flat_map(|directory| names(Path::new(directory)));
        all.filter(|name| name.contains("coredump")).collect()
    };
    let before = ours();
    let runtime = Runtime::new(Kind::Runc);
    let (bundle, _volume) = bundle();
    // An engine without any umask.
    let mut create = Command::new("sh");
    bundle.write();
    let command = format!(
        "umask 0; exec {} --root {} run --detach --bundle {} temporary >/dev/null 2>&1",
        runtime.program().display(),
        state(&runtime),
        bundle.path().display()
    );
    assert!(create.args(["-c", &command]).status().unwrap().success());
    let pid = fs::read_to_string(Path::new(RUN).join("containers/temporary.json")).unwrap();
    assert!(pid.contains("\"pattern\""));
    let ended = runtime.output(runtime.command().args([
        "exec",
        "temporary",
        "/bin/parent",
        "--core",
        "unlimited",
        "--",
        "/bin/crasher",
        "null",
    ]));
    assert!(ended.status.success(), "{ended:?}");
    for (path, (mode, uid, _, _)) in tree(Path::new(RUN)).into_iter().chain(tree(Path::new(STORE)))
    {
        let view = path.parent().is_some_and(|parent| parent == Path::new(RUN).join("views"));
        assert!(
            uid == 0 && (mode & 0o077 == 0 || (view && mode & 0o7777 == 0o444)),
            "{path:?}: {mode:o}, user {uid}"
        );
    }
    assert_eq!(ours(), before);
    assert_eq!(host.records_of("temporary").len(), 1);
    runtime.output(runtime.command().args(["delete", "--force", "temporary"]));
}

fn state(runtime: &Runtime) -> String {
    let command = runtime.command();
    command.get_args().nth(1).unwrap().to_str().unwrap().to_owned()
}
