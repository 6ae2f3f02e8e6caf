//! Row 12: crash loops fill nothing. Each limit is reached by real crashes; asserted are the files,
//! and the limit that the record names.
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use support::bare::{self, Container};
use support::fuse::{Answer, Fuse};
use support::host::{BINARY, Host, RUN, locked};
use support::require;
use support::wait::wait_for;

const LIMITS: &str = "oci-coredump/limits";

/// Upper bound for a dump of a few pages on a busy machine.
const SOON: Duration = Duration::from_secs(20);

pub(super) fn host(limits: &str) -> Host {
    Host::installed(&format!("[limits]\n{limits}\n"))
}

pub(super) fn directory() -> TempDir {
    TempDir::with_prefix_in("quota", "/var/tmp").unwrap()
}

/// Crashes a process of the container. Returns where its core would be, and the record.
fn crash(
    host: &Host,
    name: &str,
    container: &Container,
    kind: &str,
    size: usize,
) -> (PathBuf, Value) {
    let mut victim = container.victim(&bare::victim(), kind, size);
    let pid = victim.pid();
    victim.crash();
    assert!(
        victim.ends_within(SOON + Duration::from_secs(40)),
        "{name}: the crashed process is pinned"
    );
    let record = host.record_of(name, pid);
    (victim.core().to_owned(), record.unwrap_or_else(|| panic!("{name}: a crash without a record")))
}

pub(super) fn tiny(host: &Host, name: &str, container: &Container) -> (PathBuf, Value) {
    crash(host, name, container, "tiny", 0)
}

fn assert_written(crash: &(PathBuf, Value)) {
    assert_eq!(
        (&crash.1["outcome"], &crash.1["limit"]),
        (&"written".into(), &Value::Null),
        "{:#}",
        crash.1
    );
    assert!(crash.0.exists(), "{:#}", crash.1);
}

fn assert_refused(crash: &(PathBuf, Value), limit: &str) {
    assert_eq!(
        (&crash.1["outcome"], &crash.1["limit"]),
        (&"none".into(), &limit.into()),
        "{:#}",
        crash.1
    );
    assert!(!crash.0.exists(), "{:#}", crash.1);
}

/// Bytes on disk of all cores in a directory.
fn used(directory: &Path) -> u64 {
    fs::read_dir(directory).unwrap().map(|e| e.unwrap().metadata().unwrap().blocks() * 512).sum()
}

/// A file system on a disk of the test's own.
struct Disk(PathBuf);

