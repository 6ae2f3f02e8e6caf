//! The documents: every relative link leads to a file and a heading that are there, every document
//! is in the index, lines have 100 columns at most, and testing.md has all integration tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every Markdown file at the top and in `docs/`, with its text.
fn documents() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directories = [root.to_owned(), root.join("docs")];
    let files = directories
        .iter()
        .flat_map(|directory| std::fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    files.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The lines outside of blocks of code, with their numbers from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The anchors that GitHub gives to the headings.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then(|| title.strip_prefix(' '))?
    });
    let mut anchors: Vec<String> = Vec::new();
    for heading in headings {
        let words = heading.to_lowercase().replace(' ', "-");
        let slug: String =
            words.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
        let again = anchors.iter().filter(|anchor| **anchor == slug).count();
        anchors.push(if again > 0 { format!("{slug}-{again}") } else { slug });
    }
    anchors
}

/// The targets of the links in a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

#[test]
fn every_relative_link_leads_somewhere() {
    let documents = documents();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (path, text) in &documents {
        for (number, line) in prose(text) {
            for link in links(line).filter(|link| !link.contains("://")) {
                seen += 1;
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = match file {
                    "" => path.clone(),
                    file => path.with_file_name(file),
                };
                let leads = match std::fs::canonicalize(&target) {
                    Err(_) => false,
                    Ok(target) if !anchor.is_empty() => documents
                        .get(&target)
                        .is_some_and(|text| anchors(text).iter().any(|a| a == anchor)),
                    Ok(_) => true,
                };
                if !leads {
                    wrong.push(format!("{}:{number}: {link}", path.display()));
                }
            }
        }
    }
    assert!(seen > 50, "only {seen} links were seen");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_document_is_in_the_index() {
    let documents = documents();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let index = &documents[&directory.join("README.md")];
    let linked: Vec<&str> = index.lines().flat_map(links).collect();
    let is_missing = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        path.starts_with(&directory) && name != "README.md" && !linked.contains(&name)
    };
    let missing: Vec<_> = documents.keys().filter(is_missing).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// docs/testing.md has a row for each target and each module of the library of the integration
/// tests. A row may name several.
#[test]
fn every_integration_test_is_in_testing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let cells =
        text.lines().filter(|line| line.starts_with("| `")).filter_map(|l| l.split('|').nth(1));
    let named: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let files = ["integration", "integration/support"]
        .iter()
        .flat_map(|directory| std::fs::read_dir(root.join(directory)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let names = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    let missing: Vec<_> =
        names.filter(|name| name != "lib" && !named.contains(&name.as_str())).collect();
    assert!(named.len() > 30, "only {} names were seen", named.len());
    assert!(missing.is_empty(), "docs/testing.md does not have {missing:?}");
}

#[test]
fn lines_have_100_columns_at_most() {
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        // A table's row is one line in Markdown.
        let long = prose(&text).filter(|(_, l)| l.chars().count() > 100 && !l.starts_with('|'));
        wrong.extend(long.map(|(number, line)| format!("{}:{number}: {line}", path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const ENDINGS: [&str; 4] = ["rs", "c", "cpp", "go"];

/// rustfmt breaks neither comments nor strings.
#[test]
fn the_source_has_100_columns_at_most() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut left: Vec<_> =
        ["src", "ship", "integration", "benches", "tests/stacks"].map(|d| root.join(d)).into();
    let mut wrong = Vec::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|e| ending == *e)) {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines = text.lines().enumerate().filter(|(_, line)| line.chars().count() > 100);
            wrong.extend(lines.map(|(n, line)| format!("{}:{}: {line}", path.display(), n + 1)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn anchors_are_those_of_github() {
    let text = "# `[limits]`: of each container\n```\n# no heading\n```\n## A, b\n## A, b\n";
    assert_eq!(anchors(text), ["limits-of-each-container", "a-b", "a-b-1"]);
}
