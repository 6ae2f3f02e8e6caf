//! Programs that die, and their cores, made by gdb's generate-core-file, so that nothing
//! of the machine is changed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

/// Runs the program until it dies and dumps its core.
pub fn dump(dir: &Path, program: &Path, arguments: &[&str], handles: bool) -> PathBuf {
    let core = dir.join(format!("{}.core", program.file_name().unwrap().to_str().unwrap()));
    let mut gdb = gdb();
    gdb.args(["-ex", "handle SIGURG nostop noprint pass"]);
    if handles {
        gdb.args(["-ex", "handle SIGSEGV nostop noprint pass"]);
    }
    gdb.args(["-ex", "run"])
        .arg("-ex")
        .arg(format!("generate-core-file {}", core.display()))
        .arg("--args")
        .arg(program)
        .args(arguments);
    let out = succeed(&mut gdb);
    assert!(
        core.exists(),
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    core
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

/// gdb's functions of the crashing thread.
pub fn gdb_functions(program: &Path, core: &Path) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    functions(&succeed(gdb().args(names_them(dir.path())).arg(program).arg(core)))
}

/// Arguments that make a gdb which knows program and core print the functions.
/// The script lies in `dir`.
pub fn names_them(dir: &Path) -> [String; 6] {
    const SCRIPT: &str = "python
f = gdb.newest_frame()
while f:
    if f.type() == gdb.SIGTRAMP_FRAME: print('FRAME <signal handler called>')
    elif f.type() != gdb.TAILCALL_FRAME: print('FRAME ' + (f.name() or '??'))
    f = f.older()
";
    let script = dir.join("script");
    std::fs::write(&script, SCRIPT).unwrap();
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
