//! A user's registration counts only for processes in that user's own user namespaces, and what the
//! user writes in it is not trusted.
//!
//! Every attack is the same registration, which is valid for the user's own process,
//! with one thing changed. A crash of another process goes to the earlier handler: a
//! file in the working directory.
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::crasher::crasher;
use support::host::{BINARY, Host};
use support::product::{host, product};
use support::require;
use support::user::{self, User};
use support::wait::ends_within;

/// A process in a mount namespace of its own, about to crash.
struct Victim {
    child: Child,
    directory: PathBuf,
}

impl Victim {
    /// `command` becomes the program; its working directory is below `scratch`.
    fn start(mut command: Command, scratch: &Path) -> Self {
        let directory =
            tempfile::Builder::new().prefix("victim").tempdir_in(scratch).unwrap().keep();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777)).unwrap();
        let script = format!(
            "ulimit -Sc $(ulimit -Hc); exec {} --wait null",
            scratch.join("crasher").display()
        );
        let mut child = command
            .args(["sh", "-c", &script])
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, directory }
    }

    /// In a user namespace that this user has made.
    fn of(user: &User, scratch: &Path) -> Self {
        let mut command = user.command("unshare");
        command.args(["--user", "--map-root-user", "--mount"]);
        Self::start(command, scratch)
    }

    /// Of root's, with these options of unshare(1).
    fn of_root(options: &[&str], scratch: &Path) -> Self {
        let mut command = Command::new("unshare");
        command.arg("--mount").args(options);
        Self::start(command, scratch)
    }

    /// In a user namespace of root's, in which the user's ID is root: as root's podman makes
    /// one with `--uidmap 0:UID:1`.
    fn of_root_as(user: &User, scratch: &Path) -> Self {
        let mut holder =
            Command::new("unshare").args(["--user", "sleep", "infinity"]).spawn().unwrap();
        let pid = holder.id();
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
        while namespace(&pid.to_string()) == namespace("self") {
            std::thread::yield_now();
        }
        ["uid_map", "gid_map"].iter().for_each(|map| {
            fs::write(format!("/proc/{pid}/{map}"), format!("0 {} 1", user.uid())).unwrap()
        });
        let mut command = Command::new("nsenter");
        command
            .args(["--user", "--setuid=0", "--setgid=0", "--target"])
            .arg(pid.to_string())
            .args(["unshare", "--mount"]);
        let victim = Self::start(command, scratch);
        holder.kill().and_then(|()| holder.wait()).unwrap();
        assert_eq!(fs::metadata(format!("/proc/{}", victim.child.id())).unwrap().uid(), user.uid());
        victim
    }

    /// The record of its crash, once it has crashed.
    fn record(host: &Host, pid: u32) -> Value {
        host.records().into_iter().find(|record| record["host_pid"] == pid).unwrap()
    }

    fn mount_ns(&self) -> String {
        let link = fs::read_link(format!("/proc/{}/ns/mnt", self.child.id())).unwrap();
        link.to_str().unwrap().trim_start_matches("mnt:[").trim_end_matches(']').to_owned()
    }

    /// A valid registration of it: its cores go beside its working directory.
    fn registration(&self) -> Value {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let start: u64 =
            stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap();
        let mount_ns: u64 = self.mount_ns().parse().unwrap();
        json!({
            "names": {"container_id": "theirs"},
            "init": {
                "pid": self.child.id(), "start_time": start, "mount_ns": mount_ns,
                "mount_ns_id": null, "pid_ns": null, "cgroup": null,
            },
            "pattern": format!("{}/theirs", self.directory.display()), "append_pid": false,
            "limit": null, "soft_limit": null,
            "place": {"location": "layer", "mount": null}, "refused": null,
        })
    }

    /// Lets it crash, within a bounded time. Returns whether its core went where the registration
    /// says; otherwise the host's handler has it.
    fn crash(mut self) -> bool {
        self.child.stdin.take().unwrap().write_all(b"x").unwrap();
        let status = ends_within(&mut self.child, Duration::from_secs(30))
            .unwrap_or_else(|| panic!("the crash of {} does not end", self.child.id()));
        assert_eq!(status.signal(), Some(11));
        let mut names: Vec<_> = fs::read_dir(&self.directory)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let name = names.remove(0);
        assert!(name == "theirs" || name.starts_with("core"), "{name}");
        name == "theirs"
    }
}

