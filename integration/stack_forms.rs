//! `info` on programs whose names are not in the program: stripped ones, with their debug
//! information in other files, compressed, split, or nowhere. The functions of the crashing thread
//! are those that gdb names on the same core.

use std::path::{Path, PathBuf};
use std::process::Command;
use support::program;
use support::require;
use support::stacks::{dump, functions, gdb, go_toolchains, names_them, plain, sources, succeed};

/// A program, and where its debug information is.
struct Form {
    name: &'static str,
    /// Makes `$P`, the program, and what else there is below `$R`, its root. Where gdb is to read
    /// another file than `$P`, that is `$P.whole`. `$P.after` is run when
    /// there is a core. `$S` has the sources, `$ID` is an option of the linker.
    script: &'static str,
    tools: &'static [&'static str],
    /// The functions that matter, in order.
    expected: &'static [&'static str],
    /// What the text has.
    says: &'static [&'static str],
    /// What it must not have.
    never: &'static str,
}

/// With all names: `price` is inlined into `sum`.
const ALL: &[&str] = &["price", "sum", "sell", "main"];
/// From a table of symbols, which knows nothing of inlined functions.
const SYMBOLS: &[&str] = &["sum", "sell", "main"];
const LINES: &[&str] = &["basket.cpp:7", "basket.cpp:16", "till.cpp:7", "till.cpp:13"];

