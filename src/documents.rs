//! The parts of the documents that are made from the program's own definitions: the reference of
//! the configuration from the comments on its types, that of the commands from `--help`. The keys
//! that docs/annotations.md lists are compared with those that the program reads.
//!
//! A test fails where a document differs. `BLESS=1 cargo test --lib documents` rewrites what is
//! generated.

use crate::annotation;
use crate::bytes::Limit;
use crate::config::Config;
use crate::limits::{Free, Rate};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Values for the keys that have no default, for docs/config.toml.
const EXAMPLES: [(&str, &str); 13] = [
    ("default_pattern", "\"core\""),
    ("runtime", "\"/usr/bin/runc\""),
    ("limits.cores", "10"),
    ("limits.keep", "\"newest\""),
    ("limits.bytes", "\"10Gi\""),
    ("limits.rate", "\"10/min\""),
    ("limits.burst", "30"),
    ("vacuum.max_size", "\"10G\""),
    ("vacuum.max_age", "\"30d\""),
    ("vacuum.keep", "1000"),
    ("upload.url", "\"s3://crashes/prod\""),
    ("upload.keep_until_uploaded", "\"7d\""),
    ("select.namespace", "\"prod-*\""),
];

/// A value that is written as text of a form that docs/configuration.md describes.
macro_rules! named_text {
    ($type:ty, $name:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "title": $name })
            }
        }
    };
}

named_text!(Limit, "size");
named_text!(Free, "free space");
named_text!(Rate, "rate");

/// One key of the configuration.
struct Key {
    /// The table that it is in; empty at the top.
    table: String,
    name: String,
    /// What kind of value it has, in Markdown.
    kind: String,
    /// Its default as TOML.
    default: Option<String>,
    meaning: String,
}