/// A user's registrations, written by hand as the user's hook would.
struct Place<'u> {
    user: &'u User,
    dir: PathBuf,
}

impl<'u> Place<'u> {
    fn make(user: &'u User) -> Self {
        let dir = user.directory(&user.run_dir().join("oci-coredump"));
        ["containers", "index"].iter().for_each(|name| drop(user.directory(&dir.join(name))));
        Self { user, dir }
    }

    fn index(&self, victim: &Victim) -> PathBuf {
        self.dir.join("index").join(format!("mnt-{}", victim.mount_ns()))
    }

    fn put(&self, victim: &Victim, text: &str) -> PathBuf {
        let path = self.index(victim);
        fs::write(&path, text).unwrap();
        self.user.own(&path, 0o600);
        path
    }
}

/// The machine with the product installed and set up, and two users.
fn scene() -> Option<(Host, User, User, tempfile::TempDir)> {
    if !require::programs(&user::PROGRAMS) || !require::programs(&["unshare"]) {
        return None;
    }
    let host = host();
    host.set("kernel/core_pattern", "core");
    product(&["install"]);
    let scratch =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let program = scratch.path().join("crasher");
    fs::copy(crasher(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Some((host, User::make("ocd-test-a"), User::make("ocd-test-b"), scratch))
}

#[test]
fn a_user_registers_for_himself_only() {
    let Some((host, a, b, scratch)) = scene() else { return };
    let scratch = scratch.path();
    let place = Place::make(&a);

    // The user's own process: the registration counts, and the record names the user.
    let own = Victim::of(&a, scratch);
    place.put(&own, &own.registration().to_string());
    let pid = own.child.id();
    assert!(own.crash());
    let record = Victim::record(&host, pid);
    assert_eq!(
        (&record["user"], &record["uid"], &record["outcome"]),
        (&a.uid().into(), &a.uid().into(), &"written".into()),
        "{record}"
    );
    let count = host.records().len();

    let others = [
        ("root's", Victim::of_root(&[], scratch)),
        ("root's, in a user namespace", Victim::of_root(&["--user", "--map-root-user"], scratch)),
        // Its processes have this user's number; the namespace is root's all the same.
        ("root's, with the user's ID", Victim::of_root_as(&a, scratch)),
        ("another user's", Victim::of(&b, scratch)),
    ];
    for (whose, victim) in others {
        let mut registration = victim.registration();
        place.put(&victim, &registration.to_string());
        // By its ID and its init process as well.
        registration["init"]["pid_ns"] =
            fs::read_link("/proc/self/ns/pid").unwrap().to_str().unwrap()[5..]
                .trim_end_matches(']')
                .parse::<u64>()
                .unwrap()
                .into();
        let pid_ns =
            place.dir.join("index").join(format!("pid-{}", registration["init"]["pid_ns"]));
        fs::write(&pid_ns, registration.to_string()).unwrap();
        a.own(&pid_ns, 0o600);
        assert!(!victim.crash(), "{whose}");
    }
    assert_eq!(host.records().len(), count, "{:#?}", host.records());
}

#[test]
fn what_a_user_writes_is_not_believed() {
    let Some((host, a, b, scratch)) = scene() else { return };
    let scratch = scratch.path();
    let (place, others) = (Place::make(&b), Place::make(&a));
    type Attack<'a> = (&'a str, &'a dyn Fn(&Victim));
    let with = |victim: &Victim, key: &str, value: Value| {
        let mut registration = victim.registration();
        *registration.pointer_mut(key).unwrap_or_else(|| panic!("{key}")) = value;
        place.put(victim, &registration.to_string());
    };
    let good = |victim: &Victim| place.put(victim, &victim.registration().to_string());
    let set = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap()
    };
    let attacks: [Attack<'_>; 12] = [
        ("a link", &|v| {
            let kept = place.dir.join("kept");
            fs::rename(good(v), &kept).unwrap();
            symlink(&kept, place.index(v)).unwrap();
        }),
        ("a FIFO", &|v| {
            nix::unistd::mkfifo(&place.index(v), nix::sys::stat::Mode::S_IRWXU).unwrap();
            b.own(&place.index(v), 0o600);
        }),
        ("a gigabyte", &|v| {
            fs::OpenOptions::new().write(true).open(good(v)).unwrap().set_len(1 << 30).unwrap()
        }),
        ("a file of another user's", &|v| a.own(&good(v), 0o644)),
        ("a file that others may write", &|v| b.own(&good(v), 0o666)),
        ("a directory that others may write", &|v| {
            good(v);
            set(&place.dir.join("index"), 0o777);
        }),
        ("a run directory that others may write", &|v| {
            good(v);
            set(&b.run_dir(), 0o770);
        }),
        ("another user's directory", &|v| {
            others.put(v, &v.registration().to_string());
            fs::rename(&place.dir, b.run_dir().join("kept")).unwrap();
            symlink(&others.dir, &place.dir).unwrap();
        }),
        ("a program", &|v| with(v, "/pattern", "|/bin/sh".into())),
        ("a path for an ID", &|v| with(v, "/names/container_id", "../../x".into())),
        ("half of it", &|v| drop(place.put(v, &v.registration().to_string()[..40]))),
        ("a refusal", &|v| with(v, "/refused", "no".into())),
    ];
    for (what, attack) in attacks {
        let victim = Victim::of(&b, scratch);
        // The number of a namespace is used again.
        let index = place.index(&victim);
        attack(&victim);
        assert!(!victim.crash(), "{what}");
        assert!(host.records().is_empty(), "{what}: {:#?}", host.records());
        // Restore it.
        let kept = b.run_dir().join("kept");
        if kept.exists() {
            fs::remove_file(&place.dir).unwrap();
            fs::rename(kept, &place.dir).unwrap();
        } else {
            fs::remove_file(index).unwrap();
        }
        set(&place.dir.join("index"), 0o700);
        set(&b.run_dir(), 0o700);
    }

    // A valid registration, except for what it says of the host: where the core is seen, and where
    // a copy of the record goes.
    let etc = Path::new("/etc/ocd-test");
    for store in [etc.to_owned(), a.home().join("store")] {
        let victim = Victim::of(&b, scratch);
        let mut registration = victim.registration();
        registration["place"] = json!({"location": "store", "mount": [victim.directory, "/etc"]});
        registration["store"] = store.to_str().unwrap().into();
        registration["early"] = true.into();
        place.put(&victim, &registration.to_string());
        let (core, pid) = (victim.directory.join("theirs"), victim.child.id());
        assert!(victim.crash());
        let record = Victim::record(&host, pid);
        assert!(
            record["host_path"].is_null()
                && record["released_at"].is_null()
                && record["location"] != "store",
            "{record}"
        );
        assert_eq!(record["core_path"], core.to_str().unwrap());
        assert!(!store.exists(), "{store:?}");
    }
    // The same with true values: they are verified as the user, and the
    // record is copied to the user.
    let victim = Victim::of(&b, scratch);
    let mut registration = victim.registration();
    registration["place"] =
        json!({"location": "store", "mount": [victim.directory, victim.directory]});
    registration["store"] = b.home().join("store").to_str().unwrap().into();
    place.put(&victim, &registration.to_string());
    let (core, pid) = (victim.directory.join("theirs"), victim.child.id());
    assert!(victim.crash());
    assert_eq!(Victim::record(&host, pid)["host_path"], core.to_str().unwrap());
    assert_eq!(fs::read_dir(b.home().join("store/records")).unwrap().count(), 1);
}

/// The installed product, with arguments.
fn verb(args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(args);
    command
}

/// A name that the user gives a container must not be taken for that of root's.
#[test]
fn row_48_the_name_of_roots_container() {
    let Some((host, a, _b, scratch)) = scene() else { return };
    let scratch = scratch.path();
    let place = Place::make(&a);
    let victim = Victim::of(&a, scratch);
    let mut registration = victim.registration();
    registration["names"] = json!({
        "container_id": "e3c2f5a94e37892fe080e3b081f3757e215c0ba1d369e56dfdc4fdabacb11e92",
        "container_name": "shop", "pod_name": "bank-0", "pod_namespace": "prod",
        "image": "x".repeat(60_000),
    });
    place.put(&victim, &registration.to_string());
    assert!(victim.crash());
    host.settle();
    let run = |args: &[&str]| {
        let output = verb(args).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let whose = format!("user {}", a.uid());
    for verb in [&["list"][..], &["info"]] {
        let (_, said) = run(verb);
        assert!(said.contains(&whose) && said.len() < 8_000, "{verb:?}: {said}");
    }
    for name in ["shop", "container=shop", "pod=bank-0", "namespace=prod", "e3c2f5a94e37"] {
        for verb in ["list", "info", "rm"] {
            let args: &[&str] =
                if verb == "rm" { &["rm", "--dry-run", name] } else { &[verb, name] };
            assert!(!run(args).1.contains("shop"), "{args:?}: {}", run(args).1);
        }
    }
    let (found, said) = run(&["list", "shop", &format!("user={}", a.uid())]);
    assert!(found && said.contains("shop"), "{said}");
}

/// One line for each of the user's crashes, as fast as they can happen.
#[test]
fn row_49_the_hosts_log() {
    let Some((host, a, _b, scratch)) = scene() else { return };
    let scratch = scratch.path();
    let place = Place::make(&a);
    let log = Log::open();
    let begun = Instant::now();
    // Two lines each, if nothing bounds them: the crash, and that his copy cannot be written.
    const CRASHES: usize = 80;
    for _ in 0..CRASHES {
        let victim = Victim::of(&a, scratch);
        let mut registration = victim.registration();
        registration["store"] = "/proc/nothing/there".into();
        place.put(&victim, &registration.to_string());
        assert!(victim.crash());
    }
    host.settle();
    if let Some(lines) = log.map(Log::lines) {
        let minutes = begun.elapsed().as_secs() as usize / 60 + 2;
        println!("{lines} lines for {CRASHES} crashes in {:?}", begun.elapsed());
        assert!((1..=60 * minutes).contains(&lines), "{lines} lines in {:?}", begun.elapsed());
    }
}

/// A syslog of the test's own, where the machine has none: its queue is short, so
/// that a thread empties it.
struct Log {
    reader: std::thread::JoinHandle<usize>,
}

impl Log {
    const END: &str = "that is all";

    fn open() -> Option<Self> {
        let path = Path::new("/dev/log");
        if path.exists() || Path::new("/run/systemd/journal/socket").exists() {
            return None;
        }
        let socket = UnixDatagram::bind(path).unwrap();
        let reader = std::thread::spawn(move || {
            let (mut line, mut count) = ([0; 4096], 0);
            while let Ok(n) = socket.recv(&mut line) {
                let text = String::from_utf8_lossy(&line[..n]);
                if text == Self::END {
                    break;
                }
                count += usize::from(text.contains("oci-coredump"));
            }
            count
        });
        Some(Self { reader })
    }

    fn lines(self) -> usize {
        let end = UnixDatagram::unbound().unwrap();
        end.send_to(Self::END.as_bytes(), "/dev/log").unwrap();
        let _ = fs::remove_file("/dev/log");
        self.reader.join().unwrap()
    }
}

/// A container of the user's that runs on after one of its processes has crashed.
struct Running {
    child: Child,
    core: PathBuf,
}

impl Running {
    /// `prepare` is done in its mount namespace before `program` crashes.
    fn start(
        user: &User,
        place: &Place<'_>,
        scratch: &Path,
        prepare: &str,
        program: &Path,
    ) -> Self {
        let directory = user.directory(&scratch.join("own"));
        let mut command = user.command("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]).arg(format!(
            "{prepare}\nulimit -Sc $(ulimit -Hc); {} --wait null; echo over; exec sleep 1000",
            program.display()
        ));
        command.current_dir(&directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        let mut victim = Victim { child, directory: directory.clone() };
        let mut output = BufReader::new(victim.child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let text = victim.registration().to_string();
        for path in [place.index(&victim), place.dir.join("containers/theirs.json")] {
            fs::write(&path, &text).unwrap();
            user.own(&path, 0o600);
        }
        victim.child.stdin.take().unwrap().write_all(b"x").unwrap();
        line.clear();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "over\n");
        Self { child: victim.child, core: directory.join("theirs") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SECRET: &str = "TOPSECRET-of-root";

/// The bundle that root exports of the user's crash.
fn exported(user: &User, directory: &Path) -> Vec<u8> {
    let bundle = directory.join("bundle.tar.zst");
    let matches = ["theirs".to_owned(), format!("user={}", user.uid())];
    let mut command = verb(&["export", "-o"]);
    let output = command.arg(&bundle).args(matches).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let plain = Command::new("zstd").args(["-dc"]).arg(&bundle).output().unwrap();
    assert!(plain.status.success());
    plain.stdout
}

fn holds(all: &[u8], text: &str) -> bool {
    all.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Root reads the programs of a crash, which the core names: only those that the
/// crashed process could read.
#[test]
fn row_54_a_core_that_names_what_is_roots() {
    let Some((host, a, _b, scratch)) = scene() else { return };
    if !require::programs(&["zstd"]) {
        return;
    }
    let place = Place::make(&a);
    let hidden =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let secret = hidden.path().join("secretX");
    fs::write(&secret, [fs::read(crasher()).unwrap(), SECRET.into()].concat()).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let program = scratch.path().join("crasher");
    assert_eq!(program.as_os_str().len(), secret.as_os_str().len());
    let running = Running::start(&a, &place, scratch.path(), "", &program);
    host.settle();
    // The same file, with another path in it.
    let [old, new] = [&program, &secret].map(|p| p.to_str().unwrap().to_owned());
    let script = "import sys\nf = open(sys.argv[1], 'r+b')\nd = f.read()\n\
                  assert d.count(sys.argv[2].encode())\n\
                  f.seek(0)\nf.write(d.replace(sys.argv[2].encode(), sys.argv[3].encode()))";
    let mut change = a.command("python3");
    change.args(["-c", script]).arg(&running.core).args([&old, &new]);
    assert!(change.status().unwrap().success());
    assert!(!holds(&exported(&a, hidden.path()), SECRET), "root's own file is in the bundle");
    // A file that the user may read is included.
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(holds(&exported(&a, hidden.path()), SECRET));
}

/// Files that the user's mount namespace shows in place of debug information are not read either.
#[test]
fn row_54_debug_information_that_is_roots() {
    let Some((host, a, _b, scratch)) = scene() else { return };
    if !require::programs(&["zstd", "readelf"]) {
        return;
    }
    let place = Place::make(&a);
    let hidden =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let secret = hidden.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let source = "#include <signal.h>\n#include <unistd.h>\n\
                  int main(void) \
                  { char c; if (write(1, \"ready\\n\", 6) < 0 || read(0, &c, 1) < 0) return 1; \
                  kill(getpid(), SIGSEGV); return 0; }\n";
    let built = support::crasher::compile("identified", source, &["-Wl,--build-id=sha1"]);
    let program = scratch.path().join("identified");
    fs::copy(built, &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let notes = Command::new("readelf").arg("-n").arg(&program).output().unwrap();
    let notes = String::from_utf8(notes.stdout).unwrap();
    let id = notes.split("Build ID: ").nth(1).unwrap().split_whitespace().next().unwrap();
    let file = format!("/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
    let prepare = format!(
        "mount -t tmpfs none /usr/lib/debug && mkdir -p ${{F%/*}} && : >$F && mount --bind {} $F \
         || exit 1",
        secret.display()
    );
    fs::create_dir_all("/usr/lib/debug").unwrap();
    let prepare = format!("F={file}; {prepare}");
    let _running = Running::start(&a, &place, scratch.path(), &prepare, &program);
    host.settle();
    assert!(!holds(&exported(&a, hidden.path()), SECRET), "root's own file is in the bundle");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(holds(&exported(&a, hidden.path()), SECRET), "what he may read is not");
}

/// The copy of the record is written with the user's rights only.
#[test]
fn row_54_the_group_of_who_writes_the_copy() {
    let Some((host, a, _b, scratch)) = scene() else { return };
    let place = Place::make(&a);
    for group in [65534, 0] {
        let theirs = scratch.path().join(format!("of-{group}"));
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::chown(&theirs, Some(0), Some(group)).unwrap();
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o770)).unwrap();
        let victim = Victim::of(&a, scratch.path());
        let mut registration = victim.registration();
        registration["store"] = json!(theirs.join("store"));
        place.put(&victim, &registration.to_string());
        assert!(victim.crash());
        host.settle();
        assert_eq!(fs::read_dir(&theirs).unwrap().count(), 0, "group {group}");
    }
}
