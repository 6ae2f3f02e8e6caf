//! `info` on real cores: the functions on the stack of the crashing thread are those that gdb
//! names, in the same order.
//!
//! The cores are made by gdb's generate-core-file, so that nothing of the machine is changed.

use std::path::Path;
use std::process::Command;
use support::require;
use support::stacks::{HANDLES, build, build_go, dump, gdb_functions, plain, succeed};

/// A program that dies.
struct Case {
    name: &'static str,
    /// Compiler and its options; the source and `-o` are added.
    build: &'static [&'static str],
    source: &'static str,
    arguments: &'static [&'static str],
    /// Whether it handles SIGSEGV itself, and dies of what comes then.
    handles: bool,
    /// The functions that matter, in order.
    expected: &'static [&'static str],
    /// What the signal's words hold.
    signal: &'static str,
}

const CASES: [Case; 12] = [
    Case {
        name: "cpp-short-names",
        build: &["g++", "-g", "-O0"],
        source: "short_names.cpp",
        arguments: &[],
        handles: false,
        expected: &["d", "Sa", "v", "main"],
        signal: "SIGSEGV (11): address not mapped at 0x0",
    },
    Case {
        name: "c-dynamic",
        build: &["gcc", "-g", "-O1", "-pthread"],
        source: "crash.c",
        arguments: &[],
        handles: false,
        expected: &["innermost", "middle", "main"],
        signal: "SIGSEGV (11): address not mapped at 0x0",
    },
    Case {
        name: "c-static",
        build: &["gcc", "-g", "-O1", "-pthread", "-static"],
        source: "crash.c",
        arguments: &[],
        handles: false,
        expected: &["innermost", "middle", "main"],
        signal: "SIGSEGV (11): address not mapped at 0x0",
    },
    Case {
        name: "c-threads",
        build: &["gcc", "-g", "-O2", "-pthread"],
        source: "crash.c",
        arguments: &["a", "b", "c"],
        handles: false,
        expected: &["innermost", "middle", "main"],
        signal: "SIGSEGV (11): address not mapped at 0x0",
    },
    Case {
        name: "c-stripped",
        build: &["gcc", "-s", "-O2", "-pthread"],
        source: "crash.c",
        arguments: &[],
        handles: false,
        expected: &["??", "??", "??"],
        signal: "SIGSEGV (11): address not mapped at 0x0",
    },
    Case {
        name: "c-frame-pointers",
        build: &["gcc", "-g", "-O0", "-pthread", "-fno-omit-frame-pointer"],
        source: "crash.c",
        arguments: &[],
        handles: false,
        expected: &["innermost", "middle", "main"],
        signal: "SIGSEGV (11): address not mapped at 0x0",
    },
    Case {
        name: "c-handler",
        build: &["gcc", "-g", "-O1"],
        source: "handler.c",
        arguments: &[],
        handles: true,
        expected: &["abort", "give_up", "<signal handler called>", "fault", "main"],
        signal: "SIGABRT (6): raised by the process itself",
    },
    Case {
        name: "c-nowhere",
        build: &["gcc", "-g", "-O1"],
        source: "nowhere.c",
        arguments: &[],
        handles: false,
        expected: &["??", "caller", "main"],
        signal: "SIGSEGV (11): address not mapped at 0x0",
    },
    Case {
        name: "cpp-assertion",
        build: &["g++", "-g", "-O1"],
        source: "assertion.cpp",
        arguments: &[],
        handles: false,
        expected: &["abort", "__assert_fail", "check", "sell", "main"],
        signal: "SIGABRT (6): raised by the process itself",
    },
    Case {
        name: "cpp-exception",
        build: &["g++", "-g", "-O1"],
        source: "exception.cpp",
        arguments: &[],
        handles: false,
        expected: &["abort", "terminate", "__cxa_throw", "open", "main"],
        signal: "SIGABRT (6): raised by the process itself",
    },
    Case {
        name: "cpp-exception-static",
        build: &["g++", "-g", "-O1", "-static"],
        source: "exception.cpp",
        arguments: &[],
        handles: false,
        expected: &["abort", "terminate", "__cxa_throw", "open", "main"],
        signal: "SIGABRT (6): raised by the process itself",
    },
    Case {
        name: "rust-panic",
        build: &["rustc", "-g", "-C", "panic=abort"],
        source: "panic.rs",
        arguments: &[],
        handles: false,
        expected: &["abort", "panic_fmt", "panic_bounds_check", "open", "main", "lang_start"],
        signal: "SIGABRT (6): raised by the process itself",
    },
];

