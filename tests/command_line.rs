//! The command line as people get it wrong: what is said, in one line, and with which exit status.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::fuse::{Answer, Fuse};
use support::wait::wait_for;

#[path = "command_line/scene.rs"]
mod scene;

use scene::{PROGRAM, Scene, text};

/// More than anything here takes.
const SOON: Duration = Duration::from_secs(30);

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| {
        use std::os::unix::fs::MetadataExt;
        meta.uid() == 0
    })
}

/// Command, exit status, and what the message has in this order: the verb, the object, the cause.
const WRONG: &[(&str, i32, &[&str])] = &[
    ("", 2, &["Usage: oci-coredump"]),
    ("lisst", 2, &["lisst", "list"]),
    ("list --since soon", 2, &["soon", "--since", "expected a date"]),
    ("list --until 25:00", 2, &["25:00", "--until", "expected a date"]),
    ("list podd=x", 2, &["podd=x", "no field", "pod"]),
    ("info -n x", 2, &["x", "-n"]),
    ("vacuum", 2, &["--max-size", "--keep"]),
    ("vacuum --max-size much", 2, &["much", "--max-size", "expected a size"]),
    ("vacuum --max-age soon", 2, &["soon", "--max-age", "expected a date"]),
    ("rm --store @store", 2, &["rm:", "MATCH", "--all"]),
    ("rm s3://cores/x --yes", 2, &["rm:", "s3://cores/x", "uploaded", "`info`"]),
    ("list obs://cores/x", 2, &["list:", "obs://cores/x", "uploaded", "`info`"]),
    ("list --follow gs://cores/x", 2, &["list:", "gs://cores/x", "uploaded"]),
    ("report az://cores/x -o @out", 2, &["report:", "az://cores/x", "report.html"]),
    ("export web", 2, &["--output"]),
    ("doctor solaris", 2, &["solaris", "podman"]),
    ("doctor --config x", 2, &["ENGINE"]),
    ("enable web", 2, &["--pattern"]),
    ("completions tcsh", 2, &["tcsh", "bash"]),
    ("man lisst", 1, &["man:", "lisst"]),
    // A store.
    ("list --store @nowhere", 1, &["list:", "nowhere", "no such directory"]),
    ("list --follow --store @nowhere", 1, &["list:", "nowhere", "no such directory"]),
    ("list --follow --store @directory", 1, &["list:", "directory", "no records"]),
    ("list --store @text", 1, &["list: store", "text", "Not a directory"]),
    ("list --store @fifo", 1, &["list: store", "fifo", "Not a directory"]),
    ("list --store @dangling", 1, &["list:", "dangling", "no such directory"]),
    ("list --store @empty-store", 1, &["list: no crash in", "empty-store", "matches"]),
    ("list --store @store nobody", 1, &["list: no crash in", "store", "matches"]),
    ("info --store @nowhere", 1, &["info:", "nowhere", "no such directory"]),
    ("debug --store @nowhere", 1, &["debug:", "nowhere", "no such directory"]),
    ("export --store @nowhere -o @out", 1, &["export:", "nowhere", "no such directory"]),
    ("report --store @nowhere -o @out", 1, &["report:", "nowhere", "no such directory"]),
    ("rm --all --store @nowhere", 1, &["rm:", "nowhere", "no such directory"]),
    ("vacuum --keep 1 --store @nowhere", 1, &["vacuum:", "nowhere", "no such directory"]),
    ("metrics --store @nowhere", 1, &["metrics:", "nowhere", "no such directory"]),
    ("rm web --store @store", 1, &["rm:", "no terminal to confirm on", "--yes"]),
    // A core.
    ("info --core @nowhere/core", 1, &["info: open", "nowhere/core", "No such file"]),
    ("info --core @directory", 1, &["info: open", "directory", "not a regular file"]),
    ("info --core @fifo", 1, &["info: open", "fifo", "not a regular file"]),
    ("info --core @text", 1, &["info:", "text", "not an ELF file"]),
    ("info --core @empty", 1, &["info:", "empty"]),
    ("info --core @program", 1, &["info:", "program", "not a core"]),
    ("info --core @program --sysroot @nowhere", 1, &["info: --sysroot", "nowhere", "No such file"]),
    ("debug --core @text --debugger /bin/true", 1, &["debug:", "text", "not an ELF file"]),
    ("debug --core @empty --debugger /bin/true", 1, &["debug:", "empty", "it is empty"]),
    ("debug --core @program --debugger /bin/true", 1, &["debug:", "program", "not a core"]),
    ("debug --core @program --debugger gdbb", 1, &["debug:", "install gdb", "gdbb", "PATH"]),
    ("debug --core @program --debugger @text", 1, &["debug:", "text", "not executable"]),
    (
        "debug @nowhere.tar.zst --debugger /bin/true",
        1,
        &["debug:", "nowhere.tar.zst", "No such file"],
    ),
    ("debug @text.tar.zst --debugger /bin/true", 1, &["debug:", "text.tar.zst", "not compressed"]),
    ("info @nowhere.tar.zst", 1, &["info:", "nowhere.tar.zst", "No such file"]),
    ("info @text.tar.zst", 1, &["info:", "text.tar.zst", "not compressed"]),
    ("info @text.tar.zst --sysroot /", 2, &["info: --sysroot does not apply", "text.tar.zst"]),
    ("info s3://b/k -n 2", 2, &["info: -n does not apply", "s3://b/k"]),
    ("info s3://b/k web", 2, &["info: another MATCH does not apply", "s3://b/k"]),
    ("info s3://b/k --since today", 2, &["info: --since does not apply", "s3://b/k"]),
    ("debug s3://b/k --store @store --debugger /bin/true", 2, &["debug: --store does not apply"]),
    (
        "debug @text.tar.zst --sysroot / --debugger /bin/true",
        2,
        &["debug: --sysroot does not apply"],
    ),
    ("export s3://b/k --core-only -o @out", 2, &["export: --core-only does not apply", "s3://"]),
    ("export @text.tar.zst -o @out", 2, &["export:", "text.tar.zst", "already"]),
    ("export --core @text -o @out", 1, &["export:", "text", "not an ELF file"]),
    ("export --core @text --core-only -o @out", 1, &["export:", "text", "not an ELF file"]),
    ("export --core @program -o @out", 1, &["export:", "program", "not a core"]),
    (
        "export --core @program --core-only -o @nowhere/x",
        1,
        &["export: make", "nowhere/x", "No such file"],
    ),
    ("export --core @program --core-only -o @directory", 1, &["export: make", "directory"]),
    ("export --core @program --core-only -o @x/", 2, &["export:", "x/ names no file"]),
    ("export web --store @store -o @out", 1, &["export: core /dump/core", "not an ELF file"]),
    ("report web --store @store -o @nowhere/x", 1, &["report: make", "nowhere/x", "No such file"]),
    ("report web --store @store -o @x/", 2, &["report:", "x/ names no file"]),
    (
        "metrics --store @store --textfile @nowhere/x",
        1,
        &["metrics: write", "nowhere/x", "No such file"],
    ),
    ("metrics --store @store --textfile @x/", 2, &["metrics:", "x/ names no file"]),
    // A bundle.
    ("plan @nowhere", 1, &["plan: open", "nowhere/config.json", "No such file"]),
    ("plan @directory", 1, &["plan: open", "directory/config.json", "No such file"]),
    ("plan @directory --config @nowhere", 1, &["plan:", "nowhere", "No such file"]),
    ("plan @directory --state @nowhere", 1, &["plan: read", "nowhere", "No such file"]),
];

