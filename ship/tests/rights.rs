//! What the program may: not root's rights, one capability, the calls that the unit's filter lets
//! through. Needs root, to give them away.

#[allow(dead_code)]
mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use support::servers::require;
use support::{Fixture, ID, stderr};

const UNIT: &str = include_str!("../../systemd/oci-coredump-ship.service");

/// Nobody's user and group; the crashed process's.
const NOBODY: u32 = 65534;
const CRASHED: u32 = 12345;

/// Loads the filter of the unit, as libseccomp makes it: names and EPERM. Then becomes a program.
const FILTERED: &str = "
import os, sys, seccomp
names, rest = sys.argv[1].split(','), sys.argv[2:]
f = seccomp.SyscallFilter(seccomp.ERRNO(1))
for name in names:
    try:
        f.add_rule(seccomp.ALLOW, name)
    except RuntimeError:
        pass
f.load()
os.execv(rest[0], rest)
";

/// The calls of a group, and of the groups in it.
fn group(name: &str) -> BTreeSet<String> {
    let out = support::succeed(Command::new("systemd-analyze").args(["syscall-filter", name]));
    let text = String::from_utf8(out.stdout).unwrap();
    let lines =
        text.lines().skip(1).map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines.fold(BTreeSet::new(), |mut all, line| {
        match line.starts_with('@') {
            true => all.extend(group(line)),
            false => drop(all.insert(line.to_owned())),
        }
        all
    })
}

/// The calls that `SystemCallFilter=` of the unit allows.
fn allowed() -> String {
    let mut all = BTreeSet::new();
    for line in UNIT.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        match line.strip_prefix('~') {
            Some(name) => all = &all - &group(name),
            None => all.extend(line.split(' ').flat_map(|name| match name.starts_with('@') {
                true => group(name),
                false => [name.to_owned()].into(),
            })),
        }
    }
    all.into_iter().collect::<Vec<_>>().join(",")
}

/// A store as the dispatcher leaves it: root's and the crashed process's alone.
fn fixture() -> Fixture {
    let fixture = Fixture::new(20);
    let mode = |name: &str, mode: u32| {
        let path = fixture.path(name);
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    mode("store", 0o700);
    mode("store/records", 0o700);
    mode(&format!("store/records/{ID}.jsonl"), 0o600);
    std::fs::set_permissions(&fixture.core, PermissionsExt::from_mode(0o600)).unwrap();
    chown(&fixture.core, Some(CRASHED), Some(CRASHED)).unwrap();
    for name in ["state", "out"] {
        std::fs::create_dir(fixture.path(name)).unwrap();
        chown(fixture.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let text = format!("url = \"file://{}\"\n", fixture.path("out").display());
    fixture.configure(&text);
    fixture
}

/// The program as the unit starts it: as nobody, with these capabilities, below its filter.
fn confined(fixture: &Fixture, capabilities: &str) -> Command {
    let inner = fixture.ship(&["run", "--once"]);
    let mut command = Command::new("setpriv");
    let nobody = NOBODY.to_string();
    command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups", "--no-new-privs"]);
    for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        command.arg(format!("{set}=-all{capabilities}"));
    }
    command.args(["/usr/bin/python3", "-c", FILTERED, &allowed()]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.env_clear().env("PATH", "/usr/bin:/bin").env("TMPDIR", "/tmp");
    command
}

fn can() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give its rights away");
        return false;
    }
    let has = Command::new("/usr/bin/python3").args(["-c", "import seccomp"]).output();
    let has = has.is_ok_and(|out| out.status.success());
    assert!(has || std::env::var_os("CI").is_none(), "CI is set and python3-seccomp is missing");
    has && require("setpriv").is_some() && require("systemd-analyze").is_some()
}

#[test]
fn nobody_with_one_capability() {
    if !can() {
        return;
    }
    let fixture = fixture();
    support::succeed(&mut confined(&fixture, ",+dac_read_search"));
    let dir = fixture.path(&format!("out/prod/shop-0/web/{ID}"));
    assert!(std::fs::read(dir.join("coredump.tar.zst")).unwrap() == fixture.bundle());
    let report = std::fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(report.contains("<li><code>main</code>"), "no stack: {report}");
    // It has written nothing but that.
    for name in ["store", "store/records"] {
        assert_eq!(fixture.path(name).metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[test]
fn nobody_without_it() {
    if !can() {
        return;
    }
    let fixture = fixture();
    std::fs::set_permissions(fixture.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let out = confined(&fixture, "").output().unwrap();
    assert!(!out.status.success() && stderr(&out).contains("ermission denied"), "{}", stderr(&out));
    assert_eq!(std::fs::read_dir(fixture.path("out")).unwrap().count(), 0);
}

/// What systemd says of the unit without running it: 0 is the best, 10 the worst.
#[test]
fn exposure() {
    if require("systemd-analyze").is_none() {
        return;
    }
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/oci-coredump-ship.service");
    let out = support::succeed(Command::new("systemd-analyze").args([
        "security",
        "--offline=true",
        "--no-pager",
        "--threshold=20",
        unit,
    ]));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    eprintln!("{}", line.trim());
}

/// systemd takes openat2(2) from units with these, and with it the helper all that it opens.
#[test]
fn no_unit_loses_openat2() {
    for entry in std::fs::read_dir("../systemd").unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let takes =
            |line: &str| line.starts_with("DynamicUser=") || line.starts_with("RestrictSUIDSGID=");
        assert!(!text.lines().any(takes), "{}", path.display());
    }
}
