//! Small cores (`export --small`): gdb and `info` show the same stacks of all threads in them as in
//! the core that they were made of.

use std::path::{Path, PathBuf};
use std::process::Command;
use support::program;
use support::require;
use support::stacks::{build, dump, gdb, succeed, told};

/// A program that dies.
struct Case {
    name: &'static str,
    build: &'static [&'static str],
    source: &'static str,
    arguments: &'static [&'static str],
    /// Whether it has 64 MiB of memory.
    is_large: bool,
}

const fn case(
    name: &'static str,
    build: &'static [&'static str],
    source: &'static str,
    arguments: &'static [&'static str],
    is_large: bool,
) -> Case {
    Case { name, build, source, arguments, is_large }
}

const CASES: [Case; 6] = [
    case("small-c", &["gcc", "-g", "-O1", "-pthread"], "large.c", &[], true),
    case("small-static", &["gcc", "-g", "-O1", "-pthread", "-static"], "large.c", &[], true),
    case("small-stripped", &["gcc", "-s", "-O1", "-pthread"], "large.c", &[], true),
    case("small-handler", &["gcc", "-g", "-O1", "-pthread"], "large.c", &["x"], true),
    case("small-cpp", &["g++", "-g", "-O1"], "exception.cpp", &[], false),
    case("small-rust", &["rustc", "-g", "-C", "panic=abort"], "panic.rs", &[], false),
];

fn ours(arguments: &[&str], core: &Path) -> Command {
    let mut command = Command::new(program::program());
    command.args(arguments).arg("--core").arg(core);
    command
}

/// Makes the small core.
fn small(core: &Path, keep: &str) -> PathBuf {
    let small = core.with_extension(keep);
    let option = format!("--small={keep}");
    succeed(ours(&["export", "--core-only", &option], core).arg("-o").arg(&small));
    small
}

/// The stacks of all threads by gdb, with arguments and libraries.
fn gdb_says(program: &Path, core: &Path) -> String {
    let mut gdb = gdb();
    gdb.args(["-ex", "thread apply all backtrace", "-ex", "info sharedlibrary"]);
    let out = succeed(gdb.arg(program).arg(core));
    String::from_utf8(out.stdout).unwrap()
}

/// The same without the threads' handles: in a static program the C library's global variables, by
/// which gdb finds them, are the program's own, and not in a core of stacks only.
fn without_handles(text: &str) -> String {
    let is_note = |line: &str| line.starts_with('[') || line.starts_with("Using host libthread_db");
    let lwp = |line: &str| match line.strip_prefix("Thread ").and(line.split_once("LWP ")) {
        Some((_, number)) => format!("LWP {}\n", number.trim_end_matches([')', ':', ' '])),
        None => format!("{line}\n"),
    };
    text.lines().filter(|line| !is_note(line)).map(lwp).collect()
}

/// The stacks and the modules.
fn we_say(core: &Path) -> [serde_json::Value; 2] {
    let mut told = told(core, Path::new("/"), &[]);
    [told["stacks"].take(), told["core"]["modules"].take()]
}