/// What only root gets to.
const OF_ROOT: &[(&str, i32, &[&str])] = &[
    (
        "enable --pid 999999999 --pattern /core",
        1,
        &["enable: --pid 999999999: there is no such process"],
    ),
    (
        "enable web --pid 999999999 --pattern /core",
        1,
        &["enable: --pid 999999999: there is no such"],
    ),
    ("enable --pid -1 --pattern /core", 2, &["-1"]),
    ("verify --runtime /bin/true", 1, &["verify: create did nothing", "/true an OCI runtime?"]),
    (
        "verify --runtime /bin/false",
        1,
        &["verify: there is no container: create", "exit status: 1"],
    ),
    ("verify --runtime @nowhere", 1, &["verify: --runtime", "nowhere", "No such file"]),
    ("verify --runtime @text", 1, &["verify: --runtime", "text", "not executable"]),
    ("verify --runtime no-such-runtime", 1, &["verify: --runtime", "no-such-runtime", "PATH"]),
];

/// What only root of the host may do, asked for by somebody else.
const OF_OTHERS: &[&str] = &[
    "enable --pid 1 --pattern /core",
    "disable web",
    "install",
    "verify --runtime /bin/true",
    "watch --once",
];

fn check(output: &Output, line: &str, status: i32, says: &[&str]) -> Result<(), String> {
    let said = text(&output.stderr);
    let mut rest = said.as_str();
    let in_order = says.iter().all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    });
    // The parser shows the usage too.
    let is_short =
        status == 2 && said.starts_with("error: ") || said.lines().count() == 1 || line.is_empty();
    match output.status.code() == Some(status) && in_order && is_short {
        true => Ok(()),
        false => Err(format!("`{line}`: {}, expected {status} {says:?}:\n{said}", output.status)),
    }
}

