//! `list`: prints the crashes, the newest last.

use super::group;
use super::locate::{self, Seen, State};
use super::query::{self, Query};
use super::selection::{MATCH, Which, by_time, no_match};
use super::table::{self, Cell, Column, left, right};
use crate::record::{Outcome, Record};
use crate::registry::Registry;
use crate::store::{Records, Store};
use crate::sys::text;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

const COLUMNS: [Column; 10] = [
    left("TIME"),
    right("PID"),
    right("UID"),
    right("GID"),
    left("SIG"),
    left("COREFILE"),
    left("CONTAINER"),
    left("EXE"),
    right("SIZE"),
    left("UPLOADED"),
];

/// List the crashes, the newest last.
///
/// The column UPLOADED is yes when oci-coredump-ship has uploaded the crash, and no if its
/// container does not want that.
///
/// The column COREFILE is: present; truncated, the file is incomplete; missing, it was removed;
/// removed with its container, or with its pod: it was where only these keep it; overwritten, another file has its name; inaccessible, you may not read it; unreachable, its
/// file system does not answer; leased, another process holds a lease on it; none, it was never
/// written (`info` shows why).
///
/// Example: oci-coredump list pod=shop-0 --since yesterday
#[derive(Debug, clap::Args)]
#[command(after_help = MATCH)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// List only the newest N.
    #[arg(short = 'n', value_name = "N")]
    newest: Option<usize>,
    /// List the newest first.
    #[arg(short, long)]
    reverse: bool,
    /// Print a JSON array of records; with --follow one object on each line.
    #[arg(long)]
    json: bool,
    /// Keep running and print new crashes as they happen.
    #[arg(short, long, conflicts_with = "reverse")]
    follow: bool,
    /// Print crashes of one kind in one row: how many, the first and the last, and where they
    /// crashed.
    #[arg(long, conflicts_with_all = ["reverse", "follow", "newest"])]
    group: bool,
}

/// A record and the state of its core, as JSON.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    record: &'a Record,
    corefile: State,
}

/// Prints the matching crashes.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    let (chosen, query) = &args.which.choose()?;
    let store = match Store::look(&chosen.store)? {
        None if args.follow => Some(chosen.make_store()?),
        found => found,
    };
    // The watch starts before the first reading, and what that reading found is not printed again:
    // so no crash is missed in between.
    let mut live = match &store {
        Some(store) if args.follow => {
            Some(store.records().and_then(|r| Ok((r.watch()?, r, BTreeSet::new())))?)
        }
        _ => None,
    };
    let mut records = match &mut live {
        Some((_, dir, seen)) => by_time(fresh(dir, seen, query)?),
        None => chosen.records(query)?,
    };
    let skip = args.newest.map_or(0, |n| records.len().saturating_sub(n));
    records.drain(..skip);
    if args.reverse {
        records.reverse();
    }
    if records.is_empty() && live.is_none() {
        if args.json {
            writeln!(out, "[]")?;
        }
        return no_match(chosen);
    }
    if args.group {
        group::print(out, &records, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let registry = Registry::own();
    show(out, &records, registry.as_ref(), args)?;
    out.flush()?;
    if let Some((watch, dir, mut seen)) = live {
        loop {
            watch.wait().context("wait for records")?;
            follow(out, &fresh(&dir, &mut seen, query)?, args)?;
            out.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The matching records that are finished now and were not before.
fn fresh(dir: &Records, seen: &mut BTreeSet<OsString>, query: &Query) -> Result<Vec<Record>> {
    let mut out = Vec::new();
    for name in dir.names()? {
        if seen.contains(&name) {
            continue;
        }
        if let Some(record) = dir.read(&name).filter(|r| r.outcome != Outcome::Started) {
            seen.insert(name);
            out.push(record);
        }
    }
    out.retain(|r| query.takes(r));
    Ok(out)
}

fn show(
    out: &mut impl Write,
    records: &[Record],
    registry: Option<&Registry>,
    args: &Args,
) -> Result<()> {
    if args.json && args.follow {
        return lines(out, records, registry);
    }
    if args.json {
        let seen = locate::look(records, registry)?;
        let rows: Vec<Row<'_>> = records
            .iter()
            .zip(seen)
            .map(|(record, seen)| Row { corefile: seen.state, record })
            .collect();
        writeln!(out, "{}", text::json(&serde_json::to_string_pretty(&rows)?))?;
        return Ok(());
    }
    let zone = TimeZone::system();
    let seen = locate::look(records, registry)?;
    let rows: Vec<Vec<Cell>> =
        records.iter().zip(seen).map(|(record, seen)| row(record, seen, &zone)).collect();
    Ok(table::print(out, &COLUMNS, &rows)?)
}

fn lines(out: &mut impl Write, records: &[Record], registry: Option<&Registry>) -> Result<()> {
    for (record, seen) in records.iter().zip(locate::look(records, registry)?) {
        let row = Row { corefile: seen.state, record };
        writeln!(out, "{}", text::json(&serde_json::to_string(&row)?))?;
    }
    Ok(())
}

/// A row that is printed later cannot align with the columns above: its values
/// are separated by two blanks.
fn follow(out: &mut impl Write, records: &[Record], args: &Args) -> Result<()> {
    let registry = Registry::own();
    if args.json {
        return lines(out, records, registry.as_ref());
    }
    let zone = TimeZone::system();
    for (record, seen) in records.iter().zip(locate::look(records, registry.as_ref())?) {
        table::print_loose(out, &row(record, seen, &zone))?;
    }
    Ok(())
}

fn row(record: &Record, seen: Seen, zone: &TimeZone) -> Vec<Cell> {
    let state = seen.state;
    let exe = if record.exe.is_empty() { &record.comm } else { &record.exe };
    vec![
        time(&record.time, zone).into(),
        record.pid.into(),
        record.uid.into(),
        record.gid.into(),
        record.signal_name.as_str().into(),
        Cell(counted(state.word(), record), colour(state)),
        query::whose(record).into(),
        exe.into(),
        seen.size.map_or("-".to_owned(), table::size).into(),
        uploaded(record).into(),
    ]
}

/// Whether a crash was uploaded; `no` where its container does not want that.
fn uploaded(record: &Record) -> &'static str {
    match (&record.uploaded, record.upload) {
        (Some(_), _) => "yes",
        (None, Some(false)) => "no",
        (None, _) => "-",
    }
}

/// Adds to a word the number of crashes that a record stands for.
fn counted(word: &str, record: &Record) -> String {
    match record.crashes() {
        0 | 1 => word.to_owned(),
        n => format!("{word} \u{d7}{n}"),
    }
}

/// The style of a state on a terminal.
pub(super) fn colour(state: State) -> Style {
    let colour = match state {
        State::Present => AnsiColor::Green,
        State::Truncated | State::Inaccessible | State::Unreachable | State::Leased => {
            AnsiColor::Yellow
        }
        State::Missing | State::Overwritten | State::WithContainer | State::WithPod => {
            AnsiColor::Red
        }
        State::None => return Style::new().dimmed(),
    };
    colour.on_default()
}

/// A record's time as coredumpctl prints it, in the reader's time zone.
pub(super) fn time(text: &str, zone: &TimeZone) -> String {
    match text.parse::<Timestamp>() {
        Ok(t) => t.to_zoned_datetime(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %Z").to_string(),
        Err(_) => text.to_owned(),
    }
}
