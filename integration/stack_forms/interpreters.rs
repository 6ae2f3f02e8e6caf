//! Programs that an interpreter or a virtual machine runs: the stack has the functions of that,
//! which is said, with the name of what reads the program's own functions from the same core.

use std::path::{Path, PathBuf};
use std::process::Command;
use support::require;
use support::stacks::{HANDLES, dump, frames, info, succeed, told};
use tempfile::TempDir;

/// Dumps a core of `program`, of which `info` must say in which language it is, and show a function
/// of the interpreter whose name begins so.
fn marked(
    program: &Path,
    arguments: &[&str],
    commands: &[&str],
    expected: (&str, &str),
) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let core = dump(dir.path(), program, arguments, commands);
    let root = Path::new("/");
    let (told, text) = (told(&core, root, &[]), info(&core, root, &[]));
    let functions: Vec<&str> =
        frames(&told).iter().filter_map(|f| f["function"].as_str()).collect();
    let (line, function) = expected;
    assert!(text.lines().any(|l| l == line), "{text}");
    assert!(functions.iter().any(|f| f.starts_with(function)), "{functions:#?}");
    (dir, core)
}

/// What another program reads in the core has `function`.
fn reads(reader: &mut Command, function: &str) {
    let out = succeed(reader);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains(function), "{reader:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn interpreter_of_python() {
    // Not a wrapper that starts another one.
    let python = Path::new("/usr/bin/python3");
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let packages = home.join(".cache/oci-coredump-test/python");
    let has_pystack = || {
        let there = python.is_file() && packages.join("pystack").is_dir();
        there || require::skip("pystack is not installed")
    };
    if !require::programs(&["gdb"]) || !has_pystack() {
        return;
    }
    let line = "This is a Python program: the stack has the functions of the interpreter, not \
                those of the program (pystack and py-spy read those from a core)";
    let arguments = ["-c", "import ctypes; ctypes.string_at(0)"];
    let (_dir, core) = marked(python, &arguments, &[], (line, "_PyEval_EvalFrameDefault"));
    let mut pystack = Command::new(python);
    pystack.env("PYTHONPATH", packages).args(["-m", "pystack", "core"]).arg(core).arg(python);
    reads(&mut pystack, "return _string_at(ptr, size)");
}

/// A thread of Java that is in its virtual machine.
#[test]
fn interpreter_of_java() {
    if !require::programs(&["gdb", "java", "jhsdb"]) {
        return;
    }
    let java = require::find("java").unwrap().canonicalize().unwrap();
    let line = "This is a Java program: the stack has the functions of the interpreter, not \
                those of the program (jhsdb of the same JDK reads those from a core)";
    let stop = ["set breakpoint pending on", "break JVM_StartThread"];
    // gdb writes out what was never touched.
    let little = "-Xmx16m -Xss512k -XX:ReservedCodeCacheSize=8m -XX:CompressedClassSpaceSize=4m \
                  -Xshare:off -XX:+UseSerialGC -version";
    let arguments: Vec<&str> = little.split(' ').collect();
    let expected = (line, "JavaCalls::call_helper");
    let (_dir, core) = marked(&java, &arguments, &[HANDLES, &stop].concat(), expected);
    let mut jhsdb = Command::new("jhsdb");
    jhsdb.args(["jstack", "--exe"]).arg(java).arg("--core").arg(core);
    reads(&mut jhsdb, "java.lang.Thread.start0()");
}

#[test]
fn interpreter_of_javascript() {
    if !require::programs(&["gdb", "node"]) {
        return;
    }
    let line = "This is a Node.js program: the stack has the functions of the interpreter, not \
                those of the program";
    let node = require::find("node").unwrap();
    marked(&node, &["-e", "process.abort()"], &[], (line, "node::Abort"));
}
