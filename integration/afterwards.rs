//! What can be learned of a crash when its container, image and programs are gone, from what was
//! kept with the core. Needs root, runc and gdb.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::bundle::Bundle;
use support::crasher::compile;
use support::host::{BINARY, Host, RUN, STORE};
use support::require;
use support::runtime::{Kind, Runtime};
use support::stacks::{build, functions, names_them, plain, sources, succeed};

/// A program that dies, and the functions that matter on the stack of the crashing thread.
struct Case {
    name: &'static str,
    build: &'static [&'static str],
    source: &'static str,
    arguments: &'static [&'static str],
    expected: &'static [&'static str],
    signal: i32,
}

const CASES: [Case; 7] = [
    Case {
        name: "c-no-build-id",
        build: &["gcc", "-g", "-O1", "-pthread", "-Wl,--build-id=none"],
        source: "crash.c",
        arguments: &[],
        expected: &["innermost", "middle", "main"],
        signal: 11,
    },
    Case {
        name: "c-threads",
        build: &["gcc", "-g", "-O1", "-pthread"],
        source: "crash.c",
        arguments: &["a", "b"],
        expected: &["innermost", "middle", "main"],
        signal: 11,
    },
    Case {
        name: "c-static",
        build: &["gcc", "-g", "-O1", "-pthread", "-static"],
        source: "crash.c",
        arguments: &[],
        expected: &["innermost", "middle", "main"],
        signal: 11,
    },
    Case {
        name: "c-stripped",
        build: &["gcc", "-s", "-O1", "-pthread"],
        source: "crash.c",
        arguments: &[],
        expected: &["??", "??", "??"],
        signal: 11,
    },
    Case {
        name: "cpp-assertion",
        build: &["g++", "-g", "-O1"],
        source: "assertion.cpp",
        arguments: &[],
        expected: &["abort", "__assert_fail", "check", "sell", "main"],
        signal: 6,
    },
    Case {
        name: "cpp-exception",
        build: &["g++", "-g", "-O1"],
        source: "exception.cpp",
        arguments: &[],
        expected: &["abort", "terminate", "__cxa_throw", "open", "main"],
        signal: 6,
    },
    Case {
        name: "rust-panic",
        build: &["rustc", "-g", "-C", "panic=abort"],
        source: "panic.rs",
        arguments: &[],
        expected: &["abort", "panic_fmt", "panic_bounds_check", "open", "main", "lang_start"],
        signal: 6,
    },
];

fn product(args: &[&str]) -> Output {
    succeed(Command::new(BINARY).args(args))
}

fn kept() -> BTreeSet<String> {
    let Ok(all) = fs::read_dir(Path::new(STORE).join("binaries")) else { return BTreeSet::new() };
    let names = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // The files of each account are below `by`.
    names.filter(|name| name != "by").collect()
}

fn told(what: &str) -> Value {
    serde_json::from_slice(&product(&["info", "--json", what]).stdout).unwrap()
}

