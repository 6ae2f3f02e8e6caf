//! `metrics`: what was counted since the boot, and sums over the records, in the text format of
//! Prometheus.

use super::metrics_server;
use super::selection::Chosen;
use super::target_file::{is_stream, parts};
use crate::crash_counts::{CrashCounts, SECONDS, cause, signal};
use crate::record::Record;
use crate::registry::Registry;
use crate::report::one_line;
use crate::sys::file;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Print metrics of crashes in the text format of Prometheus, or serve them.
///
/// Crashes are counted since the boot, whatever becomes of their records; sizes are sums over
/// the records that are there. With --listen the connections are served by a process without
/// privileges, on the path /metrics.
///
/// Example: oci-coredump metrics --textfile /var/lib/node_exporter/textfile/oci-coredump.prom
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Replace this file, for node_exporter's textfile collector, instead of printing.
    #[arg(long, value_name = "PATH")]
    textfile: Option<PathBuf>,
    /// Replace it again every so many seconds, until stopped.
    #[arg(long, value_name = "SECONDS", requires = "textfile",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: Option<u64>,
    /// Serve them over HTTP on this address and port, until stopped: 127.0.0.1:9950.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "textfile")]
    listen: Option<std::net::SocketAddr>,
    /// Read this store instead of the configured one.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

/// Prints the metrics, writes them to a file, once or again and again, or serves them.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    let chosen = Chosen::of(args.store.as_deref())?;
    if let Some(address) = args.listen {
        match metrics_server::run(address, || all(&chosen))? {}
    }
    let Some(path) = &args.textfile else {
        out.write_all(all(&chosen)?.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    };
    loop {
        let written = all(&chosen).and_then(|text| write(path, &text));
        let Some(seconds) = args.every else { return written.map(|()| ExitCode::SUCCESS) };
        if let Err(e) = written {
            log::error!("metrics: {e:#}, trying again");
        }
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

/// Replaces a file atomically, as node_exporter needs.
fn write(path: &Path, text: &str) -> Result<()> {
    let (dir, name) = parts(path)?;
    let replace = || match is_stream(path) {
        true => Ok(std::fs::write(path, text)?),
        false => file::replace(file::open_dir(dir)?, name, text.as_bytes(), 0o644),
    };
    replace().with_context(|| format!("write {}", path.display()))
}

/// All metrics.
fn all(chosen: &Chosen) -> Result<String> {
    let inventory = chosen.inventory()?;
    let items = inventory.iter().flat_map(|s| &s.items).filter(|item| !item.is_orphan());
    let records: Vec<&Record> = items.map(|item| &item.record).collect();
    let mut text = String::new();
    counted(&mut text, &Registry::own().map(|r| CrashCounts::read(&r)).unwrap_or_default());
    recorded(&mut text, &records);
    if let Some(inventory) = &inventory {
        let (cores, binaries) = inventory.size();
        gauge(
            &mut text,
            "store_bytes",
            "Bytes on disk in the store: its cores, and the executables and libraries that are \
             kept with cores.",
        );
        sample(&mut text, "store_bytes", &[("kind", "cores")], cores);
        sample(&mut text, "store_bytes", &[("kind", "binaries")], binaries);
        gauge(&mut text, "store_binaries", "Executables and libraries that are kept with cores.");
        sample(&mut text, "store_binaries", &[], inventory.binaries());
    }
    Ok(text)
}

/// The header of a metric family.
fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP oci_coredump_{name} {help}");
    let _ = writeln!(text, "# TYPE oci_coredump_{name} {kind}");
}

/// The header of what can become less: records are removed again.
fn gauge(text: &mut String, name: &str, help: &str) {
    family(text, name, "gauge", help);
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    let labels = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{}\"", escaped(value)))
        .collect::<Vec<_>>()
        .join(",");
    let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
    let _ = writeln!(text, "oci_coredump_{name}{labels} {value}");
}

/// The value of a label: nothing in it ends the line or the value, or is hidden.
fn escaped(value: &str) -> String {
    one_line(value).replace('\\', "\\\\").replace('"', "\\\"")
}

/// What was counted since the boot.
fn counted(t: &mut String, counts: &CrashCounts) {
    family(t, "crashes_total", "counter", "Crashes of containers since the boot.");
    for counted in &counts.crashes {
        let l = &counted.labels;
        let labels = [
            ("namespace", l.namespace.as_str()),
            ("container", &l.container),
            ("signal", &l.signal),
            ("outcome", &l.outcome),
            ("cause", &l.cause),
        ];
        sample(t, "crashes_total", &labels, counted.crashes);
    }
    let name = "dump_duration_seconds";
    family(t, name, "histogram", "How long writing a core took, since the boot.");
    let mut below = 0;
    let bounds = SECONDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    for (bound, dumps) in bounds.zip(counts.durations) {
        below += dumps;
        sample(t, &format!("{name}_bucket"), &[("le", &bound)], below);
    }
    sample(t, &format!("{name}_sum"), &[], counts.seconds);
    sample(t, &format!("{name}_count"), &[], below);
}

