//! A row, carried out once: in a container of runc under the kernel's own file mode,
//! or with the project's hook.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde_json::Value;

use super::row::{Row, SHARED};
use super::snapshot::{Change, Snapshot};
use support::bundle::Bundle;
use support::core_bytes::is_core;
use support::crasher;
use support::host::{BINARY, Host, STORE};
use support::processes;
use support::runtime::Runtime;
use support::server;
use support::wait::{ends_within, wait_for};

/// The crasher's PID in the container: above anything that the runtime itself uses up there.
pub const PID: i64 = 100;
/// Part of the name of a core that may end up on the host.
pub const MARKER: &str = "core.of.the.oracle";
/// Nothing in a row takes this long.
const DEADLINE: Duration = Duration::from_secs(30);

/// The side of the comparison: who writes the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Kernel,
    Project,
    /// The project, through the kernel's coredump socket.
    Socket,
}

/// What a crash left behind.
#[derive(Clone)]
pub struct Observed {
    /// The raw wait status that the crasher's parent got.
    pub status: i64,
    /// What changed where, by "view: path". PIDs of the host and times in file names are replaced.
    pub changes: BTreeMap<String, Change>,
    /// What appeared on the host and has no business there.
    pub stray: Vec<String>,
    /// The crasher's PID and TID in the initial PID namespace.
    pub host_pid: i64,
    pub host_tid: i64,
    /// The PID and TID in the crasher's own PID namespace.
    pub pid: i64,
    pub tid: i64,
    /// The project's records of the container.
    pub records: Vec<Value>,
    /// Device and inode of what a record's `core_path` is in the container, and
    /// its `host_path` on the host.
    pub core_path: Option<(u64, u64)>,
    pub host_path: Option<(u64, u64)>,
}

/// Carries a row out.
pub fn observe(host: &Host, runtime: &Runtime, row: &Row, side: Side) -> Observed {
    for (name, value) in &row.sysctls {
        host.set(name, value);
    }
    let _shared = row.is_shared.then(Shared::make);
    let mut bundle = bundle(row);
    // Each side has a container of its own, and with it a store.
    let id = format!("oracle-{}-{side:?}", row.name).to_lowercase();
    match side {
        Side::Kernel => {
            host.set("kernel/core_pattern", &row.pattern);
            host.set("kernel/core_uses_pid", if row.uses_pid { "1" } else { "0" });
            // The project's hook makes it unlimited unless it is told otherwise.
            bundle.rlimit("RLIMIT_CORE", u64::MAX, u64::MAX);
        }
        Side::Project | Side::Socket => {
            // What is kept comes after the end of the process: here nothing but the core is looked
            // at. Rows that prepare the directory must be able to. The kernel makes no directory.
            let prepares = row.parent.iter().any(|option| option.contains("/cores"));
            host.configure(&format!(
                "{}core_uses_pid = {}\nstore_view = \"{}\"\nmake_directories = \"nowhere\"\n\
                 summary = false\n[binaries]\nkeep = false\n",
                if side == Side::Socket { server::WANTED } else { "" },
                row.uses_pid,
                if prepares { "rw" } else { "ro" }
            ));
            bundle
                .coredump_hooks(Path::new(BINARY))
                .annotation("oci-coredump/pattern", &row.pattern);
        }
    }
    let mut container = Running::start(runtime, &bundle, &id);
    container.expect("ready");
    let leads_there = || host.sysctl("kernel/core_pattern") == server::PATTERN;
    assert!(side != Side::Socket || leads_there(), "the kernel does not use the socket");
    let crash = Crash::find(&container, row.in_thread());
    let before: Vec<_> = crash.views.iter().map(|(_, root)| Snapshot::take(root)).collect();
    let spots = Spots::look(bundle.path());

    let started = seconds();
    container.go();
    let ended = container.expect("ended");
    let times = started..=seconds();

    let mut changes = BTreeMap::new();
    for ((view, root), before) in crash.views.iter().zip(before) {
        for (path, change) in before.changes(root) {
            changes.insert(format!("{view}: /{}", crash.name(row, &times, &path)), change);
        }
    }
    let mut words = ended.split(' ').skip(1).map(|word| word.parse::<i64>().unwrap());
    assert_eq!(words.next(), Some(PID), "the crasher has another PID");
    let records = host.records_of(&id);
    let path = |key: &str| records.first()?[key].as_str().map(PathBuf::from);
    Observed {
        core_path: path("core_path")
            .and_then(|path| crash.views.iter().find_map(|(_, root)| identity_inside(root, &path))),
        host_path: path("host_path").and_then(|path| identity_inside(Path::new("/"), &path)),
        status: words.next().unwrap(),
        changes,
        stray: spots.stray(bundle.path(), &id),
        host_pid: crash.pid,
        host_tid: crash.tid,
        pid: crash.own_pid,
        tid: crash.own_tid,
        records,
    }
}

