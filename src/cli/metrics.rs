//! `metrics`: what the records add up to, as OpenMetrics text.

use super::Chosen;
use super::query::Query;
use crate::record::{Location, Outcome, Record};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

/// Prints the metrics, or replaces the file `textfile` by them: node_exporter sees the old or the new ones whole.
pub fn run(out: &mut impl Write, chosen: &Chosen, textfile: Option<&Path>) -> Result<()> {
    let text = text(&chosen.records(&Query::default())?);
    let Some(path) = textfile else { return Ok(out.write_all(text.as_bytes())?) };
    let dir = path.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    let dir = crate::sys::file::open_dir(dir)?;
    crate::sys::file::replace(dir, name, text.as_bytes(), 0o644).with_context(|| format!("write {}", path.display()))
}

fn text(records: &[Record]) -> String {
    let mut dumps: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    let (mut bytes, mut on_disk, mut newest) = (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, u64>::new(), None);
    for r in records {
        *dumps.entry((outcome(r), location(r), known(&r.signal_name))).or_default() += 1;
        *bytes.entry(location(r)).or_default() += r.size.unwrap_or(0);
        *on_disk.entry(location(r)).or_default() += r.disk_size.unwrap_or(0);
        newest = newest.max(r.time.parse::<jiff::Timestamp>().ok());
    }
    let mut t = String::new();
    let _ = writeln!(t, "# TYPE oci_coredump_records gauge\n# HELP oci_coredump_records Crashes of containers that there is a record of.");
    for ((outcome, location, signal), n) in &dumps {
        let _ = writeln!(t, "oci_coredump_records{{outcome=\"{outcome}\",location=\"{location}\",signal=\"{signal}\"}} {n}");
    }
    for (name, help, values) in [("core", "Sizes of their cores when they were written.", &bytes), ("core_disk", "Bytes on disk of their cores.", &on_disk)] {
        let _ = writeln!(t, "# TYPE oci_coredump_{name}_bytes gauge\n# UNIT oci_coredump_{name}_bytes bytes\n# HELP oci_coredump_{name}_bytes {help}");
        for (location, n) in values {
            let _ = writeln!(t, "oci_coredump_{name}_bytes{{location=\"{location}\"}} {n}");
        }
    }
    if let Some(newest) = newest {
        const NAME: &str = "oci_coredump_newest_timestamp_seconds";
        let _ = writeln!(t, "# TYPE {NAME} gauge\n# UNIT {NAME} seconds\n# HELP {NAME} When the newest of them was.\n{NAME} {}", newest.as_second());
    }
    t + "# EOF\n"
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

/// A label has few values, and none that a container could choose.
fn known(signal: &str) -> &str {
    if signal.len() < 12 && signal.starts_with("SIG") && signal.bytes().all(|b| b.is_ascii_uppercase()) { signal } else { "other" }
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
        let records = [record(Outcome::Written, Some(100), "SIGSEGV"), record(Outcome::Written, Some(20), "SIGSEGV"), record(Outcome::None, None, "x\"} 1\n")];
        let text = text(&records);
        for line in [
            r#"oci_coredump_records{outcome="written",location="store",signal="SIGSEGV"} 2"#,
            r#"oci_coredump_records{outcome="none",location="store",signal="other"} 1"#,
            r#"oci_coredump_core_bytes{location="store"} 120"#,
            r#"oci_coredump_core_disk_bytes{location="store"} 60"#,
            "oci_coredump_newest_timestamp_seconds 1773138600",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
