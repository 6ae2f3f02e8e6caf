//! Containers of users who are not root: podman as such a user over runc and crun, and runc by
//! hand. Root has run `install`, and nothing else.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use support::crasher::crasher;
use support::host::{BINARY, Host, last_line};
use support::image::run;
use support::photo::Photo;
use support::product::{host, product};
use support::require;
use support::rootfs::Rootfs;
use support::user::{self, User};

const IMAGE: &str = "localhost/victim";

/// podman of a user, with all that is its own in the user's home.
struct Podman<'u> {
    user: &'u User,
    runtime: PathBuf,
}

impl<'u> Podman<'u> {
    fn new(user: &'u User, runtime: &str) -> Self {
        let hooks = user.directory(&user.home().join("hooks.d"));
        fs::write(hooks.join("oci-coredump.json"), include_str!("../../hooks.d/oci-coredump.json"))
            .unwrap();
        let rootfs = Rootfs::make(&user.home().join("image"));
        rootfs.put(crasher(), "/bin/crasher");
        let archive = user.home().join("image.tar");
        run(Command::new("tar").arg("-C").arg(rootfs.path()).arg("-cf").arg(&archive).arg("."));
        user.own(&archive, 0o600);
        let podman = Self { user, runtime: program(user, runtime) };
        run(podman.command().args(["import", "--quiet"]).arg(&archive).arg(IMAGE));
        podman
    }

    fn command(&self) -> Command {
        let home = self.user.home();
        let mut command = self.user.command("podman");
        command
            .arg("--root")
            .arg(home.join("storage"))
            .arg("--runroot")
            .arg(home.join("run"))
            .arg("--tmpdir")
            .arg(home.join("tmp"));
        command.arg("--runtime").arg(&self.runtime).arg("--hooks-dir").arg(home.join("hooks.d"));
        command.args([
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "file",
        ]);
        command
    }

    fn run(&self, options: &[&str], args: &[&str]) -> Output {
        let mut command = self.command();
        // podman asks for limits that a user without CAP_SYS_RESOURCE cannot have.
        command.args([
            "run",
            "--network",
            "none",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ]);
        if self.runtime.ends_with("crun") {
            command.arg("--cgroups=disabled");
        }
        command.args(options).arg(IMAGE).args(args).output().unwrap()
    }

