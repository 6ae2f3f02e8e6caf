//! What a user registers counts for processes in his own user namespaces, and for nobody else's; and what he writes there is not believed.
//!
//! Every attack is the same registration, which serves for the user's own process, with one thing changed. A crash that is none of his goes to the
//! handler that was there before: a file in the working directory.
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{host, product};
use crate::support::crasher::crasher;
use crate::support::host::Host;
use crate::support::require;
use crate::support::user::{self, User};

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

    /// In a user namespace of root's, in which the user's ID is root: as root's podman makes one with `--uidmap 0:UID:1`.
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

    /// A registration of it that is in order: its cores are to lie beside its working directory.
    fn registration(&self) -> Value {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let start: u64 =
            stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap();
        let mount_ns: u64 = self.mount_ns().parse().unwrap();
        json!({
            "names": {"container_id": "theirs"},
            "init": {"pid": self.child.id(), "start_time": start, "mount_ns": mount_ns, "mount_ns_id": null, "pid_ns": null, "cgroup": null},
            "pattern": format!("{}/theirs", self.directory.display()), "append_pid": false, "limit": null, "soft_limit": null,
            "place": {"location": "layer", "mount": null}, "refused": null,
        })
    }

    /// Lets it crash. Whether its core went where the registration says; else the host's handler had it. It takes a bounded time in any case.
    fn crash(mut self) -> bool {
        self.child.stdin.take().unwrap().write_all(b"x").unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => {
                    assert!(Instant::now() < until, "the crash of {} does not end", self.child.id())
                }
            }
            std::thread::sleep(Duration::from_millis(5)); // wait(2) knows no time-out
        };
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

    // His own: it counts, and is said to be his.
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
        // As it was.
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

    // One that is in order, but for what it says of the host: where the core is seen, and where a copy of the record is to go.
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
    // The same with what is true: it is found out as the user, and copied to the user.
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
