//! Who may use whom, and where `unsafe` and the kernel's crates may stand: the map in `src/lib.rs`, held.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From the bottom up. A module may use those of the layers below it, and those named beside it.
const LAYERS: [&[&str]; 4] = [
    &["sys"],
    &["pattern", "record", "limits", "config", "annotation"],
    &["report", "store", "registry", "users", "sysctl", "corefile", "vacuum"],
    &["hook", "dump", "engine", "verify", "cli"],
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

#[test]
fn every_module_uses_only_what_stands_below_it() {
    let mut wrong = Vec::new();
    let mut edges = 0;
    for (file, text) in all() {
        let me = module(&file);
        if matches!(me, "main" | "lib" | "hostile" | "invariants") {
            continue;
        }
        let mine = layer(me).unwrap_or_else(|| panic!("src/{file}: module `{me}` is in no layer of tests/layers.rs; say in src/lib.rs where it stands"));
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
