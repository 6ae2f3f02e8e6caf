//! The crashing programs, compiled once by gcc: static, so that they run in any root file system.
//!
//! * [`crasher`] is freestanding (no C library): its memory is the same in every run but for
//!   the 16 bytes of AT_RANDOM. `crasher null` dies of SIGSEGV at once; its options are at the
//!   top of `crashers/crasher.c`.
//! * [`parent`] starts it in a given environment (credentials, limits, namespaces, PID)
//!   and tells its PID and raw wait status on standard output; its options are at the
//!   top of `crashers/parent.c`.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program that dies.
pub fn crasher() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let flags = [
        "-nostdlib",
        "-ffreestanding",
        "-fno-stack-protector",
        "-fno-pie",
        "-no-pie",
        "-fcf-protection=none",
        "-mgeneral-regs-only",
        "-fno-tree-loop-distribute-patterns",
        "-Wl,--build-id=none",
    ];
    PATH.get_or_init(|| compile("crasher", include_str!("crashers/crasher.c"), &flags))
}

/// The program that starts it and waits for it.
pub fn parent() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| compile("parent", include_str!("crashers/parent.c"), &[]))
}

/// Compiles a C source into a static program with debug information; the
/// same source is compiled once.
pub fn compile(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    compile_as(name, source, &[&["-static"], flags].concat())
}

/// The same, linked as the flags say.
pub fn compile_as(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let directory = crate::program::scratch().join("crashers");
    let program = directory.join(name);
    let kept = directory.join(format!("{name}.c"));
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    if program.exists() && fs::read(&kept).is_ok_and(|old| old == source.as_bytes()) {
        return program;
    }
    // Test binaries may run at the same time: each compiles in a directory of its own,
    // then the last rename wins.
    let own = tempfile::tempdir_in(&directory).unwrap();
    let fresh = own.path().join(program.file_name().unwrap());
    let text = own.path().join(kept.file_name().unwrap());
    fs::write(&text, source).unwrap();
    let output = Command::new("gcc")
        .args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-omit-frame-pointer"])
        .args(flags)
        .arg("-o")
        .args([&fresh, &text])
        .output()
        .expect("gcc is not installed");
    assert!(output.status.success(), "gcc {name}.c: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&fresh, &program).unwrap();
    fs::rename(&text, &kept).unwrap();
    program
}
