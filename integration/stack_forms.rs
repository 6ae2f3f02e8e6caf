//! `info` on programs whose names are not in the program: stripped ones, with their debug
//! information in other files, compressed, split, or nowhere. The functions of the crashing thread
//! are those that gdb names on the same core.

#[path = "stack_forms/forms.rs"]
mod forms;
#[path = "stack_forms/go.rs"]
mod go;
#[path = "stack_forms/interpreters.rs"]
mod interpreters;
#[path = "stack_forms/other_architecture.rs"]
mod other_architecture;

use forms::{FORMS, Form, PRELUDE};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::require;
use support::stacks::{self, dump, functions, gdb, names_them, our_functions, sources, succeed};

/// A program below a root of its own, and its core.
struct Crash {
    dir: tempfile::TempDir,
    program: PathBuf,
    core: PathBuf,
}

impl Crash {
    fn new(form: &Form) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        // The program has the same path in its root as here.
        let place = dir.path().join("bin");
        let inside = root.join(place.strip_prefix("/").unwrap());
        std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
        std::fs::create_dir(&place).unwrap();
        let program = place.join("program");
        let id: String = form.name.bytes().map(|b| format!("{b:02x}")).collect();
        succeed(
            Command::new("sh")
                .args(["-euc", &format!("{PRELUDE}{}", form.script)])
                .env("S", sources())
                .env("R", &root)
                .env("P", &program)
                .env("ID", format!("-Wl,--build-id=0x{:0<40.40}", id)),
        );
        let core = dump(dir.path(), &program, &[], &[]);
        // What gdb needs when it makes the core, and nobody has later.
        let after = program.with_extension("after");
        if after.exists() {
            succeed(Command::new("sh").arg("-eu").arg(after).env("P", &program));
        }
        succeed(Command::new("cp").arg("-a").arg(&place).arg(&inside));
        let crash = Crash { dir, program, core };
        for module in crash.told()["core"]["modules"].as_array().unwrap() {
            let path = Path::new(module["path"].as_str().unwrap());
            let Ok(path) = path.strip_prefix("/") else { continue };
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::copy(Path::new("/").join(path), root.join(path)).unwrap();
        }
        crash
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn told(&self) -> serde_json::Value {
        stacks::told(&self.core, &self.root(), &[])
    }

    fn gdbs(&self) -> Vec<String> {
        let whole = self.program.with_extension("whole");
        let program = if whole.exists() { &whole } else { &self.program };
        functions(&succeed(gdb().args(names_them(self.dir.path())).arg(program).arg(&self.core)))
    }
}

#[test]
fn functions_are_gdb_s_in_every_form() {
    let mut wrong = Vec::new();
    for form in &FORMS {
        if !require::programs(&[&["gdb"], form.tools].concat()) {
            continue;
        }
        let crash = Crash::new(form);
        let (ours, theirs) = (our_functions(&crash.told()), crash.gdbs());
        let text = stacks::info(&crash.core, &crash.root(), &[]);
        if ours != theirs {
            wrong.push(format!("{}:\n  gdb:  {theirs:?}\n  ours: {ours:?}\n{text}", form.name));
        }
        let mut rest = ours.iter();
        for expected in form.expected {
            if !rest.any(|f| f == expected) {
                wrong.push(format!("{}: {expected} of {ours:?}", form.name));
            }
        }
        for says in form.says {
            if !text.contains(says) {
                wrong.push(format!("{}: no {says:?} in {text}", form.name));
            }
        }
        let own: String = text.lines().filter(|l| !l.contains("libc")).collect();
        if own.contains(form.never) {
            wrong.push(format!("{}: {:?} in {text}", form.name, form.never));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