/// The directory [`SHARED`] of the host, which everybody may write to.
struct Shared;

impl Shared {
    fn make() -> Self {
        let _ = fs::remove_dir_all(SHARED);
        fs::create_dir(SHARED).unwrap();
        fs::set_permissions(SHARED, fs::Permissions::from_mode(0o1777)).unwrap();
        Shared
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(SHARED);
    }
}

fn bundle(row: &Row) -> Bundle {
    let mut bundle = Bundle::new();
    bundle.rootfs().put(crasher::crasher(), "/bin/crasher");
    bundle.rootfs().put(crasher::parent(), "/bin/parent");
    bundle.rootfs().directory("/cores", 0o1777);
    bundle.rootfs().directory("/cwd", 0o1777);
    let pid = PID.to_string();
    let mut args =
        vec!["/bin/parent", "--hold", "--pid", &pid, "--cpu", "0", "--core", "unlimited"];
    args.extend(row.parent.iter().map(String::as_str));
    args.extend(["--", &row.program, "--wait"]);
    args.extend(row.crasher.iter().map(String::as_str));
    bundle.args(&args);
    if row.is_shared {
        bundle.bind(Path::new(SHARED), SHARED);
    }
    (row.prepare)(&mut bundle);
    bundle
}

/// Seconds since 1970 by the clock that the kernel takes `%t` from. It moves at the timer's ticks:
/// just after the turn of a second the fine clock is a second ahead of it.
fn seconds() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).unwrap();
    now.tv_sec().try_into().unwrap()
}

