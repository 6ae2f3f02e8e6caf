//! `make install`: what is put where, that the hooks.d file means what podman reads, and that
//! `uninstall` takes it back.
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use support::host::Host;
use support::require;
use support::scene::host;

const BINARY: &str = "usr/libexec/oci/hooks.d/oci-coredump";

fn make(target: &str, destination: &Path) {
    let status = Command::new("make")
        .args(["--silent", target, "--directory"])
        .arg(support::program::repository())
        .arg(format!("binary={}", support::program::program().display()))
        .arg(format!("DESTDIR={}", destination.display()))
        // Whether that was built is another test's business.
        .arg("ship_built=")
        .status()
        .unwrap();
    assert!(status.success(), "make {target}");
}

/// Every file below `directory`, relative to it, sorted.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(directory).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn make_install_and_uninstall() {
    if !require::programs(&["make"]) {
        return;
    }
    let destination = TempDir::new().unwrap();
    let root = destination.path();
    make("install", root);
    let expected = [
        "usr/bin/kubectl-coredump",
        "usr/bin/oci-coredump",
        "usr/bin/oci-coredump-runtime",
        "usr/lib/systemd/system/oci-coredump-serve.service",
        "usr/lib/systemd/system/oci-coredump-serve.socket",
        "usr/lib/systemd/system/oci-coredump.service",
        BINARY,
        "usr/libexec/oci/hooks.d/oci-coredump-runtime",
        "usr/share/bash-completion/completions/oci-coredump",
        "usr/share/containers/oci/hooks.d/oci-coredump.json",
        "usr/share/doc/oci-coredump/config.toml",
        "usr/share/fish/vendor_completions.d/oci-coredump.fish",
        "usr/share/man/man1/oci-coredump.1",
        "usr/share/zsh/vendor-completions/_oci-coredump",
    ];
    let (pages, others): (Vec<PathBuf>, Vec<PathBuf>) = files(root)
        .into_iter()
        .partition(|file| file.starts_with("usr/share/man/man1") && !file.ends_with(MAIN_PAGE));
    assert_eq!(others, expected.map(PathBuf::from));
    // A page for each command that the main page names, and no other.
    let main = fs::read_to_string(root.join("usr/share/man/man1").join(MAIN_PAGE)).unwrap();
    let mut named: Vec<PathBuf> = main
        .lines()
        .filter_map(|line| line.strip_prefix(r"\fB")?.strip_suffix(r"\fR(1)"))
        .map(|name| format!("usr/share/man/man1/{}.1", name.replace('\\', "")).into())
        .collect();
    named.sort();
    assert!(named.len() > 15, "{named:?}");
    assert_eq!(pages, named);
    for file in expected {
        assert!(fs::metadata(root.join(BINARY)).unwrap().len() > 0, "{file} is empty");
    }
    // The link is relative, so that it holds below DESTDIR too.
    assert!(
        fs::canonicalize(root.join("usr/bin/oci-coredump"))
            .unwrap()
            .starts_with(root.canonicalize().unwrap())
    );
    assert_eq!(fs::metadata(root.join(BINARY)).unwrap().permissions().mode() & 0o7777, 0o755);

    // Static: it must run where nothing but the kernel is, and no interpreter is named in it.
    let header = Command::new("readelf")
        .args(["--program-headers", "--wide"])
        .arg(root.join(BINARY))
        .output()
        .unwrap();
    let header = String::from_utf8(header.stdout).unwrap();
    assert!(header.contains("LOAD") && !header.contains("INTERP"), "{header}");

    let hook: serde_json::Value = serde_json::from_slice(
        &fs::read(root.join("usr/share/containers/oci/hooks.d/oci-coredump.json")).unwrap(),
    )
    .unwrap();
    assert_eq!(hook["version"], "1.0.0");
    assert_eq!(hook["hook"]["path"], format!("/{BINARY}"));
    // A hook without a timeout can hold up a container for ever.
    assert!(hook["hook"]["timeout"].as_u64().unwrap() > 0);

    make("uninstall", root);
    assert_eq!(files(root), Vec::<PathBuf>::new());
    for directory in ["usr/libexec/oci", "usr/share/containers/oci"] {
        assert!(!root.join(directory).exists(), "{directory} stays");
    }
}

