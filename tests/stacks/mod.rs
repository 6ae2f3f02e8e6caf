//! Programs that die, and their cores, made by gdb's generate-core-file, so that nothing of the machine is changed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[path = "../../integration/support/require.rs"]
#[allow(dead_code)]
pub mod require;

/// Where the sources are.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stacks")
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
    succeed(Command::new(compiler).args(options).arg(sources().join(source)).arg("-o").arg(&program));
    program
}

pub fn gdb() -> Command {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-q", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load off"]).env("LC_ALL", "C").env("GOTRACEBACK", "crash");
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
    gdb.args(["-ex", "run"]).arg("-ex").arg(format!("generate-core-file {}", core.display())).arg("--args").arg(program).args(arguments);
    let out = succeed(&mut gdb);
    assert!(core.exists(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    core
}