/// `runc run` in the foreground, its init's standard input and output in our hands.
struct Running<'r> {
    runtime: &'r Runtime,
    id: String,
    directory: PathBuf,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl<'r> Running<'r> {
    fn start(runtime: &'r Runtime, bundle: &Bundle, id: &str) -> Self {
        bundle.write();
        let directory = bundle.path().to_owned();
        let mut command: Command = runtime.command();
        let mut child = command
            .arg("run")
            .arg("--pid-file")
            .arg(directory.join("pid"))
            .arg("--bundle")
            .args([&directory, Path::new(id)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(directory.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { runtime, id: id.to_owned(), directory, child, input, lines }
    }

    /// The next line, which must begin so.
    fn expect(&self, word: &str) -> String {
        let line = self.lines.recv_timeout(DEADLINE).unwrap_or_else(|cause| {
            panic!(
                "no {word:?} ({cause}): {}",
                fs::read_to_string(self.directory.join("stderr")).unwrap_or_default()
            )
        });
        assert!(line.starts_with(word), "not {word:?}: {line:?}");
        line
    }

    fn go(&mut self) {
        self.input.as_mut().unwrap().write_all(b"g").unwrap();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // The parent holds until the end of its input; then the container ends by
        // itself and runc deletes it.
        self.input.take();
        ends_within(&mut self.child, DEADLINE);
        let _ = self
            .runtime
            .command()
            .args(["delete", "--force", &self.id])
            .stderr(Stdio::null())
            .status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process that is about to die, as the host sees it.
struct Crash {
    pid: i64,
    tid: i64,
    own_pid: i64,
    own_tid: i64,
    /// Roots of the mount namespaces in which a core may appear.
    views: Vec<(&'static str, PathBuf)>,
}

impl Crash {
    fn find(container: &Running, in_thread: bool) -> Self {
        // runc renames it into place when the program runs already.
        let file = container.directory.join("pid");
        wait_for("the PID file of runc", DEADLINE, || file.exists());
        let init: i64 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let namespace = |pid: i64, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        let all = || processes::all().map(i64::from);
        let mut inits = all().filter(|pid| parent(*pid) == Some(init));
        let supervisor = inits
            .find(|pid| ids(&format!("/proc/{pid}")).unwrap_or_default().last() == Some(&(PID - 1)))
            .expect("no supervisor");
        let pid = all().find(|pid| parent(*pid) == Some(supervisor)).expect("no crasher");
        let threads = || {
            fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|entry| entry.unwrap().path())
        };
        // Every thread sleeps where it will sleep when it is killed: then its registers
        // are the same in every run.
        wait_for("that the threads rest", DEADLINE, || {
            threads().all(|thread| matches!(state(&thread), Some('S' | 'Z')))
        });
        let innermost =
            |directory: &Path| *ids(&directory.to_string_lossy()).unwrap().last().unwrap();
        let own_pid = innermost(Path::new(&format!("/proc/{pid}")));
        let tids = threads().map(|thread| {
            (innermost(&thread), thread.file_name().unwrap().to_str().unwrap().parse().unwrap())
        });
        let (own_tid, tid) = if in_thread { tids.max().unwrap() } else { (own_pid, pid) };
        let mut views = vec![("container", PathBuf::from(format!("/proc/{init}/root")))];
        if namespace(supervisor, "mnt") != namespace(init, "mnt") {
            views.push(("nested", format!("/proc/{supervisor}/root").into()));
        }
        Self { pid, tid, own_pid, own_tid, views }
    }

    /// A file name with what differs from run to run by the row's own template replaced.
    fn name(&self, row: &Row, times: &std::ops::RangeInclusive<u64>, path: &[u8]) -> String {
        let replace = |digits: &str| {
            let value = digits.parse::<u64>().ok()?;
            let is = |specifier, known: i64| {
                row.pattern.contains(specifier) && i64::try_from(value) == Ok(known)
            };
            match () {
                () if is("%P", self.pid) => Some("<host pid>"),
                () if is("%I", self.tid) => {
                    Some(if self.tid == self.pid { "<host pid>" } else { "<host tid>" })
                }
                () if row.pattern.contains("%t") && times.contains(&value) => Some("<time>"),
                () => None,
            }
        };
        let (text, mut name) = (path.escape_ascii().to_string(), String::new());
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            name.push_str(replace(&rest[..digits]).unwrap_or(&rest[..digits]));
            rest = &rest[digits..];
            let other = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            name.push_str(&rest[..other]);
            rest = &rest[other..];
        }
        name
    }
}

fn parent(pid: i64) -> Option<i64> {
    processes::field(pid, "PPid")?.parse().ok()
}

/// NSpid: the process's or thread's ID in every PID namespace from the initial one to its own.
fn ids(directory: &str) -> Option<Vec<i64>> {
    let status = fs::read(format!("{directory}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().map(|number| number.parse().ok()).collect()
}

/// What a path is for a process whose root is `root`.
fn identity_inside(root: &Path, path: &Path) -> Option<(u64, u64)> {
    let root = File::open(root).ok()?;
    let file = rustix::fs::openat2(
        root,
        path,
        OFlags::PATH | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
    .ok()?;
    let meta = File::from(file).metadata().ok()?;
    Some((meta.dev(), meta.ino()))
}

fn state(thread: &Path) -> Option<char> {
    let stat = fs::read(thread.join("stat")).ok()?;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2).map(|state| char::from(*state))
}

/// Places of the host where a core or something else of a container could end up by mistake.
struct Spots {
    names: BTreeMap<PathBuf, Vec<PathBuf>>,
    store: Snapshot,
}

impl Spots {
    fn look(bundle: &Path) -> Self {
        let cwd = std::env::current_dir().unwrap();
        let shared =
            ["/tmp", "/var/tmp", "/run", "/dev/shm", "/root", "/cwd", "/cores"].map(PathBuf::from);
        let all = [PathBuf::from("/"), bundle.to_owned(), cwd].into_iter().chain(shared);
        fs::create_dir_all(STORE).unwrap();
        Self {
            names: all.map(|spot| (spot.clone(), entries(&spot))).collect(),
            store: Snapshot::take(Path::new(STORE)),
        }
    }

    fn stray(&self, bundle: &Path, id: &str) -> Vec<String> {
        let mut stray = Vec::new();
        for (spot, before) in &self.names {
            // Nobody else makes anything in these two; in the others only what
            // looks like a core is ours.
            let ours = spot == Path::new("/") || spot == bundle;
            let new = entries(spot).into_iter().filter(|path| !before.contains(path));
            let looks = |path: &Path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().contains("core"))
                    || path.is_file() && fs::read(path).is_ok_and(|bytes| is_core(&bytes))
            };
            for path in new.filter(|path| ours || looks(path)) {
                stray.push(path.display().to_string());
                // The next run must find the host as this one did.
                if path.to_string_lossy().contains(MARKER) {
                    fs::remove_file(path).unwrap();
                }
            }
        }
        let (mut records, own) = (0, format!("containers/{id}/"));
        for (path, change) in self.store.changes(Path::new(STORE)) {
            let path = path.escape_ascii().to_string();
            records += usize::from(path.starts_with("records/") && path.ends_with(".json"));
            if path == "records" {
                continue;
            }
            if records > 1 || !path.starts_with("records/") && !path.starts_with(&own) {
                stray.push(format!("{STORE}/{path}: {}", super::compare::told(&change)));
            }
        }
        stray
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .map_or_else(|_| Vec::new(), |all| all.map(|entry| entry.unwrap().path()).collect())
}