const FORMS: [Form; 12] = [
    Form {
        name: "separate-by-build-id",
        script: r#"g++ -g -O1 $ID "$S"/basket.cpp "$S"/till.cpp -o "$P.whole"
            id=$(readelf -n "$P.whole" | sed -n 's/.*Build ID: //p')
            mkdir -p "$R/usr/lib/debug/.build-id/${id%"${id#??}"}"
            objcopy --only-keep-debug "$P.whole" "$R/usr/lib/debug/.build-id/${id%"${id#??}"}/${id#??}.debug"
            strip -o "$P" "$P.whole""#,
        tools: &["g++", "objcopy"],
        expected: ALL,
        says: LINES,
        never: "??",
    },
    Form {
        name: "separate-symbols-only",
        script: r#"g++ -O1 $ID "$S"/basket.cpp "$S"/till.cpp -o "$P.whole"
            id=$(readelf -n "$P.whole" | sed -n 's/.*Build ID: //p')
            mkdir -p "$R/usr/lib/debug/.build-id/${id%"${id#??}"}"
            objcopy --only-keep-debug "$P.whole" "$R/usr/lib/debug/.build-id/${id%"${id#??}"}/${id#??}.debug"
            strip -o "$P" "$P.whole""#,
        tools: &["g++", "objcopy"],
        expected: SYMBOLS,
        says: &["shop::Basket::sum"],
        never: "??",
    },
    Form {
        name: "dwz",
        script: r#"g++ -g -gdwarf-4 -O1 $ID "$S"/basket.cpp "$S"/till.cpp -o "$P.whole"
            g++ -g -gdwarf-4 -O1 -DOTHER "$S"/basket.cpp "$S"/till.cpp -o "$P.other"
            id=$(readelf -n "$P.whole" | sed -n 's/.*Build ID: //p')
            d="$R/usr/lib/debug/.build-id/${id%"${id#??}"}"; mkdir -p "$d" "$R/usr/lib/debug/.dwz"
            strip -o "$P" "$P.whole"
            objcopy --only-keep-debug "$P.whole" "$d/${id#??}.debug"
            objcopy --only-keep-debug "$P.other" "$P.other.debug"
            dwz -m "$R/usr/lib/debug/.dwz/common" -M /usr/lib/debug/.dwz/common \
                "$d/${id#??}.debug" "$P.other.debug"
            readelf -S "$d/${id#??}.debug" | grep -q gnu_debugaltlink"#,
        tools: &["g++", "objcopy", "dwz"],
        expected: ALL,
        says: LINES,
        never: "??",
    },
    Form {
        name: "debuglink",
        script: r#"g++ -g -O1 -Wl,--build-id=none "$S"/basket.cpp "$S"/till.cpp -o "$P.whole"
            mkdir "${P%/*}/.debug"
            objcopy --only-keep-debug "$P.whole" "${P%/*}/.debug/program.debug"
            strip -o "$P" "$P.whole"
            objcopy --add-gnu-debuglink="${P%/*}/.debug/program.debug" "$P""#,
        tools: &["g++", "objcopy"],
        expected: ALL,
        says: LINES,
        never: "??",
    },
    Form {
        name: "debuglink-in-usr-lib-debug",
        script: r#"g++ -g -O1 $ID "$S"/basket.cpp "$S"/till.cpp -o "$P.whole"
            d="$R/usr/lib/debug${P%/*}"; mkdir -p "$d"
            objcopy --only-keep-debug "$P.whole" "$d/program.debug"
            strip -o "$P" "$P.whole"
            objcopy --add-gnu-debuglink="$d/program.debug" "$P""#,
        tools: &["g++", "objcopy"],
        expected: ALL,
        says: LINES,
        never: "??",
    },
    Form {
        name: "debuglink-of-another-build",
        script: r#"g++ -g -O1 -Wl,--build-id=none "$S"/basket.cpp "$S"/till.cpp -o "$P.whole"
            objcopy --only-keep-debug "$P.whole" "${P%/*}/program.debug"
            strip -o "$P" "$P.whole"
            objcopy --add-gnu-debuglink="${P%/*}/program.debug" "$P"
            printf x >> "${P%/*}/program.debug"; cp "$P" "$P.whole""#,
        tools: &["g++", "objcopy"],
        expected: &["??", "??", "??"],
        says: &[],
        never: "basket.cpp",
    },
    Form {
        name: "gnu-debugdata",
        script: r#"g++ -g -O1 $ID "$S"/basket.cpp "$S"/till.cpp -o "$P"
            objcopy -S --remove-section .gdb_index --keep-symbols /dev/null "$P" "$P.small" || true
            objcopy --only-keep-debug "$P" "$P.small"
            strip --strip-debug "$P.small"
            xz -f "$P.small"; strip "$P"
            objcopy --add-section .gnu_debugdata="$P.small.xz" "$P"; rm "$P.small.xz""#,
        tools: &["g++", "objcopy", "xz"],
        expected: SYMBOLS,
        says: &["shop::Basket::sum", "sell(shop::Basket const&)"],
        never: "??",
    },
    Form {
        name: "package",
        script: r#"g++ -g -O1 $ID "$S"/basket.cpp "$S"/till.cpp -o "$P" \
            -Xlinker --package-metadata='{"type":"deb","os":"debian","name":"shop","version":"1.2-3"}'"#,
        tools: &["g++"],
        expected: ALL,
        says: &["Package: shop 1.2-3 (deb of debian)\n"],
        never: "??",
    },
    Form {
        name: "split-dwarf-4",
        script: r#"cd "${P%/*}"; g++ -gdwarf-4 -gsplit-dwarf -O1 $ID "$S"/basket.cpp "$S"/till.cpp -o "$P""#,
        tools: &["g++"],
        expected: ALL,
        says: LINES,
        never: "not found: ",
    },
    Form {
        name: "split-dwarf-5",
        script: r#"cd "${P%/*}"; g++ -gdwarf-5 -gsplit-dwarf -O1 $ID "$S"/basket.cpp "$S"/till.cpp -o "$P""#,
        tools: &["g++"],
        expected: ALL,
        says: LINES,
        never: "not found: ",
    },
    Form {
        // binutils' dwp knows DWARF 4 only.
        name: "split-dwarf-package",
        script: r#"cd "${P%/*}"; g++ -gdwarf-4 -gsplit-dwarf -O1 $ID "$S"/basket.cpp "$S"/till.cpp -o "$P"
            dwp -e "$P" -o "$P.dwp"; rm *.dwo"#,
        tools: &["g++", "dwp"],
        expected: ALL,
        says: LINES,
        never: "not found: ",
    },
    Form {
        name: "split-dwarf-lost",
        script: r#"cd "${P%/*}"; g++ -gdwarf-5 -gsplit-dwarf -O1 $ID "$S"/basket.cpp "$S"/till.cpp -o "$P"
            strip -g -o "$P.whole" "$P"
            printf 'rm "$P"-*.dwo' > "$P.after""#,
        tools: &["g++"],
        expected: SYMBOLS,
        says: &["split debug information not found: /", "/program-basket.dwo\n"],
        never: ".cpp:",
    },
];

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
                .args(["-euc", form.script])
                .env("S", sources())
                .env("R", &root)
                .env("P", &program)
                .env("ID", format!("-Wl,--build-id=0x{:0<40.40}", id)),
        );
        let core = dump(dir.path(), &program, &[], false);
        // What gdb needs when it makes the core, and nobody has later.
        let after = program.with_extension("after");
        if after.exists() {
            succeed(Command::new("sh").arg("-eu").arg(after).env("P", &program));
        }
        succeed(Command::new("cp").arg("-a").arg(&place).arg(&inside));
        let crash = Crash { dir, program, core };
        let told: serde_json::Value = serde_json::from_str(&crash.info(&["--json"])).unwrap();
        for module in told["core"]["modules"].as_array().unwrap() {
            let path = Path::new(module["path"].as_str().unwrap());
            let Ok(path) = path.strip_prefix("/") else { continue };
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::copy(Path::new("/").join(path), root.join(path)).unwrap();
        }
        crash
    }

    fn info(&self, arguments: &[&str]) -> String {
        let root = self.dir.path().join("root");
        let out = succeed(
            Command::new(program::program())
                .args(["info", "--store", "/nonexistent", "--core"])
                .arg(&self.core)
                .arg("--sysroot")
                .arg(root)
                .args(arguments),
        );
        assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn ours(&self) -> Vec<String> {
        let told: serde_json::Value = serde_json::from_str(&self.info(&["--json"])).unwrap();
        let frames = told["stacks"][0]["frames"].as_array().unwrap();
        frames.iter().map(|f| plain(f["function"].as_str().unwrap_or("??"))).collect()
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
        let (ours, theirs) = (crash.ours(), crash.gdbs());
        let text = crash.info(&[]);
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

/// Of a Python program the stack has the interpreter's functions, which is said.
#[test]
fn an_interpreter_is_marked() {
    let python = Path::new("/usr/bin/python3");
    if !require::programs(&["gdb"]) || !python.is_file() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let core = dump(dir.path(), python, &["-c", "import ctypes; ctypes.string_at(0)"], false);
    let out = succeed(
        Command::new(program::program())
            .args(["info", "--store", "/nonexistent", "--sysroot", "/", "--core"])
            .arg(&core),
    );
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("This is a Python program: the stack has the functions"), "{text}");
}

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
        let out = succeed(
            Command::new(program::program())
                .args(["info", "--json", "--store", "/nonexistent", "--core"])
                .arg(&core)
                .arg("--sysroot")
                .arg(&root),
        );
        let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let frames = told["stacks"][0]["frames"].as_array().unwrap();
        let ours: Vec<String> =
            frames.iter().map(|f| plain(f["function"].as_str().unwrap_or("??"))).collect();
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

/// Builds a Go program, and returns its frames with their source lines as `info` has them, and the
/// functions as gdb has them.
fn go_frames(go: &Path, dir: &Path, name: &str, options: &[&str]) -> (Vec<String>, Vec<String>) {
    let program = dir.join(name);
    succeed(
        Command::new(go)
            .args(["build", "-o"])
            .arg(&program)
            .args(options)
            .arg(sources().join("panic.go"))
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "")
            .env("GOCACHE", dir.join("cache")),
    );
    let core = dump(dir, &program, &[], true);
    let out = succeed(
        Command::new(program::program())
            .args(["info", "--json", "--store", "/nonexistent", "--sysroot", "/", "--core"])
            .arg(&core),
    );
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let frames = told["stacks"][0]["frames"].as_array().unwrap();
    let shown = |f: &serde_json::Value| {
        let name = f["function"].as_str().unwrap_or("??");
        format!("{name} at {}:{}", f["file"].as_str().unwrap_or("?"), f["line"])
    };
    let gdbs = functions(&succeed(gdb().args(names_them(dir)).arg(&program).arg(&core)));
    (frames.iter().map(shown).collect(), gdbs)
}

/// A stripped Go program has its functions, files and lines in the table of its runtime: the same
/// as with debug information, down to the function that the runtime starts `main` from.
#[test]
fn stripped_go_has_its_names() {
    if !require::programs(&["gdb", "go"]) {
        return;
    }
    let mut wrong = Vec::new();
    let toolchains = go_toolchains();
    for (i, go) in toolchains.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, gdbs) = go_frames(go, dir.path(), "whole", &[]);
        let strip: &[&str] = &["-ldflags=-s -w"];
        let (stripped, _) = go_frames(go, dir.path(), "stripped", strip);
        let mut all = vec![("stripped", stripped)];
        if i + 1 == toolchains.len() {
            let pie = [strip, &["-buildmode=pie"]].concat();
            all.push(("pie", go_frames(go, dir.path(), "pie", &pie).0));
        }
        let plain_names = |frames: &[String]| -> Vec<String> {
            frames.iter().map(|f| plain(f.rsplit_once(" at ").unwrap().0)).collect()
        };
        let sure = gdbs.iter().take_while(|f| *f != "??" && !f.starts_with('<')).count();
        for (kind, frames) in all {
            let ours = plain_names(&frames);
            let has_main = frames.iter().any(|f| {
                f.starts_with("main.(*till).open at ") && f.ends_with("tests/stacks/panic.go:7")
            });
            if sure < 4 || ours.get(..sure) != Some(&gdbs[..sure]) || frames != whole || !has_main {
                wrong.push(format!(
                    "{}, {kind}:\n  gdb:   {gdbs:?}\n  whole: {whole:#?}\n  ours:  {frames:#?}",
                    go.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