impl Disk {
    fn new(size: u64, image: &Path) -> Self {
        let mounted = image.with_extension("mounted");
        fs::File::create(image).unwrap().set_len(size).unwrap();
        fs::create_dir(&mounted).unwrap();
        let run = |program: &str, args: &[&Path]| {
            assert!(
                Command::new(program).args(args).stdout(Stdio::null()).status().unwrap().success(),
                "{program}"
            )
        };
        run("mkfs.ext4", &["-q".as_ref(), "-m0".as_ref(), image]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), image, &mounted]);
        Disk(mounted)
    }

    /// The share of it that is free.
    fn free(&self) -> f64 {
        let s = nix::sys::statvfs::statvfs(&self.0).unwrap();
        s.blocks_available() as f64 / s.blocks() as f64
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

// The container cannot raise the administrator's number.
support::cases!(the_newest_cores_are_kept:
    newest("cores=2", [false, false, true, true]),
    first("cores=2, keep=first-and-newest", [true, false, false, true]),
    more("cores=100", [false, true, true, true]),
);

fn the_newest_cores_are_kept(annotation: &str, kept: [bool; 4]) {
    let host = host("cores = 3");
    let directory = directory();
    let container = Container::new("newest", directory.path(), &[(LIMITS, annotation)]);
    let mut cores = Vec::new();
    for _ in kept {
        let crash = tiny(&host, "newest", &container);
        assert_written(&crash);
        cores.push(crash.0);
    }
    assert_eq!(cores.iter().map(|core| core.exists()).collect::<Vec<_>>(), kept);
}

/// Two crashers in one container: a core that somebody removed makes room for another, and no
/// other file is removed.
#[test]
fn only_cores_are_removed() {
    let host = host("cores = 3");
    let directory = directory();
    let container = Container::new("taken", directory.path(), &[(LIMITS, "cores=2")]);
    let next = || {
        let crash = tiny(&host, "taken", &container);
        assert_written(&crash);
        crash.0
    };
    let (first, second) = (next(), next());
    fs::rename(&second, directory.path().join("mine")).unwrap();
    let third = next();
    assert!(first.exists() && third.exists());
    fs::remove_file(&first).unwrap();
    fs::write(&first, "mine too").unwrap();
    next();
    next();
    assert!(!third.exists());
    assert_eq!(fs::read_to_string(&first).unwrap(), "mine too");
    assert!(directory.path().join("mine").exists());
}

#[test]
fn the_oldest_cores_are_kept() {
    let host = host("cores = 2\nkeep = \"oldest\"");
    let directory = directory();
    let container = Container::new("oldest", directory.path(), &[]);
    let cores = [(); 2].map(|()| tiny(&host, "oldest", &container));
    cores.iter().for_each(assert_written);
    assert_refused(&tiny(&host, "oldest", &container), "cores = 2");
    cores.iter().for_each(assert_written);
}

#[test]
fn bytes_are_bounded() {
    const MOST: u64 = 4 << 20;
    let host = host("bytes = \"4Mi\"");
    let directory = directory();
    let container = Container::new("rotated", directory.path(), &[]);
    let base = used(directory.path());
    let mut last = None;
    for _ in 0..5 {
        let crash = crash(&host, "rotated", &container, "random", 1);
        assert_written(&crash);
        assert!(used(directory.path()) - base <= MOST, "{} bytes", used(directory.path()) - base);
        last = Some(crash.0);
    }
    assert!(used(directory.path()) - base > MOST / 2, "too much was removed");
    // The last core stays complete when the next one is larger than the limit
    // for all: that one is cut.
    let large = crash(&host, "rotated", &container, "random", 24);
    assert_eq!(
        (&large.1["outcome"], &large.1["limit"]),
        (&"truncated".into(), &"bytes = 4Mi".into()),
        "{:#}",
        large.1
    );
    assert!(!last.unwrap().exists(), "what was there had to make room");
    let size = used(directory.path()) - base;
    assert!((MOST / 2..=MOST + (64 << 10)).contains(&size), "{size} bytes");

    let container =
        Container::new("first", directory.path(), &[(LIMITS, "bytes=3Mi, keep=oldest")]);
    let base = used(directory.path());
    let crashes: Vec<_> = (0..4).map(|_| crash(&host, "first", &container, "random", 1)).collect();
    assert_written(&crashes[0]);
    assert_written(&crashes[1]);
    assert_eq!(crashes[2].1["limit"], "bytes = 3Mi", "{:#}", crashes[2].1);
    assert_refused(&crashes[3], "bytes = 3Mi");
    // To a few blocks: the file system's own for a file count too.
    let size = used(directory.path()) - base;
    assert!(size <= (3 << 20) + (64 << 10), "{size} bytes");
}

#[test]
fn free_space_stays() {
    if !require::programs(&["mkfs.ext4", "losetup"]) {
        return;
    }
    let host = host("min_free = \"50%\"");
    let directory = directory();
    let disk = Disk::new(64 << 20, &directory.path().join("image"));
    let container = Container::new("space", &disk.0, &[]);
    assert_written(&crash(&host, "space", &container, "random", 10));
    for (way, size) in [("stream", 7), ("fast", 50), ("fast, compressed", 50)] {
        let annotations: &[_] =
            if way.ends_with("compressed") { &[("oci-coredump/compress", "zstd")] } else { &[] };
        // The stream's may still fit; then the next one has less room.
        let id = format!("space-{}", way.replace([',', ' '], "-"));
        let container = Container::new(&id, &disk.0, annotations);
        let cut = crash(&host, &id, &container, "random", size);
        if way != "stream" {
            assert_eq!(
                (&cut.1["outcome"], &cut.1["limit"]),
                (&"truncated".into(), &"min_free = 50%".into()),
                "{way}: {:#}",
                cut.1
            );
            // Whoever still reads the core keeps its blocks.
            host.settle();
            fs::remove_file(cut.1["core_path"].as_str().unwrap()).unwrap();
        }
        // Some MiB more where a frame had to be closed.
        assert!((0.4..0.9).contains(&disk.free()), "{way}: {} is free", disk.free());
    }
    drop((container, disk));
    // A container's memory is not a disk of the host.
    let memory = TempDir::with_prefix_in("quota", "/dev/shm").unwrap();
    host.configure("[limits]\nmin_free = \"100%\"\n");
    assert_written(&tiny(&host, "memory", &Container::new("memory", memory.path(), &[])));
    let refused = tiny(&host, "disk", &Container::new("disk", directory.path(), &[]));
    assert_refused(&refused, "min_free = 100%");
}

#[test]
fn row_12_crash_loop_is_slowed_down() {
    let host = host("rate = \"100/h\"\nburst = 50");
    let directory = directory();
    let container = Container::new("loop", directory.path(), &[(LIMITS, "rate=2/h")]);
    assert_written(&tiny(&host, "loop", &container));
    assert_written(&tiny(&host, "loop", &container));
    for _ in 0..2 {
        assert_refused(&tiny(&host, "loop", &container), "rate = 2/h");
    }
    let calm = Container::new("calm", directory.path(), &[]);
    for _ in 0..3 {
        assert_written(&tiny(&host, "calm", &calm));
    }
}

#[test]
fn row_12_one_containers_storm_is_its_own() {
    let host = host("concurrent = 2\nwait = 1\nstall = 2");
    let (target, directory) = (Fuse::mount(), directory());
    let container = Container::new("storm", target.path(), &[]);
    let other = Container::new("other", directory.path(), &[]);
    target.on_write(0, Answer::Hold);
    let mut held: Vec<_> = (0..2).map(|_| container.victim(&bare::victim(), "tiny", 0)).collect();
    held.iter_mut().for_each(|v| v.crash());
    assert!(target.wait_held(SOON));
    // The third has to wait; other containers are not affected.
    let mut third = container.victim(&bare::victim(), "tiny", 0);
    let since = Instant::now();
    third.crash();
    assert_written(&tiny(&host, "other", &other));
    assert!(third.ends_within(SOON));
    assert!(since.elapsed() >= Duration::from_secs(1), "it did not wait for a slot");
    let record = |pid: u32| host.record_of("storm", pid).unwrap();
    assert_eq!(record(third.pid())["limit"], "concurrent = 2", "{:#}", record(third.pid()));
    // The writers hang even after they were given up, and keep their slots.
    held.iter_mut().for_each(|v| assert!(v.ends_within(SOON)));
    assert_eq!(record(held[0].pid())["limit"], "stall = 2");
    let mut fourth = container.victim(&bare::victim(), "tiny", 0);
    fourth.crash();
    assert!(fourth.ends_within(SOON));
    assert_eq!(record(fourth.pid())["limit"], "concurrent = 2", "{:#}", record(fourth.pid()));
    // They can end now, and the slots become free.
    target.go_on();
    wait_for("a free slot", SOON, || {
        let mut next = container.victim(&bare::victim(), "tiny", 0);
        next.crash();
        assert!(next.ends_within(SOON));
        record(next.pid())["outcome"] == "written"
    });
}

/// Number of slots in a directory that are taken.
fn taken(directory: &Path) -> usize {
    let locked = locked();
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter(|entry| locked.contains(&entry.as_ref().unwrap().metadata().unwrap().ino()))
        .count()
}

/// All containers together have a bound, and yet none waits for another container's dumps.
#[test]
fn row_12_all_containers_storms_together() {
    const OWN: usize = 4;
    let host = host("host_concurrent = 2\nwait = 2");
    let (target, directory) = (Fuse::mount(), directory());
    let storms = ["one", "two"].map(|name| (name, Container::new(name, target.path(), &[])));
    let other = Container::new("other", directory.path(), &[]);
    target.on_write(0, Answer::Hold);
    let mut victims = Vec::new();
    let limits = Path::new(RUN).join("limits");
    // The first container uses all shared slots. The second has its own, and no more.
    for (more, (name, container)) in [2, 0].into_iter().zip(&storms) {
        for _ in 0..OWN + more {
            let mut victim = container.victim(&bare::victim(), "tiny", 0);
            victim.crash();
            victims.push((*name, victim));
        }
        wait_for(&format!("that {name} uses its slots"), SOON, || {
            taken(&limits.join(name)) == OWN + more
        });
    }
    assert_eq!(taken(&limits.join(".host")), 2);
    for (name, container) in &storms {
        let mut further = container.victim(&bare::victim(), "tiny", 0);
        let since = Instant::now();
        further.crash();
        assert!(further.ends_within(SOON));
        assert!(since.elapsed() >= Duration::from_secs(2), "{name}: it did not wait for a slot");
        let record = host.record_of(name, further.pid()).unwrap();
        assert_eq!(
            (&record["outcome"], &record["limit"]),
            (&"none".into(), &"host_concurrent = 2".into()),
            "{name}: {record:#}"
        );
    }
    let since = Instant::now();
    (0..3).for_each(|_| assert_written(&tiny(&host, "other", &other)));
    println!("three cores of another container: {:.0?}", since.elapsed());
    target.go_on();
    for (name, mut victim) in victims {
        assert!(victim.ends_within(SOON));
        let record = host.record_of(name, victim.pid()).unwrap();
        assert_eq!(record["outcome"], "written", "{name}: {record:#}");
    }
    wait_for("that the host's slots are free again", SOON, || taken(&limits.join(".host")) == 0);
}

/// A writer that cannot be killed keeps its slot of the host too, since it still exists.
#[test]
fn a_writer_that_hangs_keeps_the_hosts_slot() {
    let host = host("host_concurrent = 1\nstall = 2\nwait = 1");
    let target = Fuse::mount();
    let container = Container::new("hangs", target.path(), &[]);
    target.on_write(0, Answer::Hold);
    let mut victims: Vec<_> =
        (0..5).map(|_| container.victim(&bare::victim(), "tiny", 0)).collect();
    victims.iter_mut().for_each(|victim| victim.crash());
    victims.iter_mut().for_each(|victim| assert!(victim.ends_within(SOON)));
    assert!(
        host.records_of("hangs").iter().all(|record| record["limit"] == "stall = 2"),
        "{:#?}",
        host.records_of("hangs")
    );
    let shared = Path::new(RUN).join("limits/.host");
    assert_eq!(taken(&shared), 1);
    target.go_on();
    wait_for("that the slot is free again", SOON, || taken(&shared) == 0);
}

/// If the host is short of memory no dump waits, and dumps with a slot are not affected.
#[test]
fn row_12_nobody_waits_without_memory() {
    let host = host("concurrent = 1\nwait = 60\nmin_memory = \"100%\"");
    let target = Fuse::mount();
    let container = Container::new("short", target.path(), &[]);
    target.on_write(0, Answer::Hold);
    let mut first = container.victim(&bare::victim(), "tiny", 0);
    first.crash();
    assert!(target.wait_held(SOON));
    let mut second = container.victim(&bare::victim(), "tiny", 0);
    second.crash();
    assert!(second.ends_within(SOON), "it waits");
    target.go_on();
    assert!(first.ends_within(SOON));
    let record =
        |pid: u32| host.records_of("short").into_iter().find(|r| r["host_pid"] == pid).unwrap();
    assert_eq!(record(second.pid())["limit"], "min_memory = 100%", "{:#}", record(second.pid()));
    assert_eq!(record(first.pid())["outcome"], "written", "{:#}", record(first.pid()));
}

#[test]
fn who_waits_gets_a_slot() {
    let host = host("concurrent = 1\nwait = 60");
    let target = Fuse::mount();
    let container = Container::new("queue", target.path(), &[]);
    target.on_write(0, Answer::Hold);
    let mut victims: Vec<_> =
        (0..3).map(|_| container.victim(&bare::victim(), "tiny", 0)).collect();
    victims.iter_mut().for_each(|v| v.crash());
    assert!(target.wait_held(SOON));
    target.go_on();
    victims.iter_mut().for_each(|v| assert!(v.ends_within(SOON)));
    for record in host.records_of("queue") {
        assert_eq!(record["outcome"], "written", "{record:#}");
    }
}

#[test]
fn nothing_is_remembered_without_need() {
    let host = host("concurrent = 0\nmin_free = \"0\"");
    let directory = directory();
    let limits = Path::new(RUN).join("limits");
    let container = Container::new("free", directory.path(), &[]);
    assert_written(&tiny(&host, "free", &container));
    // Which records there are, how much was said, and which crashes are being summarized is known
    // in any case.
    let remembered = |entry: &fs::DirEntry| {
        let names = fs::read_dir(entry.path()).unwrap().flatten().map(|e| e.file_name());
        let is_known =
            |name: &str| matches!(name, "records" | "lines") || name.starts_with("after-");
        names.filter(|name| !is_known(&name.to_string_lossy())).count()
    };
    let all: usize =
        fs::read_dir(&limits).into_iter().flatten().flatten().map(|e| remembered(&e)).sum();
    assert_eq!(all, 0, "something is remembered without a limit");
    let container = Container::new("gone", directory.path(), &[(LIMITS, "cores=2")]);
    assert_written(&tiny(&host, "gone", &container));
    assert!(limits.join("gone").join("memory").exists());
    drop(container);
    let state = json!({
        "ociVersion": "1.0.2", "id": "gone", "status": "stopped", "bundle": directory.path(),
    });
    let mut hook =
        Command::new(BINARY).args(["hook", "poststop"]).stdin(Stdio::piped()).spawn().unwrap();
    hook.stdin.take().unwrap().write_all(state.to_string().as_bytes()).unwrap();
    assert!(hook.wait().unwrap().success());
    assert!(!limits.join("gone").exists(), "it is remembered for ever");
}
