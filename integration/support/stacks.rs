//! Programs that die, and their cores, made by gdb's generate-core-file, so that nothing
//! of the machine is changed.

use crate::wait::wait_for;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// The configuration, whose mistakes messages name.
const CONFIG: &str = "/etc/oci-coredump/config.toml";

/// Where the sources are.
pub fn sources() -> PathBuf {
    crate::program::repository().join("tests/stacks")
}

pub fn succeed(command: &mut Command) -> Output {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

/// Compiles one of the sources: compiler and options, then its name.
pub fn build(dir: &Path, name: &str, build: &[&str], source: &str) -> PathBuf {
    let program = dir.join(name);
    let (compiler, options) = build.split_first().unwrap();
    succeed(
        Command::new(compiler).args(options).arg(sources().join(source)).arg("-o").arg(&program),
    );
    program
}

pub fn gdb() -> Command {
    let mut gdb = Command::new("gdb");
    gdb.args([
        "-nx",
        "-q",
        "-batch",
        "-iex",
        "set debuginfod enabled off",
        "-iex",
        "set auto-load off",
    ])
    .env("LC_ALL", "C")
    .env("GOTRACEBACK", "crash");
    gdb
}

/// Compiles one of the sources with a toolchain of Go.
pub fn build_go(go: &Path, dir: &Path, name: &str, options: &[&str], source: &str) -> PathBuf {
    let program = dir.join(name);
    let mut build = Command::new(go);
    build.args(["build", "-o"]).arg(&program).args(options).arg(sources().join(source));
    build.env("GOTOOLCHAIN", "local").env("GOFLAGS", "").env("GOCACHE", dir.join("cache"));
    succeed(&mut build);
    program
}

/// For [`dump`]: the program handles SIGSEGV itself, as Go's runtime and Java's do.
pub const HANDLES: &[&str] = &["handle SIGSEGV nostop noprint pass"];

/// Runs the program until it dies, or stops for other `commands` of gdb, and dumps its core.
pub fn dump(dir: &Path, program: &Path, arguments: &[&str], commands: &[&str]) -> PathBuf {
    dump_and_say(dir, program, arguments, commands).0
}

/// The same, with what the program and gdb have said.
pub fn dump_and_say(
    dir: &Path,
    program: &Path,
    arguments: &[&str],
    commands: &[&str],
) -> (PathBuf, String) {
    let core = dir.join(format!("{}.core", program.file_name().unwrap().to_str().unwrap()));
    let generate = format!("generate-core-file {}", core.display());
    let mut gdb = gdb();
    for command in [&["handle SIGURG nostop noprint pass"], commands, &["run", &generate]].concat()
    {
        gdb.args(["-ex", command]);
    }
    let out = succeed(gdb.arg("--args").arg(program).args(arguments));
    let said = [out.stderr, out.stdout].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(core.exists(), "{said}");
    (core, said)
}

/// `info` on a core whose files are below `root`, without what was kept of any.
pub fn info(core: &Path, root: &Path, arguments: &[&str]) -> String {
    let mut info = Command::new(crate::program::program());
    info.args(["info", "--store", "/nonexistent", "--core"]).arg(core);
    info.arg("--sysroot").arg(root).args(arguments);
    // Another test, of the machine, may have a broken configuration in its place at this moment.
    let out = wait_for("the host's configuration in order", Duration::from_secs(120), || {
        let out = info.output().unwrap();
        Some(out).filter(|out| !String::from_utf8_lossy(&out.stderr).contains(CONFIG))
    });
    assert!(out.status.success() && out.stderr.is_empty(), "{info:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// The same as JSON.
pub fn told(core: &Path, root: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&info(core, root, &[&["--json"], arguments].concat())).unwrap()
}

/// The frames of the crashing thread in that.
pub fn frames(told: &Value) -> &[Value] {
    told["stacks"][0]["frames"].as_array().unwrap()
}

/// Their functions, as [`plain`] has them.
pub fn our_functions(told: &Value) -> Vec<String> {
    frames(told).iter().map(|f| plain(f["function"].as_str().unwrap_or("??"))).collect()
}

/// Go toolchains: the one on `PATH`, and those that `integration/tools.sh` has fetched.
pub fn go_toolchains() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let fetched = std::fs::read_dir(home.join(".cache/oci-coredump-test/go"));
    let mut all: Vec<PathBuf> = fetched
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path().join("go/bin/go"))
        .filter(|go| go.is_file())
        .collect();
    all.sort();
    all.extend(crate::require::find("go"));
    all
}

/// Of gdb's Python: the functions of a frame. Of what is inlined into a function that went on by a
/// jump (a tail call), gdb itself shows the innermost one alone.
pub const FUNCTIONS: &str = "
import gdb
def functions(frame):
    if frame.type() == gdb.SIGTRAMP_FRAME: return ['<signal handler called>']
    if frame.type() != gdb.TAILCALL_FRAME: return [frame.name() or '??']
    all, block = [], frame.block()
    while block and not block.is_static:
        if block.function: all.append(block.function.print_name)
        block = block.superblock
    return all
";

/// gdb's functions of the crashing thread.
pub fn gdb_functions(program: &Path, core: &Path) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    functions(&succeed(gdb().args(names_them(dir.path())).arg(program).arg(core)))
}

/// Arguments that make a gdb which knows program and core print the functions.
/// The script lies in `dir`.
pub fn names_them(dir: &Path) -> [String; 6] {
    const SCRIPT: &str = "
f = gdb.newest_frame()
while f:
    for name in functions(f): print('FRAME ' + name)
    f = f.older()
";
    let script = dir.join("script.py");
    std::fs::write(&script, [FUNCTIONS, SCRIPT].concat()).unwrap();
    let script = script.to_str().unwrap();
    ["-ex", "set backtrace past-main on", "-ex", "set backtrace past-entry on", "-x", script]
        .map(str::to_owned)
}

/// What it printed.
pub fn functions(out: &Output) -> Vec<String> {
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|l| l.strip_prefix("FRAME "))
        .map(plain)
        .collect()
}

/// The last component of a name, without what the two sides write differently: arguments
/// of functions and types, the trait of a method, which of several names of one address,
/// how a closure is numbered.
pub fn plain(name: &str) -> String {
    if name.starts_with("<signal") {
        return name.to_owned();
    }
    let name = name.replace("{{closure}}", "{closure}").replace("{closure#0}", "{closure}");
    let (mut depth, mut flat) = (0, String::new());
    for c in name.replace("->", "").chars() {
        match c {
            '<' | '(' => depth += 1,
            '>' | ')' => depth -= 1,
            c if depth == 0 => flat.push(c),
            _ => {}
        }
    }
    let last = flat.trim_end_matches(':').rsplit("::").next().unwrap().split(' ').next().unwrap();
    let last = last.trim_start_matches("__GI_").trim_end_matches("_impl");
    // Rust's panic handler has a name for the linker and one for people.
    if last == "rust_begin_unwind" { "panic_handler".into() } else { last.into() }
}