fn info(arguments: &[&str], core: &Path) -> String {
    let out = succeed(
        Command::new(env!("CARGO_BIN_EXE_oci-coredump"))
            .args(["info", "--core"])
            .arg(core)
            .args(arguments),
    );
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn our_functions(core: &Path) -> Vec<String> {
    let told: serde_json::Value =
        serde_json::from_str(&info(&["--sysroot", "/", "--json"], core)).unwrap();
    let frames = told["stacks"][0]["frames"].as_array().unwrap();
    frames.iter().map(|f| plain(f["function"].as_str().unwrap_or("??"))).collect()
}

#[test]
fn functions_are_gdb_s() {
    if !require::programs(&["gdb", "gcc", "g++", "rustc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for case in &CASES {
        let program = build(dir.path(), case.name, case.build, case.source);
        let commands = if case.handles { HANDLES } else { &[] };
        let core = dump(dir.path(), &program, case.arguments, commands);
        let (theirs, ours) = (gdb_functions(&program, &core), our_functions(&core));
        if ours != theirs {
            wrong.push(format!("{}:\n  gdb:  {theirs:?}\n  ours: {ours:?}", case.name));
        }
        let mut rest = ours.iter();
        for expected in case.expected {
            assert!(rest.any(|f| f == expected), "{}: {expected} of {ours:?}", case.name);
        }
        let text = info(&["--sysroot", "/"], &core);
        assert!(text.contains(case.signal), "{}: {text}", case.name);
        assert_eq!(
            text.matches("Stack of ").count() > 1,
            !case.arguments.is_empty(),
            "{}: {text}",
            case.name
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// gdb 13 stops at Go's signal frame, since Go has its own; we do not.
#[test]
fn go_through_its_signal_frame_to_main() {
    if !require::programs(&["gdb", "go"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = build_go(Path::new("go"), dir.path(), "go", &[], "panic.go");
    let core = dump(dir.path(), &program, &[], HANDLES);
    let (theirs, ours) = (gdb_functions(&program, &core), our_functions(&core));
    let sure = theirs.iter().take_while(|f| *f != "??" && !f.starts_with('<')).count();
    assert!(sure > 3 && theirs[..sure] == ours[..sure], "{theirs:?}\n{ours:?}");
    let end: Vec<&str> = ours.iter().rev().take(5).rev().map(String::as_str).collect();
    assert_eq!(
        end,
        ["main.(*till).open", "main.sell", "main.main", "runtime.main", "runtime.goexit"]
            .map(plain),
        "{ours:?}"
    );
}

/// A file that has the module's path but is another build is not used; a kept binary
/// with the right build-id is.
#[test]
fn files_count_by_build_id() {
    if !require::programs(&["gdb", "gcc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), "c-static", CASES[1].build, CASES[1].source);
    let core = dump(dir.path(), &program, &[], &[]);
    let inside = |root: &Path| root.join(program.strip_prefix("/").unwrap());
    let root = dir.path().join("root");
    std::fs::create_dir_all(inside(&root).parent().unwrap()).unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir_all(store.join("binaries")).unwrap();
    let (root_, store_) = (root.to_str().unwrap(), store.to_str().unwrap());
    let text = || info(&["--sysroot", root_, "--store", store_], &core);

    assert!(text().contains("not found") && !text().contains("innermost"), "{}", text());
    std::fs::write(inside(&root), b"#!/bin/sh").unwrap();
    assert!(text().contains("not used: not an ELF file"), "{}", text());
    std::fs::copy("/bin/true", inside(&root)).unwrap();
    assert!(
        text().contains("not used: another build has this path now")
            && !text().contains("innermost"),
        "{}",
        text()
    );
    std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();

    let told: serde_json::Value = serde_json::from_str(&info(&["--json"], &core)).unwrap();
    let id = told["core"]["modules"][0]["build_id"].as_str().unwrap();
    let kept = |n: u8| store.join("binaries").join(format!("{id}-{n:032x}"));
    std::fs::copy(&program, kept(1)).unwrap();
    assert!(text().contains("kept") && text().contains("innermost at "), "{}", text());
    // Somebody has made another of the same build-id: no record says which it is.
    std::fs::copy(&program, kept(2)).unwrap();
    assert!(
        text().contains("not used: another build") && !text().contains("innermost at "),
        "{}",
        text()
    );
    std::fs::remove_dir_all(store.join("binaries")).unwrap();
    std::fs::copy(&program, inside(&root)).unwrap();
    assert!(text().contains("in its root") && text().contains("middle at "), "{}", text());
}

/// A damaged file is reported in one line.
#[test]
fn damaged_cores_are_named() {
    if !require::programs(&["gdb", "gcc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), "c-static", CASES[1].build, CASES[1].source);
    let whole = std::fs::read(dump(dir.path(), &program, &[], &[])).unwrap();
    let arm = [&whole[..18], &[40, 0], &whole[20..]].concat();
    let narrow = [&whole[..4], &[1], &whole[5..]].concat();
    for (bytes, says) in [
        (&whole[..0], "it is empty"),
        (&b"hello, this is no core"[..], "it is not an ELF file"),
        (&whole[..40], "it ends in its ELF header"),
        (&whole[..100], "it ends in its segment headers"),
        (&[0x28, 0xb5, 0x2f, 0xfd, 0], "decompress: "),
        (&arm, "it is of a machine whose cores cannot be read (ELF machine 40)"),
        (&narrow, "it is a 32-bit core"),
        (&std::fs::read(&program).unwrap(), "it is an ELF file, but not a core"),
    ] {
        let core = dir.path().join("bad");
        std::fs::write(&core, bytes).unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_oci-coredump"))
            .args(["info", "--core"])
            .arg(&core)
            .output()
            .unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{says}");
        assert!(
            said.starts_with(&format!(
                "oci-coredump: info: {} cannot be read: {says}",
                core.display()
            )) && said.lines().count() == 1,
            "{said}"
        );
    }
}
