//! `metrics`: sums over the records, in the OpenMetrics text format.

use super::Chosen;
use crate::record::{Location, Outcome, Record};
use crate::report::one_line;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

/// Prints the metrics, or replaces the file `textfile` with them
/// atomically, as node_exporter needs.
pub(super) fn run(out: &mut impl Write, chosen: &Chosen, textfile: Option<&Path>) -> Result<()> {
    let inventory = chosen.inventory()?;
    let items = inventory.iter().flat_map(|s| &s.items).filter(|item| !item.is_orphan());
    let records: Vec<&Record> = items.map(|item| &item.record).collect();
    let mut text = text(&records);
    if let Some(inventory) = &inventory {
        let (cores, binaries) = inventory.size();
        family(
            &mut text,
            "store_bytes",
            Some("bytes"),
            "Bytes on disk in the store: its cores, and the executables and libraries that are \
             kept with cores.",
        );
        sample(&mut text, "store_bytes", &[("kind", "cores")], cores);
        sample(&mut text, "store_bytes", &[("kind", "binaries")], binaries);
        family(
            &mut text,
            "store_binaries",
            None,
            "Executables and libraries that are kept with cores.",
        );
        sample(&mut text, "store_binaries", &[], inventory.binaries());
    }
    text += "# EOF\n";
    let Some(path) = textfile else { return Ok(out.write_all(text.as_bytes())?) };
    let dir = path.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    let dir = crate::sys::file::open_dir(dir)?;
    crate::sys::file::replace(dir, name, text.as_bytes(), 0o644)
        .with_context(|| format!("write {}", path.display()))
}

/// The header of a metric family. All are gauges: records are removed again, so
/// that no number only grows.
fn family(text: &mut String, name: &str, unit: Option<&str>, help: &str) {
    let _ = writeln!(text, "# TYPE oci_coredump_{name} gauge");
    let _ = unit.map(|unit| writeln!(text, "# UNIT oci_coredump_{name} {unit}"));
    let _ = writeln!(text, "# HELP oci_coredump_{name} {help}");
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    let labels = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{}\"", one_line(value)))
        .collect::<Vec<_>>()
        .join(",");
    let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
    let _ = writeln!(text, "oci_coredump_{name}{labels} {value}");
}

fn text(records: &[&Record]) -> String {
    let mut dumps: BTreeMap<[&str; 4], u64> = BTreeMap::new();
    let (mut bytes, mut on_disk, mut seconds) =
        (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, u64>::new(), BTreeMap::<&str, f64>::new());
    let (mut newest, mut longest) = (None, 0f64);
    for r in records {
        *dumps.entry([outcome(r), reason(r), location(r), known(&r.signal_name)]).or_default() +=
            r.crashes();
        *bytes.entry(location(r)).or_default() += r.size.unwrap_or(0);
        *on_disk.entry(location(r)).or_default() += r.disk_size.unwrap_or(0);
        *seconds.entry(location(r)).or_default() += r.seconds.unwrap_or(0.0);
        longest = longest.max(r.seconds.unwrap_or(0.0));
        newest = newest.max(r.time.parse::<jiff::Timestamp>().ok());
    }
    let mut t = String::new();
    family(&mut t, "records", None, "Crashes of containers that there is a record of.");
    for ([outcome, reason, location, signal], n) in &dumps {
        sample(
            &mut t,
            "records",
            &[("outcome", outcome), ("reason", reason), ("location", location), ("signal", signal)],
            n,
        );
    }
    for (name, help, values) in [
        ("core_bytes", "Sizes of their cores when they were written.", &bytes),
        ("core_disk_bytes", "Bytes on disk of their cores.", &on_disk),
    ] {
        family(&mut t, name, Some("bytes"), help);
        values.iter().for_each(|(location, n)| sample(&mut t, name, &[("location", location)], n));
    }
    family(
        &mut t,
        "dump_seconds",
        Some("seconds"),
        "How long it took to write them, all together.",
    );
    seconds
        .iter()
        .for_each(|(location, n)| sample(&mut t, "dump_seconds", &[("location", location)], n));
    family(&mut t, "longest_dump_seconds", Some("seconds"), "How long the slowest of them took.");
    sample(&mut t, "longest_dump_seconds", &[], longest);
    if let Some(newest) = newest {
        family(&mut t, "newest_timestamp_seconds", Some("seconds"), "When the newest of them was.");
        sample(&mut t, "newest_timestamp_seconds", &[], newest.as_second());
    }
    t
}

/// Maps a record's reason for no core, or an incomplete one, to one of a few words.
fn reason(r: &Record) -> &'static str {
    const KNOWN: [(&str, &str); 14] = [
        ("limits.", "limits"),
        ("the target took nothing", "stall"),
        ("RLIMIT_CORE", "rlimit-core"),
        ("RLIMIT_FSIZE", "rlimit-fsize"),
        ("dump mode", "set-user-id"),
        ("a set-user-ID", "set-user-id"),
        ("write: No space", "no-space"),
        ("write: Disk quota", "no-space"),
        ("write: ", "write"),
        ("read from the kernel", "read"),
        ("the kernel stopped sending", "killed"),
        ("the writer was", "helper-killed"),
        ("cannot become the crasher", "credentials"),
        ("open", "target"),
    ];
    let complete = r.outcome == Outcome::Written;
    match &r.reason {
        _ if complete => "none",
        None => "unknown",
        Some(text) => KNOWN
            .iter()
            .find(|(start, _)| text.starts_with(start))
            .map_or("other", |(_, word)| word),
    }
}

fn outcome(r: &Record) -> &'static str {
    match r.outcome {
        Outcome::Started => "started",
        Outcome::Written => "written",
        Outcome::Truncated => "truncated",
        Outcome::None => "none",
    }
}

fn location(r: &Record) -> &'static str {
    match r.location {
        Location::Volume => "volume",
        Location::Store => "store",
        Location::Memory => "memory",
        Location::Layer => "layer",
    }
}

/// The signal as a label. Labels have few values, and none that a container could choose.
fn known(signal: &str) -> &str {
    if signal.len() < 12
        && signal.starts_with("SIG")
        && signal.bytes().all(|b| b.is_ascii_uppercase())
    {
        signal
    } else {
        "other"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_up() {
        let record = |outcome, size, signal: &str| Record {
            time: "2026-03-10T10:30:00Z".into(),
            outcome,
            size,
            disk_size: size.map(|s| s / 2),
            signal_name: signal.into(),
            location: Location::Store,
            ..Record::default()
        };
        let mut records = [
            record(Outcome::Written, Some(100), "SIGSEGV"),
            record(Outcome::Written, Some(20), "SIGSEGV"),
            record(Outcome::None, None, "x\"} 1\n"),
        ];
        (records[0].seconds, records[1].seconds) = (Some(0.25), Some(0.5));
        records[2].reason = Some("RLIMIT_CORE is 0 bytes, less than one page".into());
        let text = text(&records.iter().collect::<Vec<_>>());
        for line in [
            concat!(
                r#"oci_coredump_records{outcome="written",reason="none","#,
                r#"location="store",signal="SIGSEGV"} 2"#
            ),
            concat!(
                r#"oci_coredump_records{outcome="none",reason="rlimit-core","#,
                r#"location="store",signal="other"} 1"#
            ),
            r#"oci_coredump_core_bytes{location="store"} 120"#,
            r#"oci_coredump_core_disk_bytes{location="store"} 60"#,
            r#"oci_coredump_dump_seconds{location="store"} 0.75"#,
            "oci_coredump_longest_dump_seconds 0.5",
            "oci_coredump_newest_timestamp_seconds 1773138600",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
    }
}
