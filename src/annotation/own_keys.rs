//! The settings that there are in our own keys, and what is said of one that there is not.

use std::collections::BTreeMap;

/// The settings that a container may give in our own keys.
pub(crate) const SETTINGS: [&str; 10] = [
    "pattern", "limit", "filter", "compress", "release", "existing", "keep", "upload", "limits",
    "required",
];

/// One line for each key of ours that names no setting: most likely it is misspelt, and the
/// container does not get what it asked for.
pub(crate) fn unknown(all: &BTreeMap<String, String>) -> Vec<String> {
    let setting = |key: &str| {
        let (before, setting) = key.split_once("oci-coredump/")?;
        let ours = before.is_empty() || before.ends_with('.');
        (ours && !SETTINGS.contains(&setting)).then(|| setting.to_owned())
    };
    let line = |key: &String| {
        let setting = setting(key)?;
        let near = SETTINGS.iter().min_by_key(|known| distance(known, &setting));
        let hint = near.filter(|known| distance(known, &setting) <= 2);
        let hint = hint.map(|known| format!(" (did you mean `{known}`?)")).unwrap_or_default();
        Some(format!("{key}: there is no such setting{hint}, ignoring"))
    };
    all.keys().filter_map(line).take(8).collect()
}

/// Edit distance of two words: how many letters must be changed, inserted or deleted. 9 stands for
/// 9 or more where the lengths differ by more than 8.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 8 {
        return 9;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut last = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let new = (last + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            last = std::mem::replace(&mut row[j + 1], new);
        }
    }
    row[b.len()]
}
