//! The map in `src/lib.rs`, held: who may use whom, that no files use each other in a circle, and
//! where `unsafe` and the kernel's crates may stand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// From the bottom up. A module may use those of the layers below it, and, in the second and third
/// layer, those named beside it.
const LAYERS: [&[&str]; 4] = [
    &["sys"],
    &[
        "bytes",
        "cause",
        "first_process",
        "pattern",
        "record",
        "limits",
        "name_conflict",
        "config",
        "annotation",
    ],
    &[
        "elf",
        "report",
        "store",
        "registry",
        "users",
        "sysctl",
        "corefile",
        "crash_counts",
        "vacuum",
        "container_identity",
    ],
    &["hook", "dump", "engine", "runtime_check", "cli"],
];

/// The crates that make system calls.
const CRATES: [&str; 6] = ["nix", "rustix", "libc", "caps", "linux_raw_sys", "seccompiler"];

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn all() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let name = |p: &PathBuf| p.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    files.iter().map(|p| (name(p), std::fs::read_to_string(p).unwrap())).collect()
}

/// The module of a file below `src`: its first component, without `.rs`.
fn module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.contains(&module))
}

/// The modules that the text names as `crate::x`, one or several in braces.
fn used(text: &str) -> BTreeSet<&str> {
    let mut out = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            out.insert(first_word(rest));
            continue;
        };
        let (mut depth, mut from) = (0, 0);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    out.insert(first_word(&list[from..i]));
                    from = i + 1;
                }
                _ => continue,
            }
            if c == '}' && depth == 0 && from == i + 1 {
                break;
            }
        }
    }
    out.remove("");
    out
}

fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// The drawings in `src/lib.rs` and docs/design.md name the modules of each layer, in this order.
#[test]
fn the_drawings_show_these_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["src/lib.rs", "docs/design.md"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        for layer in LAYERS {
            let names = layer.join(", ");
            let cells = text.lines().flat_map(|line| line.trim_start_matches("//! ").split("  "));
            assert!(cells.map(str::trim).any(|c| c == names), "{file} has no layer {names}");
        }
    }
}

#[test]
fn every_module_uses_only_what_stands_below_it() {
    let mut wrong = Vec::new();
    let mut edges = 0;
    for (file, text) in all() {
        let me = module(&file);
        if matches!(me, "main" | "lib" | "documents" | "fuzzing" | "invariants") {
            continue;
        }
        let mine = layer(me).unwrap_or_else(|| {
            panic!(
                "src/{file}: module `{me}` is in no layer of tests/layers.rs; say in src/lib.rs \
                 where it stands"
            )
        });
        for other in used(&text) {
            let Some(theirs) = layer(other) else { continue };
            edges += 1;
            let allowed = other == me
                || theirs < mine
                || (theirs == mine && (mine == 1 || mine == 2))
                || me == "cli";
            if !allowed {
                wrong.push(format!("src/{file} uses crate::{other}"));
            }
        }
    }
    assert!(edges > 30, "only {edges} uses were seen: the test does not see the code any more");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_kernel_is_in_one_place() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (file, text) in all() {
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//"))
        {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let fenced = words.contains(&"unsafe")
                || words.windows(3).any(|w| {
                    CRATES.contains(&w[0])
                        && w[1].is_empty()
                        && line.contains(&format!("{}::", w[0]))
                });
            seen += usize::from(fenced);
            if fenced && module(&file) != "sys" {
                wrong.push(format!("src/{file}:{}: {}", i + 1, line.trim()));
            }
        }
    }
    assert!(seen > 50, "only {seen} lines were seen");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reader_of_uses_reads() {
    assert_eq!(
        used("use crate::sys::{a, b};\nuse crate::{config, sysctl};"),
        BTreeSet::from(["sys", "config", "sysctl"])
    );
    assert_eq!(used("crate::registry::check_id(x)"), BTreeSet::from(["registry"]));
    assert_eq!(used("use crate::{config::{A, B}, hook};"), BTreeSet::from(["config", "hook"]));
}

/// The text without comments, strings and characters, and without what only tests compile.
fn code(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |i| i + 2),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#\"") => {
                let close = if rest.starts_with("r#") { "\"#" } else { "\"" };
                let open = rest.find('"').unwrap() + 1;
                rest[open..].find(close).map_or(rest.len(), |i| open + i + close.len())
            }
            '"' => end_of_string(rest),
            // A character, not a lifetime.
            '\'' if rest[1..].starts_with('\\') => {
                rest[3..].find('\'').map_or(rest.len(), |i| i + 4)
            }
            '\'' if rest.chars().nth(2) == Some('\'') => {
                rest.chars().take(3).map(char::len_utf8).sum()
            }
            _ => {
                // Words as a whole: the `r` at the end of one begins no string.
                let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0);
                let n = word.max(c.len_utf8());
                out.push_str(&rest[..n]);
                rest = &rest[n..];
                continue;
            }
        };
        out.push(' ');
        rest = &rest[end..];
    }
    without_tests(&out)
}

fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

/// The code without each item that `#[cfg(test)]` stands before.
fn without_tests(code: &str) -> String {
    let mut parts = code.split("#[cfg(test)]");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut depth = 0;
        let end = part.char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            depth == 0 && matches!(c, ';' | '}')
        });
        out.push_str(end.map_or("", |(i, _)| &part[i + 1..]));
    }
    out
}

/// The module of a file below `src`, as a path from the crate's root.
fn path_of(file: &str) -> Vec<String> {
    let name = file.trim_end_matches(".rs").trim_end_matches("/mod");
    name.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

/// Every path of a `use`, with its groups taken apart.
fn expand(tree: &str, before: &[String], out: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let Some((start, group)) = tree.split_once('{') else {
        let tree = tree.split(" as ").next().unwrap_or_default();
        let parts = tree.split("::").map(|part| part.trim().to_owned());
        let path = before.iter().cloned().chain(parts.filter(|p| !p.is_empty() && p != "self"));
        return out.push(path.collect());
    };
    let parts = start.split("::").map(|part| part.trim().to_owned()).filter(|p| !p.is_empty());
    let before: Vec<String> = before.iter().cloned().chain(parts).collect();
    let (mut depth, mut from) = (0, 0);
    let group = group.trim_end().trim_end_matches('}');
    for (i, c) in group.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            expand(&group[from..i], &before, out);
            from = i + 1;
        }
    }
    if !group[from..].trim().is_empty() {
        expand(&group[from..], &before, out);
    }
}

/// The paths that a piece of code names: those of `use`, and those in the code itself.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    let mut body = String::new();
    for statement in code.split_inclusive(';') {
        let start = statement.rfind("use ").filter(|at| {
            let before = statement[..*at].trim_end();
            before.is_empty() || before.ends_with(['{', '}', ')', ']']) || before.ends_with("pub")
        });
        match start {
            Some(at) => {
                body.push_str(&statement[..at]);
                expand(statement[at + 4..].trim_end_matches(';'), &[], &mut out);
            }
            None => body.push_str(statement),
        }
    }
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let named = body.split(|c| !is_path(c)).filter(|word| word.contains("::"));
    out.extend(
        named.map(|word| {
            word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
        }),
    );
    out
}

/// Which file uses which, by their names.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// A parent that declares a module does not use it by that. A name that a module only passes on
/// (`pub use`) is taken for that of the module where it comes from.
fn graph(files: &[(String, String)]) -> Graph {
    let modules: BTreeMap<Vec<String>, &str> = files
        .iter()
        .filter(|(file, _)| file != "main.rs")
        .map(|(file, _)| (path_of(file), file.as_str()))
        .collect();
    let codes: BTreeMap<&str, String> =
        files.iter().map(|(file, text)| (file.as_str(), code(text))).collect();
    // From the crate's root. `None`: it is of another crate, or of the file's own.
    let absolute = |me: &[String], path: &[String]| -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut base = me.to_vec();
        match first.as_str() {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            "self" => {}
            name => {
                base.push(name.to_owned());
                modules.get(&base)?;
            }
        }
        let ups = rest.iter().take_while(|part| *part == "super").count();
        base.truncate(base.len().saturating_sub(ups));
        base.extend_from_slice(&rest[ups..]);
        Some(base)
    };
    let passed_on = |me: &[String], name: &String| -> Option<Vec<String>> {
        let code = &codes[modules.get(me)?];
        let mut all = Vec::new();
        let code =
            code.replace("pub(crate) use ", "pub use ").replace("pub(super) use ", "pub use ");
        for tree in code.split("pub use ").skip(1) {
            expand(tree.split(';').next()?, &[], &mut all);
        }
        let found = all.iter().find(|path| path.last() == Some(name))?;
        absolute(me, found)
    };
    let target = |mut path: Vec<String>| -> Option<&str> {
        for _ in 0..8 {
            let known = (0..=path.len()).rev().find(|n| modules.contains_key(&path[..*n]))?;
            match path.get(known).and_then(|name| passed_on(&path[..known], name)) {
                Some(there) if there != path => path = there,
                _ => return modules.get(&path[..known]).copied(),
            }
        }
        None
    };
    let mut graph = Graph::new();
    for (me, file) in &modules {
        let used = paths(&codes[file]).into_iter().filter_map(|path| target(absolute(me, &path)?));
        let used = used.filter(|other| other != file).map(str::to_owned).collect();
        graph.insert((*file).to_owned(), used);
    }
    graph
}

