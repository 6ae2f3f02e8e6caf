//! Cores of another architecture than the machine's.

use std::process::Command;
use support::require;
use support::stacks::{functions, names_them, our_functions, sources, succeed, told};

/// A core of another architecture, as QEMU's user mode writes it: without a list of mapped files.
#[test]
fn a_core_of_the_other_architecture_from_qemu() {
    if !require::programs(&["gdb-multiarch", "aarch64-linux-gnu-gcc", "qemu-aarch64"]) {
        return;
    }
    for (kind, options) in [
        ("dynamic", &["-g", "-O1", "-no-pie"][..]),
        ("static", &["-g", "-O1", "-static"]),
        // gdb cannot tell where this one was loaded: its program headers are not in the core.
        ("pie", &["-g", "-O1", "-pie"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join(kind);
        succeed(
            Command::new("aarch64-linux-gnu-gcc")
                .args(options)
                .arg(sources().join("crash.c"))
                .arg("-o")
                .arg(&program),
        );
        // Its path in the root is the same as here.
        let root = dir.path().join("root");
        let inside = root.join(program.strip_prefix("/").unwrap());
        std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
        std::fs::copy(&program, &inside).unwrap();
        succeed(Command::new("cp").args(["-a", "/usr/aarch64-linux-gnu/lib"]).arg(&root));
        let place = dir.path().join("cores");
        std::fs::create_dir(&place).unwrap();
        let died = Command::new("sh")
            .args(["-c", "ulimit -c unlimited; exec qemu-aarch64 -L \"$1\" \"$2\"", "sh"])
            .arg(&root)
            .arg(&program)
            .current_dir(&place)
            .output()
            .unwrap();
        assert!(!died.status.success());
        let core = std::fs::read_dir(&place)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.to_str().is_some_and(|p| p.ends_with(".core")))
            .unwrap_or_else(|| panic!("{died:?}"));
        let told = told(&core, &root, &[]);
        let ours = our_functions(&told);
        let sysroot = format!("set sysroot {}", root.display());
        let theirs = functions(&succeed(
            Command::new("gdb-multiarch")
                .args(["-nx", "-q", "-batch", "-iex", "set debuginfod enabled off", "-iex"])
                .arg(sysroot)
                .args(names_them(dir.path()))
                .arg(&program)
                .arg(&core),
        ));
        if kind != "pie" {
            assert_eq!(ours, theirs, "{kind}: {told:#}");
        }
        assert_eq!(ours.get(..3), Some(&["innermost", "middle", "main"].map(str::to_owned)[..]));
        let modules = told["core"]["modules"].as_array().unwrap();
        let has = |name: &str| modules.iter().any(|m| m["path"].as_str().unwrap().ends_with(name));
        assert!(has(kind) && has("libc.so.6") == (kind != "static"), "{modules:#?}");
    }
}