/// The manual page of the program.
const MAIN_PAGE: &str = "oci-coredump.1";

/// `install` and `uninstall` of the binary: the host part.
#[test]
fn the_host_part() {
    let host = host();
    let before = host.sysctl("kernel/core_pattern");
    let run = |verb: &str| support::scene::product(&[verb]).output().unwrap();
    let output = run("install");
    assert!(output.status.success(), "{output:?}");
    assert!(host.sysctl("kernel/core_pattern").starts_with(&format!("|/{BINARY} ")));
    for directory in [support::host::RUN, support::host::STORE] {
        let mode = fs::metadata(directory).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{directory} can be read by others");
    }
    let output = run("doctor");
    assert!(output.status.success(), "doctor finds fault with a fresh installation: {output:?}");
    let output = run("uninstall");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(host.sysctl("kernel/core_pattern"), before);
    assert!(!Path::new(support::host::RUN).exists());
}

/// What the demo changes on the host and must put back: the sysctls, and the files and
/// directories of the installation.
fn traces(host: &Host) -> Vec<String> {
    let sysctls = ["kernel/core_pattern", "kernel/core_uses_pid", "kernel/core_pipe_limit"]
        .map(|name| host.sysctl(name));
    let paths = [
        "/usr/libexec/oci",
        "/usr/bin/oci-coredump",
        "/usr/share/containers/oci",
        "/usr/share/man/man1/oci-coredump.1",
        support::host::RUN,
        support::host::STORE,
    ];
    let there = paths.map(|path| format!("{path}: {}", Path::new(path).exists()));
    let demos = fs::read_dir("/tmp")
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("demo."));
    sysctls
        .into_iter()
        .chain(there)
        .chain(demos.map(|entry| entry.path().display().to_string()))
        .collect()
}

fn demo() -> Command {
    let mut command = Command::new(support::program::repository().join("integration/demo.sh"));
    command.arg(support::program::program()).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// The demo of the README, by podman with its own hooks directory: both patterns, both cores, the
/// backtrace, and the host as it was.
#[test]
fn the_demo() {
    if !require::programs(&["podman", "busybox", "gdb", "gcc", "make"]) {
        return;
    }
    let host = Host::take();
    let before = traces(&host);
    let output = demo().stderr(Stdio::piped()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for line in ["\n/pod/data/dump/core-eci\n", "\n/crash/%e-%s.%p\n"] {
        assert!(printed.contains(line), "{line:?} is not in {printed}");
    }
    assert_eq!(printed.matches("Segmentation fault (core dumped)").count(), 2, "{printed}");
    for function in
        ["#0 ", "#1 ", "#2 "].into_iter().zip(["parse_length", "handle_request", "main"])
    {
        let (frame, name) = function;
        assert!(
            printed.lines().any(|line| line.starts_with(frame) && line.contains(name)),
            "{name}: {printed}"
        );
    }
    assert_eq!(traces(&host), before);
}

/// `^C` in the middle of it.
#[test]
fn the_demo_interrupted() {
    if !require::programs(&["podman", "busybox", "gdb", "gcc", "make"]) {
        return;
    }
    let host = Host::take();
    let before = traces(&host);
    let mut child = demo().spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Both containers run now.
    assert!(
        lines.any(|line| line.unwrap() == "/pod/data/dump/core-eci"),
        "the demo did not come that far"
    );
    assert_ne!(host.sysctl("kernel/core_pattern"), before[0]);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    let status = child.wait().unwrap();
    assert!(!status.success(), "the demo went on: {rest:?}");
    assert_eq!(traces(&host), before);
}
