//! `list`: prints the crashes, the newest last.

use super::clock;
use super::crash_json::CrashJson;
use super::group;
use super::locate::{self, CoreStatus, Seen};
use super::output::{self, Paging};
use super::overwriter::{self, Overwriter, Overwriters};
use super::query::{self, Query};
use super::selection::{Chosen, MATCH, Which, no_match};
use super::table::{self, Cell, Column, Table, left, right};
use crate::record::{Outcome, Record};
use crate::registry::Registry;
use crate::store::Records;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Columns of a terminal from which on a time has its weekday and its zone.
const WIDE: usize = 100;

const COLUMNS: [Column; 10] = [
    left("TIME"),
    right("PID"),
    right("UID").rank(2),
    right("GID").rank(3),
    left("SIG"),
    left("COREFILE"),
    left("CONTAINER").flexible(),
    left("EXE").flexible(),
    right("SIZE").rank(1),
    left("UPLOADED").rank(4),
];

/// List the crashes, the newest last.
///
/// The column UPLOADED is yes when oci-coredump-ship has uploaded the crash, and no if its
/// container does not want that.
///
/// On a terminal that is too narrow UPLOADED, GID, UID and SIZE are left out, in this order, and
/// the beginnings of long names are cut; a pipe gets all.
///
/// The column COREFILE is: present; truncated, the file is incomplete; missing, it was removed;
/// removed with its container, or with its pod: it was where only these keep it; overwritten,
/// another file has its name, by the crash of a TIME where a record knows that file; inaccessible,
/// you may not read it; unreachable, its file system does not answer; leased, another process holds
/// a lease on it; none, it was never written (`info` shows why).
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
    /// Print JSON, one object for each crash, on one line (docs/records.md).
    #[arg(long)]
    json: bool,
    /// Keep running and print new crashes as they happen.
    #[arg(short, long, conflicts_with = "reverse")]
    follow: bool,
    /// Print crashes of one kind in one row: how many, the first and the last, and where they
    /// crashed.
    #[arg(long, conflicts_with_all = ["reverse", "follow", "newest"])]
    group: bool,
    #[command(flatten)]
    paging: Paging,
}

impl Args {
    /// Whether people read the output, and it ends.
    pub(super) fn is_paged(&self) -> bool {
        !self.paging.no_pager && !self.json && !self.follow
    }
}

/// How many records are read, and looked for, at once.
const BLOCK: usize = 1000;

pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    let (chosen, query) = &args.which.choose()?;
    let mut printer = Printer::new(chosen, args.json);
    if args.follow {
        return follow(out, chosen, query, args, &mut printer);
    }
    let Some(crashes) = chosen.crashes(query)? else { return no_match(chosen, query) };
    if args.group {
        let records: Vec<Record> = crashes.iter().collect();
        group::print(out, &records, args.json)?;
        return if records.is_empty() { no_match(chosen, query) } else { Ok(ExitCode::SUCCESS) };
    }
    let count = match (args.newest, args.reverse) {
        (Some(most), false) => printer.all(out, crashes.newest(most).into_iter()),
        (Some(most), true) => printer.all(out, crashes.iter().rev().take(most)),
        (None, false) => printer.all(out, crashes.iter()),
        (None, true) => printer.all(out, crashes.iter().rev()),
    }?;
    out.flush()?;
    if count == 0 { no_match(chosen, query) } else { Ok(ExitCode::SUCCESS) }
}

/// Prints the matching crashes, and those that come.
fn follow(
    out: &mut impl Write,
    chosen: &Chosen,
    query: &Query,
    args: &Args,
    printer: &mut Printer<'_>,
) -> Result<ExitCode> {
    // The watch starts before the first reading, and what that reading found is not printed again:
    // so no crash is missed in between.
    let dir = chosen.records_to_watch()?;
    let (watch, mut seen) = (dir.watch()?, BTreeSet::new());
    let mut records = fresh(&dir, &mut seen, query)?;
    records.drain(..args.newest.map_or(0, |n| records.len().saturating_sub(n)));
    printer.all(out, records.into_iter())?;
    printer.is_loose = true;
    loop {
        out.flush()?;
        watch.wait().context("wait for records")?;
        printer.all(out, fresh(&dir, &mut seen, query)?.into_iter())?;
    }
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

/// Prints crashes, block by block.
struct Printer<'a> {
    registry: Option<Registry>,
    overwriters: Overwriters<'a>,
    zone: TimeZone,
    /// The form of times.
    time: &'static str,
    table: Table<'static>,
    is_json: bool,
    /// A row that is printed later cannot align with the columns above: its values are separated by
    /// two blanks.
    is_loose: bool,
}

impl<'a> Printer<'a> {
    fn new(chosen: &'a Chosen, is_json: bool) -> Self {
        let width = output::width();
        let is_narrow = width.is_some_and(|width| width < WIDE);
        Printer {
            registry: Registry::own(),
            overwriters: Overwriters::new(chosen),
            zone: clock::zone(),
            time: if is_narrow { clock::SHORT } else { clock::LONG },
            table: Table::new(&COLUMNS, width),
            is_json,
            is_loose: false,
        }
    }

    /// Prints all, and returns how many they were.
    fn all(
        &mut self,
        out: &mut impl Write,
        mut records: impl Iterator<Item = Record>,
    ) -> Result<usize> {
        let mut count = 0;
        loop {
            let block: Vec<Record> = records.by_ref().take(BLOCK).collect();
            if block.is_empty() {
                return Ok(count);
            }
            count += block.len();
            self.block(out, &block)?;
        }
    }

    fn block(&mut self, out: &mut impl Write, records: &[Record]) -> Result<()> {
        let mut rows = Vec::new();
        for (record, seen) in records.iter().zip(locate::look(records, self.registry.as_ref())?) {
            let (seen, by) = locate::judge(record, seen, &self.overwriters);
            if self.is_json {
                CrashJson::of(record, seen.state, by).print(out)?;
            } else {
                let time = if self.is_loose { clock::LONG } else { self.time };
                rows.push(row(record, seen, by, time, &self.zone));
            }
        }
        match self.is_loose {
            true => rows.iter().try_for_each(|row| table::print_loose(out, row))?,
            false if self.is_json => {}
            false => self.table.print(out, &rows)?,
        }
        Ok(())
    }
}

fn row(
    record: &Record,
    seen: Seen,
    by: Option<&Overwriter>,
    time: &str,
    zone: &TimeZone,
) -> Vec<Cell> {
    let state = seen.state;
    let word = match by {
        Some(_) => overwriter::describe(by, |text| clock::shown_as(text, time, zone)),
        None => state.word().to_owned(),
    };
    let exe = if record.exe.is_empty() { &record.comm } else { &record.exe };
    vec![
        clock::shown_as(&record.time, time, zone).into(),
        record.pid.into(),
        record.uid.into(),
        record.gid.into(),
        record.signal_name.as_str().into(),
        Cell(counted(&word, record), colour(state)),
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
pub(super) fn colour(state: CoreStatus) -> Style {
    let colour = match state {
        CoreStatus::Present => AnsiColor::Green,
        CoreStatus::Truncated
        | CoreStatus::Inaccessible
        | CoreStatus::Unreachable
        | CoreStatus::Leased => AnsiColor::Yellow,
        CoreStatus::Missing
        | CoreStatus::Overwritten
        | CoreStatus::WithContainer
        | CoreStatus::WithPod => AnsiColor::Red,
        CoreStatus::None => return Style::new().dimmed(),
    };
    colour.on_default()
}
