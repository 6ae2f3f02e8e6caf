//! State that the helper reads and keeps besides cores: full, damaged,
//! unreadable, or from another time.
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use crate::disks::Tmpfs;
use crate::witness::{BOUND, Calm, is_whole, settled};
use support::bare::{self, Container};
use support::between::Between;
use support::fixture::{bundle, crash, names};
use support::host::{CONFIG, Host, RUN, STORE};
use support::runtime::{Kind, Runtime};
use support::scene::{self, only_record};
use support::wait::ends_within;

/// A small file system over one of the project's directories, until drop.
struct Small(&'static str);

impl Small {
    fn over(path: &'static str, bytes: u64) -> Self {
        fs::create_dir_all(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        Tmpfs::over(path.as_ref(), bytes, 0o700);
        Self(path)
    }

    /// Uses up all space that is left.
    fn fill(&self) {
        let all = std::iter::repeat_n(0u8, 16 << 20).collect::<Vec<_>>();
        assert!(
            fs::write(Path::new(self.0).join("ballast"), all).is_err(),
            "{} is not small",
            self.0
        );
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// There is no room for another registration: its container starts (or does not, if it requires the
/// pattern), and registered containers keep their cores.
#[test]
fn run_directory_full() {
    let host = scene::host();
    let small = Small::over(RUN, 256 << 10);
    let runtime = Runtime::new(Kind::Runc);
    let (first, volume) = bundle();
    let first = runtime.start(&first, "first");
    small.fill();
    let (second, _second_volume) = bundle();
    let second = runtime.start(&second, "second");
    assert_eq!(second.status(), "running");
    let (mut third, _third_volume) = bundle();
    third.annotation("oci-coredump/required", "true");
    assert!(
        runtime.try_create(&third, "third").is_err(),
        "a container that insists was started without"
    );
    let (pid, _) = crash(&first, "0:0", "", &["/bin/crasher", "null"]);
    assert_eq!(names(volume.path()), [format!("core.{pid}")]);
    assert_eq!(only_record(&host, "first")["outcome"], "written");
    crash(&second, "0:0", "", &["/bin/crasher", "null"]);
    second.remove();
    first.remove();
    drop(small);
}

/// There is no room for records: the core is written all the same, and the log has what
/// the record would have said.
#[test]
fn store_full() {
    let host = scene::host();
    let small = Small::over(STORE, 256 << 10);
    let directory = TempDir::new().unwrap();
    let container = Container::new("full", directory.path(), &[]);
    small.fill();
    let mut victim = container.victim(&bare::victim(), "tiny", 0);
    victim.crash();
    assert!(victim.ends_within(BOUND));
    assert!(is_whole(&fs::read(victim.core()).unwrap()));
    assert!(host.records().is_empty());
    let left = names(&Path::new(STORE).join("records"));
    assert_eq!(left, [] as [&str; 0], "half a record");
}

/// A registration that is truncated or is something else: its container's crash is reported as
/// such, and other containers are not affected.
#[test]
fn registration_damaged() {
    let host = scene::host();
    let directory = TempDir::new().unwrap();
    let calm = Calm::new();
    let program = bare::victim();
    let container = Container::new("damaged", directory.path(), &[]);
    let entry = Path::new(RUN).join("containers/damaged.json");
    let good = fs::read(&entry).unwrap();
    let mut many = good[..good.len() / 2].to_vec();
    many.resize(100 << 10, b' ');
    let damages = [
        ("cut off", good[..good.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("garbage", vec![0xff; 300]),
        ("another type", b"[1,2]".to_vec()),
        ("too long", many),
    ];
    for (what, bytes) in damages {
        // Overwritten in place, since its index keys are hard links.
        fs::write(&entry, bytes).unwrap();
        let mut victim = container.victim(&program, "tiny", 0);
        victim.crash();
        assert!(victim.ends_within(BOUND), "{what}");
        calm.crash(&host, what);
        let record = settled(&host, "damaged", victim.pid());
        assert_eq!(record["outcome"], "none", "{what}: {record:#}");
        assert!(
            record["reason"].as_str().unwrap().contains("registration is damaged"),
            "{what}: {record:#}"
        );
        assert_eq!(names(directory.path()), ["not-empty"], "{what}");
    }
    // The end of another container removes it with all of its index keys.
    let mut hook = scene::product(&["hook", "poststop"]).stdin(Stdio::piped()).spawn().unwrap();
    hook.stdin
        .take()
        .unwrap()
        .write_all(br#"{"ociVersion":"1.0.2","id":"gone","status":"stopped","bundle":"/"}"#)
        .unwrap();
    assert!(hook.wait().unwrap().success());
    assert_eq!(names(&Path::new(RUN).join("containers")), ["calm.json"]);
    let index = Path::new(RUN).join("index");
    let entries: Vec<_> = names(&index)
        .into_iter()
        .map(|name| fs::read_to_string(index.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}")))
        .collect();
    assert!(
        !entries.is_empty() && entries.iter().all(|text| text.contains("\"calm\"")),
        "{entries:?}"
    );
    drop(container);
}

/// An unreadable configuration does not cost a core: the defaults apply.
#[test]
fn configuration_unreadable() {
    let host = scene::host();
    let directory = TempDir::new().unwrap();
    let container = Container::new("configured", directory.path(), &[]);
    let program = bare::victim();
    let crashes = |host: &Host, what: &str| {
        let mut victim = container.victim(&program, "tiny", 0);
        victim.crash();
        assert!(victim.ends_within(BOUND), "{what}");
        assert!(is_whole(&fs::read(victim.core()).unwrap()), "{what}");
        assert_eq!(settled(host, "configured", victim.pid())["outcome"], "written", "{what}");
    };
    for (what, text) in [
        ("garbage", "\u{0}\u{1}]["),
        ("a word that nobody knows", "mode = \"both\"\n"),
        ("cut off", "store = \"/var/li"),
    ] {
        host.configure(text);
        crashes(&host, what);
    }
    fs::write(CONFIG, [0xff, 0xfe]).unwrap();
    crashes(&host, "not UTF-8");
    fs::remove_file(CONFIG).unwrap();
    fs::create_dir(CONFIG).unwrap();
    crashes(&host, "a directory");
    fs::remove_dir(CONFIG).unwrap();
    fs::write(CONFIG, vec![b'#'; 2 << 20]).unwrap();
    crashes(&host, "too large");
}

/// The host's clock jumps: to the epoch, before it, far ahead, and back to the same second. The
/// helper only knows the time of the crash that the kernel passes, which is wrong here.
/// Time-outs use the monotonic clock.
#[test]
fn clock_jumps() {
    let host = scene::host();
    let directory = TempDir::new().unwrap();
    let container = Container::new("clock", directory.path(), &[]);
    let calm = Calm::new();
    let program = bare::victim();
    let script = "t=$(cat ${0%/*}/t)\n\
                  exec $helper \"$1\" \"$2\" \"$3\" \"$4\" \"$5\" \"$6\" \"$7\" \"$8\" \"$9\" \
                  \"${10}\" \"$t\" \"${12}\" \"${13}\" \"${14}\" \"${15}\" \"${16}\" \"${17}\" \
                  \"${18}\"";
    let between = Between::new(&host, script);
    let times = [
        "0",
        "-1",
        "253402300800",
        "9223372036854775807",
        "1700000000",
        "1700000000",
        "1699999999",
    ];
    for time in times {
        fs::write(between.path().join("t"), time).unwrap();
        let mut victim = container.victim(&program, "tiny", 0);
        victim.crash();
        assert!(victim.ends_within(BOUND), "{time}");
        assert!(is_whole(&fs::read(victim.core()).unwrap()), "{time}");
        assert_eq!(settled(&host, "clock", victim.pid())["outcome"], "written", "{time}");
    }
    assert_eq!(host.records_of("clock").len(), times.len(), "one took another one's place");
    drop(between);
    calm.crash(&host, "afterwards");
}

/// The store's disk is frozen, as for a snapshot. A core that goes elsewhere does not wait for it,
/// nor does a crash of the host. What the record would have said is in the log.
#[test]
fn store_frozen() {
    let host = scene::host();
    let disk = TempDir::with_prefix_in("disk", "/var/tmp").unwrap();
    let (image, mounted) = (disk.path().join("image"), disk.path().join("mounted"));
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    fs::create_dir(&mounted).unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    run(Command::new("mkfs.ext4").args(["-q", "-m0"]).arg(&image));
    run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted));
    let _unmount = Last(|| {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&mounted).output();
        let _ = Command::new("umount").arg("--lazy").arg(&mounted).output();
    });
    host.configure(&format!("store = {:?}\n", mounted.join("store").to_str().unwrap()));
    let directory = TempDir::new().unwrap();
    let container = Container::new("elsewhere", directory.path(), &[]);
    let program = bare::victim();
    let mut victim = container.victim(&program, "tiny", 0);
    victim.crash();
    assert!(victim.ends_within(BOUND));
    host.settle();

    run(Command::new("fsfreeze").arg("--freeze").arg(&mounted));
    let mut victim = container.victim(&program, "tiny", 0);
    victim.crash();
    let let_go = victim.ends_within(BOUND);
    let scratch = TempDir::new().unwrap();
    let mut own = Command::new("sh");
    own.args(["-c", "ulimit -c unlimited; kill -SEGV $$"]).current_dir(scratch.path());
    let mut own = own.spawn().unwrap();
    let own_ended = ends_within(&mut own, BOUND).is_some();
    run(Command::new("fsfreeze").arg("--unfreeze").arg(&mounted));
    own.wait().unwrap();
    assert!(let_go, "the crashed process waits for the store");
    assert!(own_ended, "the host's own crash waits for the store");
    assert!(is_whole(&fs::read(victim.core()).unwrap()));
    host.settle();
}

/// Runs a function at the end of the scope.
struct Last<F: Fn()>(F);

impl<F: Fn()> Drop for Last<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