/// The files that use each other, directly or by way of others.
fn circles(graph: &Graph) -> Vec<Vec<&str>> {
    let reach = |from: &str| -> BTreeSet<&str> {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(file) = next.pop() {
            for other in graph.get(&file).into_iter().flatten() {
                if seen.insert(other.as_str()) {
                    next.push(other.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|file| (file.as_str(), reach(file))).collect();
    let mut out = BTreeSet::new();
    for (file, there) in &reached {
        let circle: Vec<&str> = there
            .iter()
            .filter(|other| reached.get(*other).is_some_and(|back| back.contains(file)))
            .copied()
            .collect();
        if circle.len() > 1 {
            out.insert(circle);
        }
    }
    out.into_iter().collect()
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let files = all();
    let graph = graph(&files);
    let edges: usize = graph.values().map(BTreeSet::len).sum();
    assert!(edges > 300, "only {edges} uses were seen: the test does not see the code any more");
    let found = circles(&graph);
    assert!(found.is_empty(), "files that use each other in a circle: {found:#?}");
}

#[test]
fn the_finder_of_circles_finds() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = [
        file("lib.rs", "pub mod a; pub mod b; pub mod c; pub mod d;"),
        file("a.rs", "use crate::{b::{X, Y}, d};\nfn f() {}"),
        file("b/mod.rs", "pub mod in_b;\nfn f() { let x = in_b::f('\"'); }"),
        file("b/in_b.rs", "fn f() -> &'static str { super::super::c::f(\"crate::d\") }"),
        file("c.rs", "// crate::d\npub use crate::a::Z;\npub fn f() {}"),
        file("d.rs", "use crate::c::Z as W;\n#[cfg(test)]\nmod tests { use crate::a; fn f() {} }"),
    ];
    let graph = graph(&files);
    assert_eq!(graph["a.rs"], BTreeSet::from(["b/mod.rs".to_owned(), "d.rs".to_owned()]));
    // `Z` is of `a`, which `c` only passes on.
    assert_eq!(graph["d.rs"], BTreeSet::from(["a.rs".to_owned()]));
    assert_eq!(circles(&graph), [vec!["a.rs", "b/in_b.rs", "b/mod.rs", "c.rs", "d.rs"]]);
    let mut less = graph.clone();
    less.get_mut("c.rs").unwrap().clear();
    assert_eq!(circles(&less), [vec!["a.rs", "d.rs"]]);
    less.get_mut("d.rs").unwrap().clear();
    assert!(circles(&less).is_empty());
}

/// The program that the kernel and the engines start has no network in it: that is in `ship`.
#[test]
fn no_network_in_the_helper() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none"])
        .args(["--package", env!("CARGO_PKG_NAME")])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let tree = String::from_utf8(out.stdout).unwrap();
    let crates: BTreeSet<&str> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(crates.contains("serde_json"), "the tree was not read: {tree}");
    let network = ["http", "hyper", "reqwest", "ring", "rustls", "tokio", "object_store", "ureq"];
    let found: Vec<_> = network.iter().filter(|name| crates.contains(**name)).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// The rooms below a module, and which uses which: a directory with everything in it, or a file.
/// The module's own file is one of them, without a name.
fn rooms(graph: &Graph, above: &[String]) -> Graph {
    let room = |file: &str| -> Option<String> {
        let path = path_of(file);
        let below = path.strip_prefix(above)?;
        Some(below.first().cloned().unwrap_or_default())
    };
    let mut out = Graph::new();
    for (file, used) in graph {
        let Some(me) = room(file) else { continue };
        let mut others: BTreeSet<String> = used.iter().filter_map(|other| room(other)).collect();
        others.remove(&me);
        out.entry(me).or_default().extend(others);
    }
    out
}

#[test]
fn no_rooms_use_each_other_in_a_circle() {
    let graph = graph(&all());
    let mut above: BTreeSet<Vec<String>> = BTreeSet::new();
    for file in graph.keys() {
        let path = path_of(file);
        above.extend((0..path.len()).map(|n| path[..n].to_vec()));
    }
    let mut wrong = Vec::new();
    for module in &above {
        let rooms = rooms(&graph, module);
        wrong.extend(circles(&rooms).into_iter().map(|c| format!("{}: {c:?}", module.join("/"))));
    }
    assert!(above.len() > 20, "only {} modules with rooms were seen", above.len());
    assert!(wrong.is_empty(), "rooms that use each other in a circle: {wrong:#?}");
}
