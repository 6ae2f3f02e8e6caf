//! `list --group`: crashes of one kind in one row, by the hash of where they crashed.

use super::clock;
use super::output;
use super::table::{self, Column, left, right};
use crate::record::Record;
use crate::sys::text;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;

const COLUMNS: [Column; 6] =
    [right("CRASHES"), left("FIRST"), left("LAST"), left("HASH"), left("EXE"), left("CRASHED IN")];

/// Crashes of one kind.
#[derive(Debug, Serialize)]
struct Group<'a> {
    crashes: u64,
    /// When the first of them happened, RFC 3339 in UTC.
    first: &'a str,
    /// When the last of them happened.
    last: &'a str,
    /// What they have in common; `None` where that is not known: these are told apart by executable
    /// and signal.
    stack_hash: Option<&'a str>,
    signal_name: &'a str,
    exe: &'a str,
    /// The stack of the newest.
    stack: &'a [String],
}

/// Groups records, which are sorted by time; the group with the newest crash comes last.
fn groups(records: &[Record]) -> Vec<Group<'_>> {
    let mut all: BTreeMap<_, Group<'_>> = BTreeMap::new();
    for r in records {
        let hash = r.stack_hash.as_deref();
        let key = (hash, hash.is_none().then_some((&r.exe, &r.signal_name)));
        let last = r.last.as_deref().unwrap_or(&r.time);
        let group = all.entry(key).or_insert(Group {
            crashes: 0,
            first: &r.time,
            last,
            stack_hash: hash,
            signal_name: &r.signal_name,
            exe: &r.exe,
            stack: &r.stack,
        });
        group.crashes += r.crashes();
        (group.exe, group.stack) = (&r.exe, &r.stack);
        group.last = last.max(group.last);
    }
    let mut all: Vec<Group<'_>> = all.into_values().collect();
    all.sort_by_key(|group| group.last);
    all
}

/// Prints the groups of the records, which are sorted by time.
pub(super) fn print(out: &mut impl Write, records: &[Record], json: bool) -> Result<()> {
    let groups = groups(records);
    if json {
        for group in &groups {
            writeln!(out, "{}", text::json(&serde_json::to_string(group)?))?;
        }
        return Ok(());
    }
    let zone = clock::zone();
    let rows: Vec<Vec<table::Cell>> = groups
        .iter()
        .map(|group| {
            let place = match group.stack {
                [] => group.signal_name.to_owned(),
                [inner] => format!("{} in {inner}", group.signal_name),
                [inner, outer, ..] => format!("{} in {inner} <- {outer}", group.signal_name),
            };
            vec![
                group.crashes.to_string().into(),
                clock::shown(group.first, &zone).into(),
                clock::shown(group.last, &zone).into(),
                group.stack_hash.unwrap_or("-").into(),
                group.exe.into(),
                place.into(),
            ]
        })
        .collect();
    Ok(table::print(out, &COLUMNS, &rows, output::width())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_for_each_kind() {
        let record = |time: &str, hash: Option<&str>, exe: &str| Record {
            time: time.into(),
            stack_hash: hash.map(str::to_owned),
            exe: exe.into(),
            ..Record::default()
        };
        let mut counted = record("2026-01-01T00:00:03Z", None, "/b");
        (counted.count, counted.last) = (Some(7), Some("2026-01-01T00:00:09Z".into()));
        let records = [
            record("2026-01-01T00:00:01Z", Some("aa"), "/a"),
            record("2026-01-01T00:00:02Z", Some("bb"), "/a"),
            counted,
            record("2026-01-01T00:00:04Z", Some("aa"), "/a"),
            record("2026-01-01T00:00:05Z", None, "/c"),
        ];
        let seen: Vec<_> = groups(&records)
            .iter()
            .map(|g| (g.crashes, g.stack_hash, g.exe.to_owned(), &g.first[18..], &g.last[18..]))
            .map(|(n, hash, exe, first, last)| format!("{n} {hash:?} {exe} {first} {last}"))
            .collect();
        assert_eq!(
            seen,
            [
                "1 Some(\"bb\") /a 2Z 2Z",
                "2 Some(\"aa\") /a 1Z 4Z",
                "1 None /c 5Z 5Z",
                "7 None /b 3Z 9Z"
            ]
        );
    }
}
