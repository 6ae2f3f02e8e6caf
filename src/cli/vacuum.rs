//! `vacuum`: the oldest crashes go. A core in the store goes with its record; one on a volume or in a layer is not ours and stays.

use super::query::{self, Query};
use super::{Chosen, locate, table};
use crate::record::{Location, Outcome, Record};
use crate::registry::Registry;
use crate::store::{Records, Store};
use crate::sys::file::{self, Below};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;

/// What may stay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Bytes on disk of all cores in the store.
    pub max_size: Option<u64>,
    /// Crashes that are not older than this.
    pub since: Option<Timestamp>,
    /// The newest, whatever the other rules say about fewer.
    pub keep: Option<usize>,
}

/// One crash.
#[derive(Clone, Debug)]
struct Item {
    name: OsString,
    record: Record,
    /// Bytes on disk that go with it.
    bytes: u64,
}

/// Applies the rules.
pub fn run(out: &mut impl Write, chosen: &Chosen, rules: Rules, dry_run: bool) -> Result<()> {
    let Some(records) = Store::look(&chosen.store)?.map(|s| s.look_at_records()).transpose()?.flatten() else {
        writeln!(out, "nothing to do: no records in {}", chosen.store.display())?;
        return Ok(());
    };
    let items = items(&records)?;
    let (mut count, mut bytes) = (0usize, 0u64);
    for item in doomed(&items, rules) {
        let what = format!("{} {} of {}", item.record.time, item.record.comm, query::container(&item.record.names));
        if !dry_run {
            remove(&records, item).with_context(|| format!("remove the crash {what:?}"))?;
        }
        writeln!(out, "{} {} ({})", if dry_run { "would remove" } else { "removed" }, crate::report::one_line(&what), table::size(item.bytes))?;
        count += 1;
        bytes = bytes.saturating_add(item.bytes);
    }
    writeln!(out, "{count} of {} crashes, {}{}", items.len(), table::size(bytes), if dry_run { " would go" } else { " freed" })?;
    Ok(())
}

fn items(records: &Records) -> Result<Vec<Item>> {
    let registry = Registry::own();
    let all = Query::default();
    let mut items = Vec::new();
    for name in records.names()? {
        let Some(record) = records.read(&name).filter(|r| all.takes(r)) else { continue };
        let core = (record.location == Location::Store).then(|| locate::core(&record, registry.as_ref()).ok()).flatten();
        let bytes = core.and_then(|c| file::stat(c).ok()).map_or(0, |s| s.allocated);
        items.push(Item { name, record, bytes });
    }
    items.sort_by(|a, b| a.record.time.cmp(&b.record.time));
    Ok(items)
}

/// Which go, the oldest first. A dump that may be going on stays.
fn doomed(items: &[Item], rules: Rules) -> impl Iterator<Item = &Item> {
    let mut left: u64 = items.iter().map(|i| i.bytes).fold(0, u64::saturating_add);
    let mut number = items.len();
    items.iter().filter(move |item| {
        let time = item.record.time.parse::<Timestamp>().ok();
        let too_old = rules.since.is_some_and(|since| time.is_none_or(|t| t < since));
        let too_many = rules.keep.is_some_and(|keep| number > keep);
        let too_much = rules.max_size.is_some_and(|max| left > max) && item.bytes > 0;
        let goes = (too_old || too_many || too_much) && item.record.outcome != Outcome::Started;
        if goes {
            left = left.saturating_sub(item.bytes);
            number -= 1;
        }
        goes
    })
}

/// The core first: a record without its core says so, a core without its record is lost. One that has gone already is no error.
fn remove(records: &Records, item: &Item) -> Result<()> {
    let r = &item.record;
    if let (Location::Store, Some(path), Some(dir)) = (r.location, &r.host_path, &r.host_dir)
        && let Some((parent, name)) = path.strip_prefix(dir.as_str()).map(Path::new).and_then(|p| Some((p.parent()?, p.file_name()?)))
        && let Ok(top) = file::open_dir(Path::new(dir))
    {
        // The directory is the container's: links in it do not lead out, and what is removed is a name, never what it may point to.
        let parent = if parent == Path::new("/") || parent == Path::new("") { OsStr::new(".") } else { parent.as_os_str() };
        if let Ok(parent) = file::resolve(&top, parent, Below::InRoot, true) {
            file::unlink(parent, name)?;
        }
    }
    records.remove(&item.name)
}

/// Bytes as people write them: `500M`, `2G`, `1.5GiB`; a K is 1,024.
pub fn parse_size(text: &str) -> Result<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => bail!("expected a size such as 500M or 2G"),
    };
    let number: f64 = number.parse().ok().filter(|n: &f64| *n <= 1e9).context("expected a size such as 500M or 2G")?;
    Ok((number * (1u64 << shift) as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, time: &str, bytes: u64, outcome: Outcome) -> Item {
        Item { name: name.into(), bytes, record: Record { time: time.into(), outcome, ..Record::default() } }
    }

    #[test]
    fn the_oldest_go() {
        let items = [
            item("a", "2026-01-01T00:00:00Z", 10, Outcome::Written),
            item("b", "2026-01-02T00:00:00Z", 0, Outcome::None),
            item("c", "2026-01-03T00:00:00Z", 10, Outcome::Started),
            item("d", "2026-01-04T00:00:00Z", 10, Outcome::Written),
            item("e", "2026-01-05T00:00:00Z", 10, Outcome::Written),
        ];
        let gone = |rules| doomed(&items, rules).map(|i| i.name.to_str().unwrap()).collect::<String>();
        assert_eq!(gone(Rules::default()), "");
        assert_eq!(gone(Rules { keep: Some(5), ..Rules::default() }), "");
        assert_eq!(gone(Rules { keep: Some(3), ..Rules::default() }), "ab");
        assert_eq!(gone(Rules { keep: Some(0), ..Rules::default() }), "abde");
        assert_eq!(gone(Rules { max_size: Some(40), ..Rules::default() }), "");
        assert_eq!(gone(Rules { max_size: Some(25), ..Rules::default() }), "ad");
        assert_eq!(gone(Rules { since: "2026-01-02T12:00:00Z".parse().ok(), ..Rules::default() }), "ab");
        assert_eq!(gone(Rules { since: "2027-01-01T00:00:00Z".parse().ok(), ..Rules::default() }), "abde");
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("1K", 1024), ("1.5M", 3 << 19), ("2GiB", 2 << 30), ("2 gb", 2 << 30)] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "G", "-1", "1X", "1.2.3M", "inf", "99999999999999999999"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
