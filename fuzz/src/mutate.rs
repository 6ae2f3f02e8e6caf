//! Mutations of JSON as JSON, and of the configuration line by line: bytes changed at random seldom
//! give a document that another branch of a deserializer takes. Every second mutation is still one
//! of libFuzzer's own, as all are for what is neither.

use libfuzzer_sys::fuzzer_mutate;
use serde_json::{Value, json};

/// Targets that read JSON.
const JSON: [&str; 5] = ["state", "bundle", "entry", "record", "spec"];

/// `LLVMFuzzerCustomMutator`: changes the first `size` bytes of `data`, and returns how many
/// there are now, `max` at most.
pub fn mutate(target: &str, data: &mut [u8], size: usize, max: usize, seed: u32) -> usize {
    let mut random = Random(u64::from(seed) << 1 | 1);
    if random.below(2) == 0
        && let Ok(text) = std::str::from_utf8(&data[..size])
        && let Some(text) = change_text(target, text, &mut random)
        && text.len() <= max.min(data.len())
    {
        data[..text.len()].copy_from_slice(text.as_bytes());
        return text.len();
    }
    fuzzer_mutate(data, size, max)
}

/// The text changed as what its target reads.
fn change_text(target: &str, text: &str, random: &mut Random) -> Option<String> {
    match target {
        "config" => Some(change_toml(text, random)),
        json if JSON.contains(&json) => change_json(text, random),
        _ => None,
    }
}

fn change_toml(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = random.below(lines.len() + 1);
    match random.below(3) {
        0 if at < lines.len() => drop(lines.remove(at)),
        1 if at < lines.len() => lines[at] = toml_line(random),
        _ => lines.insert(at, toml_line(random)),
    }
    lines.join("\n")
}

/// The text with something changed in its document; in one of its lines where each is a
/// document, as those of records are.
fn change_json(text: &str, random: &mut Random) -> Option<String> {
    if let Ok(document) = serde_json::from_str(text) {
        return Some(change_document(document, random));
    }
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = random.below(lines.len().max(1));
    let document = serde_json::from_str(lines.get(at)?).ok()?;
    lines.insert(at, change_document(document, random));
    if random.below(4) > 0 {
        lines.remove(at + 1);
    }
    Some(lines.join("\n") + "\n")
}

fn change_document(mut document: Value, random: &mut Random) -> String {
    for _ in 0..=random.below(3) {
        change(&mut document, random);
    }
    let text = document.to_string();
    if random.below(8) == 0 { with_a_key_twice(&document, text, random) } else { text }
}

/// The keys of the configuration, and of its tables.
#[rustfmt::skip]
const KEYS: &[&str] = &[
    "mode", "core_uses_pid", "strict", "default_pattern", "select", "allow_early_release",
    "limits", "store", "termination_log", "binaries", "vacuum", "runtime", "keep",
    "max_file", "max_total", "max_size", "max_age", "concurrent", "host_concurrent", "min_memory",
    "bytes", "cores", "min_free", "rate", "burst", "wait", "stall", "x", "\"\"", "'a'",
    "a b",
];

/// Values of every type and form, and what is nearly one.
#[rustfmt::skip]
const VALUES: &[&str] = &[
    "true", "false", "0", "1", "-1", "+5", "18446744073709551615", "-9223372036854775808", "0xff",
    "0o17", "0b101", "1_000", "1.5", "-0.0", "1e5", "1.5e-3", "inf", "-inf",
    "nan", r#""x""#, r#""""#, r#""10G""#, r#""30d""#, r#""off""#, r#""5/min""#, r#""kernel""#,
    r#""\u00e9\n\t\"""#, r#""\U0001F600""#, "'lit'", "\"\"\"a\n b\"\"\"",
    "\"\"\"\\\n a\"\"\"", "'''a\nb'''", "[]", "[1, 2,]", r#"["a", 'b']"#, r#"[[1], ["x"]]"#,
    "[\n # c\n 1,\n]", "{}", "{ x = 1 }", r#"{ a.b = 2, c = "d" }"#, "1979-05-27",
    "07:32:00.999", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.5-07:00", "tru", "\"open",
    "'open", "[1", "{ a = 1", "1__0", "0x", r#""\q""#, "1979-13-40", "01", "1.", "1e", "",
];

/// A line with a key of the configuration.
fn toml_line(random: &mut Random) -> String {
    let [key, other] = [(); 2].map(|()| KEYS[random.below(KEYS.len())]);
    let value = VALUES[random.below(VALUES.len())];
    match random.below(8) {
        0 => format!("[{key}]"),
        1 => format!("[[{key}]]"),
        2 => format!("[{key}.{other}]"),
        3 => format!("{key}.{other} = {value}"),
        4 => format!("{key} = {{ {other} = {value} }}"),
        _ => format!("{key} = {value}"),
    }
}

struct Random(u64);

impl Random {
    /// A number below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn one<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { Some(&all[self.below(all.len())]) }
    }
}

/// All values of a document, itself first.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(all) => all.iter().map(count).sum(),
        Value::Object(all) => all.values().map(count).sum(),
        _ => 0,
    }
}

/// The `n`th of them.
fn nth<'v>(value: &'v mut Value, n: &mut usize) -> Option<&'v mut Value> {
    if *n == 0 {
        return Some(value);
    }
    *n -= 1;
    match value {
        Value::Array(all) => all.iter_mut().find_map(|v| nth(v, n)),
        Value::Object(all) => all.values_mut().find_map(|v| nth(v, n)),
        _ => None,
    }
}

/// Some value of the document, or one of every type.
fn some_value(document: &Value, random: &mut Random) -> Value {
    let some = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("1"),
        json!("/a"),
        json!([]),
        json!([""]),
        json!([{}]),
        json!({}),
        json!({ "": "" }),
    ];
    let mut n = random.below(count(document));
    match random.below(2) {
        0 => nth(&mut document.clone(), &mut n).cloned().unwrap_or_default(),
        _ => random.one(&some).cloned().unwrap_or_default(),
    }
}

fn change(document: &mut Value, random: &mut Random) {
    let new = some_value(document, random);
    let mut n = random.below(count(document));
    let Some(value) = nth(document, &mut n) else { return };
    match (value, random.below(4)) {
        (Value::Object(all), 0) => {
            let keys: Vec<String> = all.keys().cloned().collect();
            random.one(&keys).and_then(|key| all.shift_remove(key));
        }
        (Value::Object(all), 1) => {
            let keys: Vec<String> = all.keys().cloned().collect();
            random.one(&keys).and_then(|key| all.insert(key.clone(), new));
        }
        (Value::Object(all), 2) => match new {
            Value::Object(more) => all.extend(more),
            other => drop(all.insert(other.as_str().unwrap_or("x").to_owned(), other)),
        },
        (Value::Array(all), 0) if !all.is_empty() => drop(all.swap_remove(random.below(all.len()))),
        (Value::Array(all), 1 | 2) => all.push(new),
        (value, _) => *value = new,
    }
}

/// A key twice, which no `Value` holds.
fn with_a_key_twice(document: &Value, text: String, random: &mut Random) -> String {
    let mut n = random.below(count(document));
    let mut copy = document.clone();
    let Some(Value::Object(all)) = nth(&mut copy, &mut n) else { return text };
    let keys: Vec<String> =
        all.keys().map(|key| Value::from(key.as_str()).to_string() + ":").collect();
    let Some(key) = random.one(&keys) else { return text };
    text.replacen(key.as_str(), &format!("{key}{},{key}", some_value(document, random)), 1)
}