/// The keys of the configuration, in the order of the type's fields, and each table with its
/// description.
fn keys() -> (Vec<Key>, Vec<(String, String)>) {
    let settings = SchemaSettings::default().with(|s| s.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let (mut keys, mut tables) = (Vec::new(), Vec::new());
    for (name, property) in schema["properties"].as_object().unwrap() {
        let inner = property["properties"].as_object();
        if let Some(inner) = inner {
            tables.push((name.clone(), one_line(&property["description"])));
            let key = |(inner, property)| key(name, inner, property, &defaults[name][inner]);
            keys.extend(inner.iter().map(key));
        } else {
            keys.push(key("", name, property, &defaults[name]));
        }
    }
    (keys, tables)
}

fn key(table: &str, name: &String, property: &Value, default: &Value) -> Key {
    let kind = kind(property).unwrap_or_else(|| panic!("{table} {name}: {property}"));
    let default = match default {
        Value::Null | Value::Object(_) => None,
        Value::String(text) if text == "unlimited" => None,
        other => Some(other.to_string()),
    };
    let meaning = one_line(&property["description"]);
    assert!(meaning.len() > 10, "{table} {name} has no documentation");
    Key { table: table.to_owned(), name: name.clone(), kind, default, meaning }
}

/// What a value must be.
fn kind(schema: &Value) -> Option<String> {
    if let Some(title) = schema["title"].as_str() {
        return Some(title.to_owned());
    }
    let words: Vec<&Value> = match (schema["enum"].as_array(), schema["oneOf"].as_array()) {
        (Some(words), _) => words.iter().filter(|word| !word.is_null()).collect(),
        (_, Some(cases)) => cases.iter().map(|case| &case["const"]).collect(),
        _ => Vec::new(),
    };
    if !words.is_empty() {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        return Some(words.join(", "));
    }
    if let Some(cases) = schema["anyOf"].as_array() {
        return cases.iter().find_map(kind);
    }
    let name = schema["type"].as_str().or_else(|| schema["type"][0].as_str())?;
    Some(
        match name {
            "boolean" => "boolean",
            "integer" => "number",
            "string" => "text",
            "object" => "table of texts",
            "array" => "list of texts",
            _ => return None,
        }
        .to_owned(),
    )
}

fn one_line(description: &Value) -> String {
    description.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Lines of at most `width` bytes, each with a prefix.
fn wrapped(text: &str, prefix: &str, width: usize) -> String {
    let mut out = String::new();
    let mut line = prefix.to_owned();
    for word in text.split_whitespace() {
        if line.len() > prefix.len() && line.len() + 1 + word.len() > width {
            out.push_str(line.trim_end());
            out.push('\n');
            line = prefix.to_owned();
        } else if line.len() > prefix.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out + line.trim_end() + "\n"
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Fails if the file has another text, or with `BLESS` writes it.
fn compare(file: &str, expected: &str) {
    let found = std::fs::read_to_string(path(file)).unwrap_or_default();
    if found == expected {
        return;
    }
    if std::env::var_os("BLESS").is_some() {
        return std::fs::write(path(file), expected).unwrap();
    }
    let line = found.lines().zip(expected.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or_else(|| found.lines().count().min(expected.lines().count()));
    panic!(
        "{file}, line {}: expected {:?}; `BLESS=1 cargo test --lib documents` rewrites it",
        line + 1,
        expected.lines().nth(line).unwrap_or_default()
    );
}

/// Replaces what stands between the marks of each part.
fn with_parts(file: &str, parts: &[(String, String)]) -> String {
    let mut text = std::fs::read_to_string(path(file)).unwrap();
    for (name, part) in parts {
        let begin = format!("<!-- generated: {name} -->\n");
        let start = text.find(&begin).unwrap_or_else(|| panic!("{file} has no {begin}"));
        let start = start + begin.len();
        let end = text[start..].find("<!-- end -->").expect("the mark of the end");
        text.replace_range(start..start + end, part);
    }
    text
}

#[test]
fn the_reference_of_the_configuration() {
    let (keys, tables) = keys();
    let tables = std::iter::once(String::new()).chain(tables.into_iter().map(|(name, _)| name));
    let part = |table: String| {
        let mut out = "| key | value | default | meaning |\n|---|---|---|---|\n".to_owned();
        for key in keys.iter().filter(|key| key.table == table) {
            let default = key.default.as_ref().map_or("none".into(), |d| format!("`{d}`"));
            let (name, kind, meaning) = (&key.name, &key.kind, cell(&key.meaning));
            out.push_str(&format!("| `{name}` | {kind} | {default} | {meaning} |\n"));
        }
        (format!("config {table}").trim_end().to_owned(), out)
    };
    let parts: Vec<_> = tables.map(part).collect();
    compare("docs/configuration.md", &with_parts("docs/configuration.md", &parts));
}

#[test]
fn the_example_of_the_configuration() {
    let (keys, tables) = keys();
    let mut out = "\
# The settings of oci-coredump, with their defaults. Install a copy as
# /etc/oci-coredump/config.toml only to change something. docs/configuration.md says more.
"
    .to_owned();
    let example =
        |name: &str| EXAMPLES.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let one = |key: &Key| {
        let name = format!("{}.{}", key.table, key.name);
        let name = name.trim_start_matches('.');
        let line = match &key.default {
            Some(default) => format!("{} = {default}\n", key.name),
            None => format!(
                "# {} = {}\n",
                key.name,
                example(name).unwrap_or_else(|| panic!("no example of {name}"))
            ),
        };
        format!("\n{}{line}", wrapped(&key.meaning, "# ", 100))
    };
    let (top, maps): (Vec<&Key>, Vec<&Key>) = keys
        .iter()
        .filter(|key| key.table.is_empty())
        .partition(|key| key.kind != "table of texts");
    out.extend(top.into_iter().map(one));
    for (table, description) in &tables {
        out.push_str(&format!("\n{}[{table}]\n", wrapped(description, "# ", 100)));
        out.extend(keys.iter().filter(|key| key.table == *table).map(one));
    }
    for map in maps {
        let (name, value) = EXAMPLES
            .iter()
            .find_map(|(key, value)| Some((key.strip_prefix(&map.name)?.strip_prefix('.')?, value)))
            .unwrap();
        out.push_str(&format!(
            "\n{}# [{}]\n# {name} = {value}\n",
            wrapped(&map.meaning, "# ", 100),
            map.name
        ));
    }
    assert_eq!(Config::parse(&out).unwrap(), Config::default());
    // With every key set.
    let all: Vec<&str> = out
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|l| is_toml(l)).unwrap_or(line))
        .collect();
    let all = Config::parse(&all.join("\n")).unwrap();
    assert_eq!(all.select.len(), 1);
    assert!(all.runtime.is_some() && all.vacuum.keep.is_some() && all.limits.burst.is_some());
    compare("docs/config.toml", &out);
}

/// Whether a line of a comment is a key or the head of a table.
fn is_toml(line: &str) -> bool {
    line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
}

#[test]
fn the_reference_of_the_commands() {
    let mut all = crate::cli::command();
    all.build();
    let verbs: Vec<_> = all.get_subcommands().filter(|verb| !verb.is_hide_set()).collect();
    let text = |styled: Option<&clap::builder::StyledStr>| {
        styled.map(ToString::to_string).unwrap_or_default()
    };
    let mut table = "| command | does |\n|---|---|\n".to_owned();
    let mut reference = String::new();
    for verb in verbs {
        let name = verb.get_name();
        if name == "help" {
            continue;
        }
        let usage = verb.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").trim_start_matches("oci-coredump ");
        table.push_str(&format!("| [`{name}`](#{name}) | {} |\n", cell(&text(verb.get_about()))));
        reference.push_str(&format!("### {name}\n\n```\noci-coredump {}\n```\n", usage.trim()));
        let long = text(verb.get_long_about().or(verb.get_about()));
        for paragraph in long.split("\n\n") {
            let line = match paragraph.strip_prefix("Example: ") {
                Some(example) => format!("Example: `{example}`"),
                None => paragraph.replace('<', "\\<"),
            };
            reference.push_str(&format!("\n{}", wrapped(&line, "", 100)));
        }
        let rows: Vec<String> = verb
            .get_arguments()
            .filter(|arg| !arg.is_hide_set() && !arg.is_global_set())
            .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
            .map(|arg| {
                let short = arg.get_short().map(|c| format!("-{c}"));
                let long = arg.get_long().map(|long| format!("--{long}"));
                let others = arg.get_visible_aliases().unwrap_or_default();
                let others = others.into_iter().map(|long| format!("--{long}"));
                let names: Vec<String> = short.into_iter().chain(long).chain(others).collect();
                let takes = arg.get_action().takes_values();
                let value = arg.get_value_names().filter(|_| takes).map(|names| names.join(" "));
                let call =
                    [names.join(", "), value.unwrap_or_default()].join(" ").trim().to_owned();
                let words: Vec<String> = arg
                    .get_possible_values()
                    .iter()
                    .filter(|_| takes)
                    .map(|word| format!("`{}`", word.get_name()))
                    .collect();
                let mut help = text(arg.get_long_help().or(arg.get_help()));
                if !words.is_empty() {
                    help.push_str(&format!(". One of {}", words.join(", ")));
                }
                let defaults = arg.get_default_values().iter();
                let defaults = defaults.filter(|_| takes && !arg.is_hide_default_value_set());
                for default in defaults {
                    help.push_str(&format!(". Default: `{}`", default.to_string_lossy()));
                }
                format!("| `{call}` | {} |\n", cell(&help))
            })
            .collect();
        if !rows.is_empty() {
            reference.push_str("\n| option | meaning |\n|---|---|\n");
            reference.extend(rows);
        }
        reference.push('\n');
    }
    let after = text(all.get_after_help());
    let is_told =
        |part: &&str| part.starts_with("Exit status:") || part.starts_with("Environment:");
    let told: Vec<&str> = after.split("\n\n").filter(is_told).collect();
    assert_eq!(told.len(), 2, "{after}");
    let status = format!("```text\n{}\n```\n", told.join("\n\n"));
    let parts = [
        ("commands".to_owned(), table),
        ("status".to_owned(), status),
        ("options".to_owned(), reference),
    ];
    compare("docs/commands.md", &with_parts("docs/commands.md", &parts));
}

/// docs/crash.schema.json, and that docs/records.md has every key of a record.
#[test]
fn the_schema_of_a_crash() {
    let schema = crate::cli::crash_schema().to_value();
    compare("docs/crash.schema.json", &(serde_json::to_string_pretty(&schema).unwrap() + "\n"));
    let text = std::fs::read_to_string(path("docs/records.md")).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    for key in schema["properties"].as_object().unwrap().keys() {
        let is = |row: &&&str| row.split('|').nth(1).unwrap().contains(&format!("`{key}`"));
        assert!(rows.iter().find(is).is_some(), "docs/records.md does not have `{key}`");
    }
}

#[test]
fn every_annotation_is_documented() {
    let text = std::fs::read_to_string(path("docs/annotations.md")).unwrap();
    let table = text.lines().skip_while(|line| !line.starts_with("| key ")).skip(2);
    // What stands between backticks in the first column.
    let documented: BTreeSet<&str> = table
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .collect();
    let own = annotation::SETTINGS.map(|setting| format!("oci-coredump/{setting}"));
    let mut read: BTreeSet<&str> = own.iter().map(String::as_str).collect();
    read.extend(annotation::FOREIGN);
    read.insert("<container>.oci-coredump/<setting>");
    assert_eq!(documented, read);
}