    fn start(&self, name: &str, options: &[&str]) -> String {
        let output =
            self.run(&[&["--detach", "--name", name], options].concat(), &["sleep", "1000"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn sh(&self, name: &str, script: &str) -> String {
        run(self.command().args(["exec", name, "/bin/sh", "-c", script]))
    }

    fn crash(&self, name: &str) {
        let output = self.command().args(["exec", name, "/bin/crasher", "null"]).output().unwrap();
        assert_eq!(output.status.code(), Some(139), "{output:?}");
    }
}

/// crun refuses a host with hybrid cgroups; podman knows it by its name.
fn program(user: &User, runtime: &str) -> PathBuf {
    let real = require::find(runtime).unwrap();
    if runtime != "crun" || !Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists() {
        return real;
    }
    let script = user.directory(&user.home().join("bin")).join("crun");
    let text = format!(
        "#!/bin/sh\nexec unshare -m sh -c 'mount -t tmpfs none /sys/fs/cgroup/unified; exec \
         \"$@\"' crun {} \"$@\"\n",
        real.display()
    );
    fs::write(&script, text).unwrap();
    user.own(&script, 0o755);
    script
}

/// The product, as the user.
fn product_of(user: &User, args: &[&str]) -> String {
    run(user.command(BINARY).args(args))
}

/// The only record of the container, as root has it, and the user's copy; its core is there,
/// whole, and belongs to `owner`.
fn core_of(host: &Host, user: &User, container: &str, owner: u32) -> (Value, Value) {
    let record = support::product::core_of(host, container);
    assert_eq!(record["user"], user.uid(), "{record}");
    let copy = copies(user).into_iter().find(|copy| copy["container_id"] == container).unwrap();
    let core = Path::new(copy["host_path"].as_str().unwrap());
    assert_eq!(record["host_path"], copy["host_path"]);
    let meta = core.symlink_metadata().unwrap();
    assert_eq!((meta.uid(), meta.permissions().mode() & 0o7777), (owner, 0o600), "{core:?}");
    (record, copy)
}

fn copies(user: &User) -> Vec<Value> {
    let records = user.home().join(".local/share/oci-coredump/records");
    let read = |entry: fs::DirEntry| {
        assert_eq!(
            (entry.metadata().unwrap().uid(), entry.metadata().unwrap().mode() & 0o7777),
            (user.uid(), 0o600)
        );
        last_line(&entry.path()).unwrap()
    };
    fs::read_dir(records).into_iter().flatten().map(|entry| read(entry.unwrap())).collect()
}

fn listed(text: &str) -> Vec<(String, String)> {
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|row| {
            (
                row["container_id"].as_str().unwrap().to_owned(),
                row["corefile"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

/// The paths that the product may change.
fn touched(user: &User) -> Vec<PathBuf> {
    vec![
        user.run_dir().join("oci-coredump"),
        user.home().join(".local/share/oci-coredump"),
        user.home().join(".config"),
        user.home().join(".cache"),
    ]
}

fn by_podman(runtime: &str) {
    if !require::programs(&user::PROGRAMS) || !require::programs(&["podman", runtime]) {
        return;
    }
    let host = host();
    let user = User::make("ocd-test-a");
    let podman = Podman::new(&user, runtime);
    let paths = touched(&user);
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let before = Photo::take(&paths);
    let asks = ["--annotation", "oci-coredump/pattern=/dump/core.%e"];

    // Nobody has installed it: the container starts, unless it insists, and
    // doctor says what root must do.
    podman.start("early", &asks);
    assert_eq!(
        podman.sh("early", "cat /proc/sys/kernel/core_pattern; ls -d /dump || echo none"),
        format!("{}\nnone\n", host.sysctl("kernel/core_pattern"))
    );
    let told = user.command(BINARY).args(["doctor", "--json"]).output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(
        !told.status.success()
            && text.contains(&format!("the administrator must run `{BINARY} install` once")),
        "{text}"
    );
    let insists = podman
        .run(&[&asks[..], &["--annotation", "oci-coredump/required=true"]].concat(), &["true"]);
    assert!(!insists.status.success(), "{insists:?}");
    podman.command().args(["rm", "--force", "--all", "--time", "0"]).output().unwrap();

    product(&["install"]);
    let asks = podman.start("asks", &asks);
    let other = podman.start(
        "other",
        &["--user", "33", "--annotation", "k8s.aliyun.com/eci-core-pattern=/dump/core-eci"],
    );
    let silent = podman.start("silent", &[]);
    assert_eq!(podman.sh("asks", "cat /proc/sys/kernel/core_pattern"), "/dump/core.%e\n");
    ["asks", "other", "silent"].iter().for_each(|name| podman.crash(name));
    assert!(podman.sh("asks", "ls /dump").starts_with("core.crasher."));
    let (record, copy) = core_of(&host, &user, &asks, user.uid());
    assert_eq!((&record["pattern"], &copy["location"]), (&"/dump/core.%e".into(), &"store".into()));
    // By /etc/subuid, which newuidmap has put into the map of the namespace that podman made.
    let pid: u32 = run(podman.command().args(["inspect", "--format", "{{.State.Pid}}", "other"]))
        .trim()
        .parse()
        .unwrap();
    let subordinate = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert_ne!(subordinate, user.uid());
    core_of(&host, &user, &other, subordinate);
    assert!(host.records_of(&silent).is_empty());

    run(podman.command().args(["rm", "--force", "--all", "--time", "0"]));
    // The containers are gone; the user sees what is his, root all of it.
    let seen = |id: &str, state: &str| (id.to_owned(), state.to_owned());
    assert_eq!(
        listed(&product(&["list", "--json"])),
        [seen(&asks, "present"), seen(&other, "present")]
    );
    assert_eq!(
        listed(&product_of(&user, &["list", "--json"])),
        [seen(&asks, "present"), seen(&other, "inaccessible")]
    );
    // As root of the namespace in which the subordinate IDs are, the user sees those too.
    assert_eq!(
        listed(&run(podman.command().args(["unshare", BINARY, "list", "--json"]))),
        [seen(&asks, "present"), seen(&other, "present")]
    );
    assert!(fs::read_dir(user.run_dir().join("oci-coredump/index")).unwrap().next().is_none());

    product_of(&user, &["uninstall", "--purge"]);
    product(&["uninstall", "--purge"]);
    before.assert_unchanged(&paths);
}

#[test]
fn podman_of_a_user_over_runc() {
    by_podman("runc");
}

#[test]
fn podman_of_a_user_over_crun() {
    by_podman("crun");
}

/// A runtime that a user starts himself: its hooks run outside of the container's user namespace.
#[test]
fn runc_of_a_user() {
    if !require::programs(&user::PROGRAMS) || !require::programs(&["runc"]) {
        return;
    }
    let host = host();
    let user = User::make("ocd-test-a");
    let bundle = user.directory(&user.home().join("bundle"));
    let rootfs = Rootfs::make(&bundle.join("rootfs"));
    rootfs.put(crasher(), "/bin/crasher");
    run(Command::new("chown").arg("-R").arg(user.uid().to_string()).arg(rootfs.path()));
    run(user.command("runc").args(["spec", "--rootless", "--bundle"]).arg(&bundle));
    let mut config: Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    config["process"]["terminal"] = false.into();
    config["process"]["args"] =
        json!(["/bin/sh", "-c", "cat /proc/sys/kernel/core_pattern; /bin/crasher null; exit 7"]);
    config["annotations"] = json!({
        "oci-coredump/pattern": "/dump/core", "oci-coredump/limit": "1M",
        "oci-coredump/filter": "0x13",
    });
    for stage in ["createRuntime", "poststart", "poststop"] {
        config["hooks"][stage] = json!([{
            "path": BINARY, "args": ["oci-coredump", "hook", stage],
            "env": [format!("HOME={}", user.home().display())],
        }]);
    }
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    product(&["install"]);
    let fallback = PathBuf::from(format!("/tmp/podman-run-{}", user.uid()));
    for id in ["byhand", "without-a-session"] {
        if id != "byhand" {
            fs::remove_dir_all(user.run_dir()).unwrap();
        }
        let output = user
            .command("runc")
            .arg("--root")
            .arg(user.home().join("runc"))
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(id)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        assert!(output.stdout.starts_with(b"/dump/core\n"), "{output:?}");
        core_of(&host, &user, id, user.uid());
        assert_eq!(fallback.exists(), id != "byhand");
        product_of(&user, &["uninstall", "--purge"]);
        assert!(touched(&user).iter().all(|path| !path.exists()) && !fallback.exists());
    }
}