/// C, C++, Rust and Go in a container that is gone with its files: the stack shows the same
/// functions as gdb, and an exported bundle opens on a machine without the store.
#[test]
fn every_language_when_the_container_is_gone() {
    if !require::programs(&["runc", "gdb", "gcc", "g++", "rustc", "go", "tar", "zstd"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The debugger runs as an unprivileged user, and reads a script there.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut bundle = Bundle::new();
    bundle
        .coredump_hooks(Path::new(BINARY))
        .annotation("oci-coredump/pattern", "/dump/core.%e")
        .env("GOTRACEBACK=crash");
    for case in &CASES {
        bundle.put_dynamic(
            &build(dir.path(), case.name, case.build, case.source),
            &format!("/app/{}", case.name),
        );
    }
    let go = dir.path().join("go");
    succeed(
        Command::new("go")
            .args(["build", "-o"])
            .arg(&go)
            .arg(sources().join("panic.go"))
            .env("GOCACHE", dir.path().join("cache")),
    );
    bundle.put_dynamic(&go, "/app/go");

    let host = Host::take();
    host.install();
    let runtime = Runtime::new(Kind::Runc);
    let container = runtime.start(&bundle, "languages");
    for case in &CASES {
        container.exec(&[&[format!("/app/{}", case.name).as_str()], case.arguments].concat());
    }
    container.exec(&["/bin/sh", "-c", "GOTRACEBACK=crash /app/go"]);
    container.remove();
    host.settle();
    drop(bundle);
    for case in &CASES {
        let exe = format!("exe=/app/{}", case.name);
        let told = told(&exe);
        assert_eq!(told["signal"], case.signal, "{}: {told:#}", case.name);
        let frames = told["stacks"][0]["frames"].as_array().unwrap();
        let ours: Vec<String> =
            frames.iter().map(|f| plain(f["function"].as_str().unwrap_or("??"))).collect();
        let mut rest = ours.iter();
        for expected in case.expected {
            assert!(rest.any(|f| f == expected), "{}: {expected} of {ours:?}", case.name);
        }
        assert_eq!(
            told["stacks"].as_array().unwrap().len(),
            1 + case.arguments.len(),
            "{}",
            case.name
        );
        // gdb, with the arguments that `debug` gives it.
        let mut args = vec!["debug", &exe, "-A", "-nx", "-A", "-q", "-A", "-batch"];
        let script = names_them(dir.path());
        script.iter().for_each(|a| args.extend(["-A", a]));
        assert_eq!(functions(&product(&args)), ours, "{}", case.name);
    }
    let told = told("exe=/app/go");
    let frames = told["stacks"][0]["frames"].as_array().unwrap();
    let ours: Vec<&str> =
        frames.iter().rev().take(3).rev().map(|f| f["function"].as_str().unwrap_or("??")).collect();
    assert_eq!(ours, ["main.main", "runtime.main", "runtime.goexit"], "{told:#}");

    // In another container's root, with only gdb and its libraries.
    let file = dir.path().join("crash.tar.zst");
    product(&["export", "exe=/app/cpp-exception", "-o", file.to_str().unwrap()]);
    drop(host);
    succeed(Command::new("tar").arg("-C").arg(dir.path()).args(["--zstd", "-xf"]).arg(&file));
    let mut elsewhere = Bundle::new();
    elsewhere.put_dynamic(&require::find("gdb").unwrap(), "/usr/bin/gdb");
    let python = fs::read_dir("/usr/lib")
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.to_str().unwrap().starts_with("/usr/lib/python3."));
    for part in python.chain([PathBuf::from("/usr/share/gdb")]).filter(|p| p.exists()) {
        elsewhere.mount("bind", part.to_str().unwrap(), part.to_str().unwrap(), &["rbind", "ro"]);
    }
    elsewhere.bind(&dir.path().join("crash"), "/crash").args(&[
        "/crash/gdb.sh",
        "-nx",
        "-q",
        "-batch",
        "-ex",
        "bt",
    ]);
    let out = runtime.run(&elsewhere, "elsewhere");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let lines: Vec<&str> = ["__cxa_throw", "open", "main"]
        .iter()
        .filter_map(|f| text.lines().find(|l| l.contains(&format!("{f} ("))))
        .collect();
    assert!(lines.len() == 3 && lines[2].contains("exception.cpp:"), "{out:?}");
}

/// The end of the first process removes the container's mounts, including
/// the one that the core is on.
#[test]
fn the_first_process_itself() {
    if !require::programs(&["runc", "gcc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), "program", &["gcc", "-g", "-O1", "-pthread"], "crash.c");
    let mut bundle = Bundle::new();
    bundle.put_dynamic(&program, "/app/program");
    bundle
        .coredump_hooks(Path::new(BINARY))
        .annotation("oci-coredump/pattern", "/dump/core")
        .args(&["/app/program", "a"]);
    let host = Host::take();
    host.install();
    Runtime::new(Kind::Runc).run(&bundle, "init");
    host.settle();
    drop(bundle);
    let told = told("container=init");
    let functions: Vec<&str> = told["stacks"][0]["frames"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|f| f["function"].as_str())
        .collect();
    assert!(
        functions.starts_with(&["innermost", "middle", "main"]) && functions.len() > 3,
        "{functions:?}"
    );
    assert_eq!(told["pid"], 1);
    assert!(told["seconds"].as_f64().is_some_and(|s| s > 0.0 && s < 60.0), "{told:#}");
}

/// One file for each content, readable by root only. Not kept are files that the process itself
/// could not read and files that are too large; and keeping can be disabled.
#[test]
fn what_is_kept_and_what_is_not() {
    if !require::programs(&["runc", "gcc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), "program", &["gcc", "-g", "-pthread"], "crash.c");
    let victim = compile("victim", include_str!("matrix/victim.c"), &["-O0"]);
    let make = || {
        let mut bundle = Bundle::new();
        bundle
            .coredump_hooks(Path::new(BINARY))
            .annotation("oci-coredump/pattern", "/dump/core.%p");
        bundle.put_dynamic(&program, "/app/program");
        bundle.rootfs().put(&victim, "/bin/victim");
        bundle
    };
    let host = Host::take();
    host.install();
    let runtime = Runtime::new(Kind::Runc);
    let binaries = |id: &str| -> Vec<Vec<String>> {
        let list = |r: &Value| {
            r["binaries"].as_object().map_or(vec![], |all| {
                all.values().map(|b| b.as_str().unwrap().to_owned()).collect()
            })
        };
        host.records_of(id).iter().map(list).collect()
    };

    host.configure("[binaries]\nkeep = false\n");
    let bundle = make();
    let container = runtime.start(&bundle, "kept");
    container.exec(&["/app/program"]);
    host.settle();
    assert_eq!((kept(), binaries("kept")), (BTreeSet::new(), vec![vec![]]));

    // Smaller than the C library, larger than the program.
    host.configure("[binaries]\nmax_file = \"200K\"\n");
    container.exec(&["/app/program"]);
    host.settle();
    let first = kept();
    let sizes = |ids: &BTreeSet<String>| -> Vec<u64> {
        ids.iter()
            .map(|id| Path::new(STORE).join("binaries").join(id).metadata().unwrap().len())
            .collect()
    };
    assert!(!first.is_empty() && sizes(&first).iter().all(|s| *s <= 200 << 10), "{first:?}");

    host.configure("");
    container.exec(&["/app/program"]);
    host.settle();
    let all = kept();
    assert!(all.is_superset(&first) && all.len() > first.len());
    let libc = PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6");
    let libc = sizes(&all)
        .iter()
        .zip(&all)
        .find(|(size, _)| **size == libc.metadata().unwrap().len())
        .map(|(_, id)| id.clone());
    let libc = libc.expect("the C library is kept");
    let record = binaries("kept").pop().unwrap();
    assert_eq!(record.iter().cloned().collect::<BTreeSet<_>>(), all);
    let at = |id: &str| Path::new(STORE).join("binaries").join(id);
    let own = &host.records_of("kept").pop().unwrap()["binaries"]["/app/program"];
    assert!(fs::read(at(own.as_str().unwrap())).unwrap() == fs::read(&program).unwrap());
    for id in &all {
        let meta = at(id).metadata().unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o600, 0, 0), "{id}");
    }

    // A second crash changes nothing, and a damaged kept file is not used.
    let before = all.iter().map(|id| at(id).metadata().unwrap().ino()).collect::<Vec<_>>();
    fs::write(at(&libc), b"another").unwrap();
    container.exec(&["/app/program"]);
    host.settle();
    assert_eq!(
        kept().iter().map(|id| at(id).metadata().unwrap().ino()).collect::<Vec<_>>(),
        before
    );
    assert!(!binaries("kept").pop().unwrap().contains(&libc));
    fs::remove_dir_all(Path::new(STORE).join("binaries")).unwrap();

    // A user's program that is made unreadable for the user while it runs: root could
    // read it, the process cannot.
    for (mode, readable) in [(0o755, true), (0o711, false)] {
        let user = &["--user", "1000:1000"];
        let mut waiting = container
            .exec_command(user, &["/bin/victim", "pause"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(waiting.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        fs::set_permissions(
            bundle.rootfs().host_path("/bin/victim"),
            fs::Permissions::from_mode(mode),
        )
        .unwrap();
        container.sh("killall -QUIT victim");
        waiting.wait().unwrap();
        host.settle();
        let own = fs::read(&victim).unwrap();
        assert_eq!(
            kept().iter().any(|id| fs::read(at(id)).unwrap() == own),
            readable,
            "mode {mode:o}: {:?}",
            kept()
        );
        assert_eq!(binaries("kept").pop().unwrap().is_empty(), !readable);
        let _ = fs::remove_dir_all(Path::new(STORE).join("binaries"));
    }
}

/// A second crash of the same program has what was kept with the first one, and its core is not
/// read for it; that of another program is.
#[test]
fn the_same_files_are_not_looked_for_again() {
    if !require::programs(&["runc", "gcc"]) {
        return;
    }
    let victim = compile("victim", include_str!("matrix/victim.c"), &["-O0"]);
    let mut bundle = Bundle::new();
    bundle.coredump_hooks(Path::new(BINARY)).annotation("oci-coredump/pattern", "/dump/core.%p");
    for name in ["one", "two"] {
        bundle.rootfs().put(&victim, &format!("/bin/{name}"));
    }
    let host = Host::take();
    host.install();
    host.configure("summary = false\n");
    let runtime = Runtime::new(Kind::Runc);
    let container = runtime.start(&bundle, "again");
    let crash = |program: &str| {
        container.exec(&[program, "segv"]);
        host.settle();
        host.records_of("again").pop().unwrap()["binaries"].as_object().unwrap().clone()
    };
    let first = crash("/bin/one");
    assert_eq!(first.keys().collect::<Vec<_>>(), ["/bin/one"]);
    assert_eq!(crash("/bin/one"), first);
    // What was noted is what is told.
    let noted = Path::new(RUN).join("limits/again/kept");
    let text = fs::read_to_string(&noted).unwrap();
    fs::write(&noted, text.replace("/bin/one", "/bin/noted")).unwrap();
    assert_eq!(crash("/bin/one").keys().collect::<Vec<_>>(), ["/bin/noted"]);
    assert_eq!(crash("/bin/two").keys().collect::<Vec<_>>(), ["/bin/two"]);
    assert_eq!(crash("/bin/one"), first);
    // Not where the store has it no more.
    fs::remove_dir_all(Path::new(STORE).join("binaries")).unwrap();
    assert_eq!(crash("/bin/one"), first);
    assert_eq!(kept().len(), 1);
}

/// Another container has crashed first with a program of the same build-id and
/// size but different content.
#[test]
fn planted_by_another_container() {
    if !require::programs(&["runc", "gcc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program =
        build(dir.path(), "program", &["gcc", "-g", "-O1", "-pthread", "-static"], "crash.c");
    let mut bytes = fs::read(&program).unwrap();
    let places: Vec<usize> = bytes
        .windows(9)
        .enumerate()
        .filter(|(_, name)| name == b"innermost")
        .map(|(at, _)| at)
        .collect();
    places.iter().for_each(|at| bytes[*at..at + 9].copy_from_slice(b"misguided"));
    let planted = dir.path().join("planted");
    fs::write(&planted, bytes).unwrap();
    fs::set_permissions(&planted, fs::Permissions::from_mode(0o755)).unwrap();

    let host = Host::take();
    host.install();
    let runtime = Runtime::new(Kind::Runc);
    for (id, program) in [("planter", &planted), ("victim", &program)] {
        let mut bundle = Bundle::new();
        bundle
            .coredump_hooks(Path::new(BINARY))
            .annotation("oci-coredump/pattern", "/dump/core.%p");
        bundle.rootfs().put(program, "/app/program");
        let container = runtime.start(&bundle, id);
        container.exec(&["/app/program"]);
        host.settle();
        container.remove();
    }
    let ids: BTreeSet<String> =
        kept().iter().map(|name| name.split_once('-').unwrap().0.to_owned()).collect();
    assert_eq!((kept().len(), ids.len()), (2, 1), "{:?}", kept());
    for (id, function) in [("planter", "misguided"), ("victim", "innermost")] {
        assert_eq!(
            told(&format!("container={id}"))["stacks"][0]["frames"][0]["function"],
            function,
            "{id}"
        );
    }
}

/// The configured rules are applied after a crash, but not after every one.
#[test]
fn the_store_is_cleaned_by_itself() {
    if !require::programs(&["runc", "gcc"]) {
        return;
    }
    let victim = compile("victim", include_str!("matrix/victim.c"), &["-O0"]);
    let mut bundle = Bundle::new();
    bundle.rootfs().put(&victim, "/bin/victim");
    bundle.coredump_hooks(Path::new(BINARY)).annotation("oci-coredump/pattern", "/dump/core.%p");
    let host = Host::take();
    host.install();
    host.configure("[vacuum]\nkeep = 1\n");
    let runtime = Runtime::new(Kind::Runc);
    let container = runtime.start(&bundle, "cleaned");
    let crash = || {
        container.exec(&["/bin/victim", "segv"]);
        host.settle();
        let cores = fs::read_dir(Path::new(STORE).join("containers/cleaned")).unwrap().count();
        (host.records_of("cleaned").len(), cores, kept().len())
    };
    let stamp = Path::new(RUN).join("vacuumed");
    let _ = fs::remove_file(&stamp);
    assert_eq!(crash(), (1, 1, 1));
    // Less than ten minutes have passed.
    assert!(stamp.exists());
    assert_eq!(crash(), (2, 2, 1));
    fs::remove_file(&stamp).unwrap();
    // The binary stays for the remaining crash.
    assert_eq!(crash(), (1, 1, 1));
    container.remove();
}

support::cases!(
    a_program_without_a_name: upgrade("upgrade", " (deleted)"),
    memfd("memfd", "/memfd:payload (deleted)"),
    library("library", "/app/library.so (deleted)")
);

/// The executable was replaced while it ran, or was never a file; a library was removed: they are
/// taken from the process. `name`: the end of the module's path.
fn a_program_without_a_name(how: &str, name: &str) {
    if !require::programs(&["runc", "gcc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let flags = ["gcc", "-g", "-O1"];
    let program = build(dir.path(), "program", &flags, "replaced.c");
    let shared = ["gcc", "-g", "-O1", "-shared", "-fPIC", "-DLIBRARY"];
    let library = build(dir.path(), "library.so", &shared, "replaced.c");
    let host = Host::take();
    host.install();
    let runtime = Runtime::new(Kind::Runc);
    for user in [0, 1000] {
        let mut bundle = Bundle::new();
        bundle
            .coredump_hooks(Path::new(BINARY))
            .annotation("oci-coredump/pattern", "/dump/core")
            .args(&["/app/program", how])
            .user(user, user);
        bundle.put_dynamic(&program, "/app/program");
        bundle.rootfs().put(&library, "/app/library.so");
        bundle.rootfs().directory("/app", 0o777);
        let id = format!("{how}-{user}");
        runtime.run(&bundle, &id);
        host.settle();
        let kept = host.record(&id)["binaries"].as_object().unwrap().clone();
        assert!(kept.keys().any(|path| path.ends_with(name)), "{kept:?}");
        drop(bundle);
        let told = told(&format!("container={id}"));
        let frames = told["stacks"][0]["frames"].as_array().unwrap();
        let functions: Vec<_> = frames.iter().filter_map(|f| f["function"].as_str()).collect();
        assert!(functions.starts_with(&["innermost", "middle", "main"]), "{told:#}");
    }
}

/// `info` in the moment after a crash, while the program is still being copied: with its names.
#[test]
fn info_right_after_the_crash() {
    if !require::programs(&["runc", "gcc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), "program", &["gcc", "-g", "-O1", "-pthread"], "crash.c");
    // So large that the copy takes a while.
    let mut more = fs::OpenOptions::new().append(true).open(&program).unwrap();
    for _ in 0..300 {
        std::io::Write::write_all(&mut more, &[1; 1 << 20]).unwrap();
    }
    let mut bundle = Bundle::new();
    bundle.put_dynamic(&program, "/app/program");
    bundle
        .coredump_hooks(Path::new(BINARY))
        .annotation("oci-coredump/pattern", "/dump/core")
        .args(&["/bin/sh", "-c", "/app/program & wait $!; sleep 1000"]);
    let host = Host::take();
    host.install();
    let runtime = Runtime::new(Kind::Runc);
    let container = runtime.start(&bundle, "early");
    support::wait::wait_for("the whole core", support::fixture::LONG, || {
        host.records_of("early").first().is_some_and(|r| r["outcome"] == "written")
    });
    assert_eq!(host.record("early")["keeping"], true, "the copy was too fast for this test");
    let told = told("container=early");
    assert!(told["keeping"].is_null(), "{told:#}");
    let frames = told["stacks"][0]["frames"].as_array().unwrap();
    let functions: Vec<_> = frames.iter().filter_map(|f| f["function"].as_str()).collect();
    assert!(functions.starts_with(&["innermost", "middle", "main"]), "{told:#}");
    assert!(told["binaries"].as_object().unwrap().contains_key("/app/program"), "{told:#}");
    container.remove();
}