#[test]
fn what_is_wrong_is_said_in_a_line() {
    let scene = Scene::new();
    let mut wrong = Vec::new();
    let of_root = if is_root() { OF_ROOT } else { &[] };
    for (line, status, says) in WRONG.iter().chain(of_root) {
        let command = if line.is_empty() {
            let mut bare = Command::new(PROGRAM);
            bare.stdin(Stdio::null());
            bare
        } else {
            scene.command(line)
        };
        let output = Command::new("timeout")
            .arg("60")
            .arg(command.get_program())
            .args(command.get_args())
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        wrong.extend(check(&output, line, *status, says).err());
    }
    // Nothing was made on the way.
    for name in ["nowhere", "out", "x", "directory/records"] {
        if scene.path(name).exists() {
            wrong.push(format!("{name} was made"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_only_root_may_do() {
    // Where somebody else may reach the program.
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let program = dir.path().join("oci-coredump");
    std::fs::copy(PROGRAM, &program).unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let mut wrong = Vec::new();
    for line in OF_OTHERS {
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
                    .arg(&program);
                command
            }
            false => Command::new(&program),
        };
        let output = command.args(line.split(' ')).output().unwrap();
        let verb = line.split(' ').next().unwrap();
        let says =
            format!("oci-coredump: {verb}: only root of the host may do this; run it with sudo");
        wrong.extend(check(&output, line, 1, &[&says]).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A reader that goes away is no failure; a full disk is.
#[test]
fn a_closed_or_full_stdout() {
    let scene = Scene::new();
    let mut wrong = Vec::new();
    for line in [
        "list --store @store",
        "list --store @store --json",
        "info --store @store --json",
        "metrics --store @store",
        "vacuum --keep 5 --store @store",
        "man",
        "man list",
        "completions zsh",
        "--help",
        "list --help",
        "--version",
        "report web --store @store -o -",
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = scene.command(line).stdout(full).output().unwrap();
        if output.status.code() != Some(1) {
            wrong.push(format!("`{line}` > /dev/full: {}", output.status));
        }
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = scene.command(line).stdout(writer).output().unwrap();
        if !output.status.success() || !output.stderr.is_empty() {
            wrong.push(format!("`{line}` | true: {}: {}", output.status, text(&output.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every form in which a signal is known finds its crashes.
#[test]
fn signals_by_any_name() {
    let scene = Scene::new();
    for name in ["segv", "SEGV", "SIGSEGV", "sigsegv", "11", "SIG*"] {
        let output = scene.run(&format!("list --store @store signal={name}"));
        assert!(text(&output.stdout).contains("nginx"), "{name}: {}", text(&output.stderr));
    }
    assert_eq!(scene.run("list --store @store signal=abrt").status.code(), Some(1));
}

/// The core of the record is no core: that is shown, and is a failure for a script.
#[test]
fn info_without_a_stack_fails() {
    let scene = Scene::new();
    for line in ["info --store @store", "info --store @store --json"] {
        let output = scene.run(line);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{line}: {said}");
        assert!(said.contains("not an ELF file"), "{line}: {said}");
    }
    let screen = text(&scene.run("info --store @store").stdout);
    let first: Vec<&str> =
        screen.lines().filter_map(|line| line.trim_start().split(':').next()).collect();
    assert_eq!(
        first[..6],
        ["Signal", "Command", "Executable", "Time", "Container", "Core"],
        "{screen}"
    );
}

#[test]
fn a_time_zone_that_is_none() {
    let scene = Scene::new();
    let output =
        scene.command("list --store @store --since 2026-01-01").env("TZ", "Mars/Base").output();
    let output = output.unwrap();
    assert!(output.status.success());
    assert_eq!(
        text(&output.stderr),
        "oci-coredump: TZ=\"Mars/Base\": there is no such time zone, times are read and shown in \
         UTC\n"
    );
}

/// What is no regular file is written to, not replaced.
#[test]
fn a_device_stays_a_device() {
    let scene = Scene::new();
    let link = scene.path("null");
    symlink("/dev/null", &link).unwrap();
    for line in [
        "report web --store @store -o @null",
        "export --core @program --core-only -o @null",
        "metrics --store @store --textfile @null",
    ] {
        let output = scene.run(line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("/dev/null"), "{line}");
    }
}

/// A file system on which every file has a name from the start, and which takes its time: however
/// the writer ends, its temporary file goes.
#[test]
fn nothing_is_left_of_an_interrupted_file() {
    if !is_root() {
        return eprintln!("skipped: only root can mount");
    }
    let scene = Scene::new();
    std::fs::OpenOptions::new()
        .append(true)
        .open(scene.path("program"))
        .and_then(|mut core| core.write_all(&[1; 1 << 20]))
        .unwrap();
    for signal in ["INT", "TERM", "KILL"] {
        let target = Fuse::mount();
        target.on_write(64 << 10, Answer::Hold);
        let line = format!(
            "export --core @program --core-only -o {}",
            target.path().join("core").display()
        );
        let mut export = scene.command(&line).spawn().unwrap();
        assert!(target.wait_held(SOON), "it has ended before it wrote much");
        assert_eq!(target.names().len(), 1, "{:?}", target.names());
        let id = export.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
        target.go_on();
        assert!(!export.wait().unwrap().success(), "{signal}");
        wait_for("the file to go", SOON, || target.names().is_empty());
    }
}
