//! Case directories for the hook: each has a bundle's `config.json`, perhaps a `state.json` and a
//! `config.toml`; `expected` is the output of `oci-coredump plan`. `BLESS=1 cargo test --test
//! hook_cases` rewrites the expected side.

use std::path::Path;
use std::process::Command;

#[test]
fn cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut dirs: Vec<_> = std::fs::read_dir(&root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .collect();
    dirs.sort();
    assert!(dirs.len() >= 15, "only {} cases", dirs.len());
    let mut wrong = Vec::new();
    for dir in dirs {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oci-coredump"));
        // Not the configuration of this machine.
        let config = Some(dir.join("config.toml")).filter(|path| path.exists());
        command.arg("plan").arg(&dir).arg("--config");
        command.arg(config.unwrap_or("/dev/null".into()));
        if dir.join("state.json").exists() {
            command.arg("--state").arg(dir.join("state.json"));
        }
        let output = command.output().unwrap();
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        // The project's path is not part of the output.
        let said = String::from_utf8(said).unwrap().replace(dir.to_str().unwrap(), "BUNDLE");
        let said = format!("{said}exit {}\n", output.status.code().unwrap());
        let file = dir.join("expected");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&file, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- said\n{said}", dir.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
