//! Go's own table of functions, in programs that have nothing else.

use std::path::Path;
use support::require;
use support::stacks::{
    HANDLES, build_go, dump, frames, functions, gdb, go_toolchains, names_them, plain, succeed,
    told,
};

/// Builds a Go program, and returns its frames with their source lines as `info` has them, and the
/// functions as gdb has them.
fn go_frames(go: &Path, dir: &Path, name: &str, options: &[&str]) -> (Vec<String>, Vec<String>) {
    let program = build_go(go, dir, name, options, "panic.go");
    let core = dump(dir, &program, &[], HANDLES);
    let told = told(&core, Path::new("/"), &[]);
    let shown = |f: &serde_json::Value| {
        let name = f["function"].as_str().unwrap_or("??");
        format!("{name} at {}:{}", f["file"].as_str().unwrap_or("?"), f["line"])
    };
    let gdbs = functions(&succeed(gdb().args(names_them(dir)).arg(&program).arg(&core)));
    (frames(&told).iter().map(shown).collect(), gdbs)
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
