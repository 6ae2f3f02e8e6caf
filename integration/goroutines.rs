//! `info` on Go programs: the goroutines that wait are those that Go's own runtime prints when it
//! dies, with the same states, functions and lines; also where the program is stripped.

use std::collections::BTreeMap;
use std::path::Path;
use support::require;
use support::stacks::{self, HANDLES, build_go, dump_and_say, go_toolchains};

/// By the number of the goroutine: its state, and its functions with file and line.
type Goroutines = BTreeMap<u64, (String, Vec<String>)>;

/// What the runtime printed: `goroutine 18 [chan receive]:`, then two lines for each function.
fn printed(text: &str) -> Goroutines {
    let mut all = Goroutines::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let head = line.strip_prefix("goroutine ").and_then(|l| l.strip_suffix("]:"));
        let Some((id, state)) = head.and_then(|h| h.split_once(" [").or(h.split_once(" gp=")))
        else {
            continue;
        };
        // `goroutine 18 gp=0xc000 m=nil mp=0x1 [chan receive, locked to thread]:`
        let id = id.split(' ').next().unwrap();
        let state = state.rsplit('[').next().unwrap().split(',').next().unwrap();
        let mut frames = Vec::new();
        while let Some(function) = lines.next_if(|l| !l.is_empty() && !l.starts_with("created by"))
        {
            let Some(place) = lines.next_if(|l| l.starts_with('\t')) else { break };
            let name = function.rfind('(').map_or(function, |end| &function[..end]);
            let place = place.trim().split(" +0x").next().unwrap().split(" fp=").next().unwrap();
            frames.push(format!("{name} at {place}"));
        }
        all.entry(id.parse().unwrap()).or_insert((state.to_owned(), frames));
    }
    all
}

/// What `info` tells, as text too.
fn told(core: &Path, texts: &mut Vec<String>) -> Goroutines {
    let root = Path::new("/");
    texts.push(stacks::info(core, root, &[]));
    let told = stacks::told(core, root, &[]);
    let mut all = Goroutines::new();
    for g in told["goroutines"].as_array().into_iter().flatten() {
        let frame = |f: &serde_json::Value| {
            let text = |key: &str| f[key].as_str().unwrap_or("??").to_owned();
            format!("{} at {}:{}", text("function"), text("file"), f["line"])
        };
        let frames = g["frames"].as_array().unwrap().iter().map(frame).collect();
        let state = g["state"].as_str().unwrap().to_owned();
        all.insert(g["id"].as_u64().unwrap(), (state, frames));
    }
    all
}

fn run(
    go: &Path,
    dir: &Path,
    name: &str,
    options: &[&str],
    texts: &mut Vec<String>,
) -> [Goroutines; 2] {
    let program = build_go(go, dir, name, options, "goroutines.go");
    let (core, said) = dump_and_say(dir, &program, &[], HANDLES);
    [printed(&said), told(&core, texts)]
}

#[test]
fn goroutines_are_those_that_go_prints() {
    if !require::programs(&["gdb", "go"]) {
        return;
    }
    let mut wrong = Vec::new();
    for go in go_toolchains() {
        let dir = tempfile::tempdir().unwrap();
        for (kind, options) in [("whole", &[][..]), ("stripped", &["-ldflags=-s -w"])] {
            let mut texts = Vec::new();
            let [theirs, ours] = run(&go, dir.path(), kind, options, &mut texts);
            let waits = |all: &Goroutines| -> Goroutines {
                let runs = |state: &str| matches!(state, "running" | "idle");
                all.iter()
                    .filter(|(_, (state, _))| !runs(state))
                    .map(|(i, g)| (*i, g.clone()))
                    .collect()
            };
            let theirs = waits(&theirs);
            let receiving = theirs.values().filter(|(state, _)| state == "chan receive").count();
            let text = &texts[0];
            if theirs.len() < 8 || receiving < 3 || ours != theirs {
                let differ: Vec<_> = theirs
                    .iter()
                    .filter(|(id, g)| ours.get(id) != Some(g))
                    .map(|(id, g)| format!("{id}: go's {g:?}, ours {:?}", ours.get(id)))
                    .collect();
                let more: Vec<_> = ours.keys().filter(|id| !theirs.contains_key(id)).collect();
                wrong.push(format!(
                    "{}, {kind}: {} of go's; ours besides: {more:?}\n{}",
                    go.display(),
                    theirs.len(),
                    differ.join("\n")
                ));
            } else if !text.contains("3 goroutines (") || !text.contains(") [chan receive]:") {
                wrong.push(format!("{}, {kind}: {text}", go.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