#[test]
fn stacks_are_those_of_the_whole_core() {
    if !require::programs(&["gdb", "gcc", "g++", "rustc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for case in &CASES {
        let program = build(dir.path(), case.name, case.build, case.source);
        let core = dump(dir.path(), &program, case.arguments, &[]);
        let (theirs, ours) = (gdb_says(&program, &core), we_say(&core));
        assert!(theirs.contains("#1 ") && !ours[0].as_array().unwrap().is_empty(), "{theirs}");
        for keep in ["stacks", "stacks-only"] {
            let small = small(&core, keep);
            assert_eq!(we_say(&small), ours, "{} {keep}", case.name);
            // Where gdb has no names, it reads strings of the heap for them.
            let said = gdb_says(&program, &small);
            if case.name == "small-static" && keep == "stacks-only" {
                let [said, theirs] = [&said, &theirs].map(|text| without_handles(text));
                assert_eq!(said, theirs, "{} {keep}", case.name);
            } else {
                assert_eq!(said, theirs, "{} {keep}", case.name);
            }
            let sizes = [&core, &small].map(|file| file.metadata().unwrap().len());
            let is_small = sizes[1] <= sizes[0] / 20;
            assert!(is_small || !case.is_large, "{} {keep}: {sizes:?} bytes", case.name);
        }
    }
}

fn print(program: &Path, core: &Path, what: &str) -> String {
    // Where the last command fails, gdb does.
    let out = gdb().args(["-ex", "up", "-ex"]).arg(what).arg(program).arg(core).output().unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

/// What is pointed to is there, the rest of the heap is not, and is not shown as zeros.
#[test]
fn of_the_heap_what_is_pointed_to() {
    if !require::programs(&["gdb", "gcc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = &["gcc", "-g", "-O0", "-pthread"];
    let program = build(dir.path(), "small-heap", options, "large.c");
    let core = dump(dir.path(), &program, &[], &[]);
    let secret = |core: &Path| {
        let mut grep = Command::new("grep");
        grep.args(["-q", "-a", "-F", "a secret of the heap"]).arg(core).status().unwrap().success()
    };
    let (stacks, only) = (small(&core, "stacks"), small(&core, "stacks-only"));
    assert!(secret(&core) && !secret(&stacks) && !secret(&only));
    assert!(print(&program, &stacks, "print node->name").contains("a node on the heap"));
    assert!(print(&program, &stacks, "print number").contains("= 77"));
    let said = print(&program, &only, "print node->name");
    assert!(said.contains("Cannot access memory"), "{said}");
}

/// Files that were mapped as data are no modules, of the whole core and of the small one; also
/// where code was dumped, of which a small core keeps nothing.
#[test]
fn modules_are_those_of_the_whole_core() {
    if !require::programs(&["gdb", "gcc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), "small-mapped", &["gcc", "-g", "-O1"], "mapped.c");
    let text = dir.path().join("data");
    std::fs::write(&text, vec![b'a'; 64 << 10]).unwrap();
    let text = text.to_str().unwrap();
    for arguments in [&[text][..], &[text, "0x7f"]] {
        let core = dump(dir.path(), &program, arguments, &[]);
        let [stacks, modules] = we_say(&core);
        let paths: Vec<&str> =
            modules.as_array().unwrap().iter().map(|m| m["path"].as_str().unwrap()).collect();
        assert!(paths.contains(&program.to_str().unwrap()), "{paths:?}");
        assert!(!paths.contains(&text), "{paths:?}");
        for keep in ["stacks", "stacks-only"] {
            let small = small(&core, keep);
            assert_eq!(we_say(&small), [stacks.clone(), modules.clone()], "{keep}");
            assert_eq!(gdb_says(&program, &small), gdb_says(&program, &core), "{keep}");
        }
    }
}

/// A bundle with a small core, and a small one of a bundle.
#[test]
fn bundles() {
    if !require::programs(&["gdb", "gcc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), "small-bundle", &["gcc", "-g", "-pthread"], "large.c");
    let core = dump(dir.path(), &program, &[], &[]);
    let bundle = dir.path().join("small.tar.zst");
    succeed(ours(&["export", "--small"], &core).arg("-o").arg(&bundle));
    let size = bundle.metadata().unwrap().len();
    assert!(size < 16 << 20, "{size} bytes");
    let again = dir.path().join("again");
    let option = ["export", "--small=stacks-only", "--output"];
    let mut command = Command::new(program::program());
    succeed(command.args(option).arg(&again).arg(&bundle));
    assert!(again.metadata().unwrap().len() > 1 << 10);
    // What is no core makes none.
    let out = ours(&["export", "--small"], &program).arg("-o").arg(dir.path().join("x")).output();
    let said = String::from_utf8(out.unwrap().stderr).unwrap();
    assert!(said.contains("it is an ELF file, but not a core"), "{said}");
}