/// Sums over the records that are there.
fn recorded(t: &mut String, records: &[&Record]) {
    let mut crashes: BTreeMap<[&str; 4], u64> = BTreeMap::new();
    let (mut bytes, mut on_disk) = (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, u64>::new());
    let mut newest = None;
    for r in records {
        let location = r.location.as_str();
        let labels = [r.outcome.as_str(), cause(r), location, signal(&r.signal_name)];
        *crashes.entry(labels).or_default() += r.crashes();
        *bytes.entry(location).or_default() += r.size.unwrap_or(0);
        *on_disk.entry(location).or_default() += r.disk_size.unwrap_or(0);
        newest = newest.max(r.time.parse::<jiff::Timestamp>().ok());
    }
    gauge(t, "recorded_crashes", "Crashes of containers that there is a record of.");
    for ([outcome, cause, location, signal], n) in &crashes {
        let labels =
            [("outcome", *outcome), ("cause", cause), ("location", location), ("signal", signal)];
        sample(t, "recorded_crashes", &labels, n);
    }
    for (name, help, values) in [
        ("recorded_core_bytes", "Sizes of their cores when they were written.", &bytes),
        ("recorded_core_disk_bytes", "Bytes on disk of their cores.", &on_disk),
    ] {
        gauge(t, name, help);
        values.iter().for_each(|(location, n)| sample(t, name, &[("location", location)], n));
    }
    if let Some(newest) = newest {
        gauge(t, "newest_timestamp_seconds", "When the newest of them was.");
        sample(t, "newest_timestamp_seconds", &[], newest.as_second());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::Cause;
    use crate::record::{Location, Names, Outcome};

    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "{line}: {text}");
        }
    }

    fn record(outcome: Outcome, size: Option<u64>, signal: &str) -> Record {
        Record {
            time: "2026-03-10T10:30:00Z".into(),
            outcome,
            size,
            disk_size: size.map(|s| s / 2),
            signal_name: signal.into(),
            location: Location::Store,
            ..Record::default()
        }
    }

    #[test]
    fn added_up() {
        let mut records = [
            record(Outcome::Written, Some(100), "SIGSEGV"),
            record(Outcome::Written, Some(20), "SIGSEGV"),
            record(Outcome::None, None, "x\"} 1\n"),
        ];
        records[2].set_cause(Some(&Cause::RlimitCoreTooLow(0)));
        let mut text = String::new();
        recorded(&mut text, &records.iter().collect::<Vec<_>>());
        has(
            &text,
            &[
                concat!(
                    r#"oci_coredump_recorded_crashes{outcome="written",cause="none","#,
                    r#"location="store",signal="SIGSEGV"} 2"#
                ),
                concat!(
                    r#"oci_coredump_recorded_crashes{outcome="none",cause="rlimit-core","#,
                    r#"location="store",signal="other"} 1"#
                ),
                r#"oci_coredump_recorded_core_bytes{location="store"} 120"#,
                r#"oci_coredump_recorded_core_disk_bytes{location="store"} 60"#,
                "oci_coredump_newest_timestamp_seconds 1773138600",
            ],
        );
    }

    #[test]
    fn what_was_counted() {
        let names = Names {
            pod_namespace: Some("shop".into()),
            container_name: Some("a\"\\\n\u{202e}b".into()),
            ..Names::default()
        };
        let mut counts = CrashCounts::default();
        for seconds in [0.25, 0.5, 400.0] {
            counts.add(&Record {
                names: names.clone(),
                seconds: Some(seconds),
                ..record(Outcome::Written, Some(1), "SIGABRT")
            });
        }
        let mut text = String::new();
        counted(&mut text, &counts);
        has(
            &text,
            &[
                "# TYPE oci_coredump_crashes_total counter",
                concat!(
                    r#"oci_coredump_crashes_total{namespace="shop","#,
                    r#"container="a\"\\\\n\\u{202e}b","#,
                    r#"signal="SIGABRT",outcome="written",cause="none"} 3"#
                ),
                r#"oci_coredump_dump_duration_seconds_bucket{le="0.1"} 0"#,
                r#"oci_coredump_dump_duration_seconds_bucket{le="0.25"} 1"#,
                r#"oci_coredump_dump_duration_seconds_bucket{le="300"} 2"#,
                r#"oci_coredump_dump_duration_seconds_bucket{le="+Inf"} 3"#,
                "oci_coredump_dump_duration_seconds_sum 400.75",
                "oci_coredump_dump_duration_seconds_count 3",
            ],
        );
    }
}
