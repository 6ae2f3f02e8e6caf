//! `info`: prints everything that is known about a crash, with the stack of every thread.

use super::list::{colour, time};
use super::locate::{self, State};
use super::private::Private;
use super::query::{self, Query};
use super::selection::{MATCH, Which, no_match};
use super::{remote, stack, subject, table, unpack};
use crate::corefile::decompress::decompressed;
use crate::corefile::files::SearchPaths;
use crate::corefile::reader::{self, Reading};
use crate::corefile::{Overview, ThreadStack};
use crate::record::{Location, Outcome, Record};
use crate::registry::Registry;
use crate::report::one_line;
use crate::sys::{file, kernel, text};
use anstyle::Style;
use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Largest record of a bundle, in bytes.
const RECORD: usize = 1 << 20;

/// Show everything that is known about the newest matching crash, with
/// the stack of every thread.
///
/// Function names come from the container's own files while it runs, else from the kept
/// executables and libraries. A file is used only if its build-id is the one in the core. A
/// process without any privileges reads the core.
///
/// Example: oci-coredump info nginx --since today
#[derive(Debug, clap::Args)]
#[command(after_help = MATCH)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// Show the newest N crashes instead of one.
    #[arg(short = 'n', value_name = "N", default_value_t = 1, hide_default_value = true)]
    newest: usize,
    /// Read this core file; it needs no record.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["matches", "since", "until", "newest"]
    )]
    core: Option<PathBuf>,
    /// Take executables and libraries from below this directory instead of the container's
    /// root.
    #[arg(long, value_name = "DIR")]
    sysroot: Option<PathBuf>,
    /// Print JSON, one object for each crash.
    #[arg(long)]
    json: bool,
}

/// A record, the state of its core, and the core's size now: in bytes, and on disk.
pub(super) type CoreState<'a> = (&'a Record, State, Option<(u64, u64)>);

/// One crash as JSON.
#[derive(Debug, Default, Serialize)]
struct Crash {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    record: Option<Record>,
    corefile: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    core: Option<Overview>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stacks: Vec<ThreadStack>,
    /// Why the core could not be read, or not completely.
    #[serde(skip_serializing_if = "Option::is_none")]
    core_error: Option<String>,
}

/// Prints the selected crashes.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    if let Some(url) = args.which.url() {
        run_bundle(out, remote::fetch(url)?, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (chosen, query) = &args.which.choose()?;
    if let Some(path) = &args.core {
        let (core, paths) = subject::open_core_file(path, args.sysroot.as_deref(), &chosen.store)?;
        let reading = decompressed(core)
            .and_then(|core| reader::read(&core, &paths))
            .with_context(|| format!("{} cannot be read", path.display()))?;
        print(out, None, Some(Ok(reading)), args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut records = chosen.records(query)?;
    let skip = records.len().saturating_sub(args.newest);
    records.drain(..skip);
    if records.is_empty() {
        return no_match(chosen);
    }
    let registry = Registry::own();
    for (i, record) in records.into_iter().enumerate() {
        if i > 0 && !args.json {
            writeln!(out)?;
        }
        let core = locate::open(&record, registry.as_ref());
        let state = locate::state(&record, &core);
        let size =
            core.as_ref().ok().map(|c| (locate::size(c), file::stat(c).map_or(0, |s| s.allocated)));
        let reading = match core {
            Ok(core) => {
                let sysroot = args.sysroot.as_deref();
                let paths =
                    subject::search_paths(&record, registry.as_ref(), sysroot, &chosen.store)?;
                Some(decompressed(core).and_then(|core| reader::read(&core, &paths)))
            }
            Err(_) => None,
        };
        let instead = match state {
            State::Overwritten => Some(locate::overwriter(
                &record,
                registry.as_ref(),
                &chosen.records(&Query::default())?,
            )),
            _ => None,
        };
        let reading = instead.map(|why| Err(anyhow::anyhow!(why))).or(reading);
        print(out, Some((&record, state, size)), reading, args.json)?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a crash from a fetched bundle: its record, and what its core says.
fn run_bundle(out: &mut impl Write, packed: File, json: bool) -> Result<()> {
    let tar = decompressed(packed)?;
    file::set_umask(0o077);
    let dir = Private::new(false)?;
    let (tree, at) = dir.tree("crash")?;
    let room = kernel::free_bytes(&at).unwrap_or(0) / 10 * 9;
    unpack::unpack(&tar, &tree, room).context("unpack")?;
    let core = subject::open_named(&at.join("core"))?;
    // A bundle without executables has no such directory.
    let paths = SearchPaths::usual(file::open_dir(&at.join("root")).ok(), None);
    let record =
        file::read_bounded(subject::open_named(&at.join("record.json"))?, RECORD, "record.json")?;
    let record: Record = serde_json::from_slice(&record).context("record.json")?;
    let size = (locate::size(&core), file::stat(&core)?.allocated);
    let state = locate::state(&record, &Ok(core.try_clone()?));
    print(out, Some((&record, state, Some(size))), Some(reader::read(&core, &paths)), json)
}

fn print(
    out: &mut impl Write,
    record: Option<CoreState<'_>>,
    reading: Option<Result<Reading>>,
    json: bool,
) -> Result<()> {
    let (reading, error) = match reading {
        None => (None, None),
        Some(Ok(reading)) => (Some(reading), None),
        Some(Err(e)) => (None, Some(format!("{e:#}"))),
    };
    if json {
        let cut = reading.as_ref().and_then(|r| r.cut.clone());
        let (core, stacks) = reading.map(|r| (r.overview, r.threads)).unzip();
        let crash = Crash {
            record: record.map(|(r, ..)| r.clone()),
            corefile: record.map(|(_, s, _)| s),
            core,
            stacks: stacks.unwrap_or_default(),
            core_error: error.or(cut),
        };
        writeln!(out, "{}", text::json(&serde_json::to_string_pretty(&crash)?))?;
        return Ok(());
    }
    let overview = reading.as_ref().map(|r| &r.overview);
    let fields = match record {
        Some((record, state, size)) => {
            of_record(record, state, size, overview, &TimeZone::system())
        }
        None => overview.map(of_core).unwrap_or_default(),
    };
    for (name, text, style) in &fields {
        writeln!(out, "{:>14} {style}{}{style:#}", format!("{name}:"), one_line(text))?;
    }
    if let Some(why) = error {
        writeln!(out, "{:>14} {}", "Stack:", one_line(&format!("the core cannot be read: {why}")))?;
    }
    match &reading {
        Some(reading) => stack::print(out, reading),
        None => Ok(()),
    }
}

pub(super) type Field = (&'static str, String, Style);

fn field(name: &'static str, text: impl Into<String>) -> Field {
    (name, text.into(), Style::new())
}

fn signal(number: i32, name: &str, overview: Option<&Overview>) -> Field {
    let meaning = overview
        .and_then(|o| o.signal.as_ref())
        .filter(|s| s.number == number)
        .and_then(|s| s.meaning.clone());
    let text =
        meaning.map_or_else(|| format!("{name} ({number})"), |w| format!("{name} ({number}): {w}"));
    ("Signal", text, Style::new().bold())
}

fn of_core(o: &Overview) -> Vec<Field> {
    let mut fields = vec![
        field("PID", o.pid.to_string()),
        field("Command", &o.comm),
        field("Arguments", &o.arguments),
        field("Machine", &o.machine),
    ];
    fields.extend(package(o));
    if let Some(s) = &o.signal {
        fields.push(signal(s.number, &s.name, Some(o)));
    }
    fields.extend(cut_short(o));
    fields
}

fn package(o: &Overview) -> Option<Field> {
    let package = o.modules.first()?.package.as_ref()?;
    Some(field("Package", package.to_string()))
}

fn cut_short(o: &Overview) -> Option<Field> {
    (o.missing > 0).then(|| {
        field("Missing", format!("{} of memory: the file is short", table::size(o.missing)))
    })
}

pub(super) fn of_record(
    r: &Record,
    state: State,
    size: Option<(u64, u64)>,
    overview: Option<&Overview>,
    zone: &TimeZone,
) -> Vec<Field> {
    let mut all = vec![
        field("Time", time(&r.time, zone)),
        field("PID", format!("{} in the container, {} on the host", r.pid, r.host_pid)),
        field("Thread", format!("{} in the container, {} on the host", r.tid, r.host_tid)),
        field("User", format!("uid {}, gid {} on the host", r.uid, r.gid)),
        signal(r.signal, &r.signal_name, overview),
        field("Command", &r.comm),
        field("Executable", &r.exe),
    ];
    all.extend(overview.map(|o| field("Arguments", &o.arguments)));
    all.extend(overview.and_then(package));
    all.extend(r.stack_hash.as_ref().map(|hash| field("Stack hash", hash)));
    all.push(field("Container", query::container(&r.names)));
    all.push(field("Container ID", &r.names.container_id));
    all.extend(r.user.map(|uid| {
        let whose = format!("user {uid}'s: what is said of the container is that user's word");
        ("Registered", whose, Style::new().bold())
    }));
    all.extend(r.names.pod_name.as_ref().map(|p| field("Pod", p)));
    all.extend(r.names.pod_namespace.as_ref().map(|n| field("Namespace", n)));
    all.extend(r.names.image.as_ref().map(|i| field("Image", i)));
    all.push(field("Pattern", &r.pattern));
    if r.dump_mode != 1 {
        all.push(field("Dump mode", format!("{} (set-user-ID)", r.dump_mode)));
    }
    let core = r.core_path.as_deref().unwrap_or("none");
    all.push((
        "Core",
        if state == State::None { core.to_owned() } else { format!("{core} ({})", state.word()) },
        colour(state),
    ));
    all.extend(r.host_path.as_ref().map(|p| field("On the host", p)));
    match (size, r.size) {
        (Some((size, disk)), _) => all
            .push(field("Size", format!("{} ({} on disk)", table::size(size), table::size(disk)))),
        (None, Some(size)) => {
            all.push(field("Size", format!("{} when it was written", table::size(size))))
        }
        (None, None) => {}
    }
    if r.outcome != Outcome::None {
        all.push(field("Kept on", place(r.location)));
    }
    all.extend(r.uploaded.as_ref().map(|u| {
        field("Uploaded", format!("{} ({}, {})", u.url, table::size(u.size), time(&u.time, zone)))
    }));
    if r.upload == Some(false) {
        all.push(field("Uploaded", "never: oci-coredump/upload is false"));
    }
    if r.outcome == Outcome::Started {
        all.push(field("Reason", "the dump is going on, or its helper was killed"));
    }
    all.extend(r.reason.as_ref().map(|why| ("Reason", why.clone(), Style::new().bold())));
    all.extend(overview.and_then(cut_short));
    all
}

fn place(location: Location) -> &'static str {
    match location {
        Location::Volume => "a volume: it stays when the container goes",
        Location::Store => "the host's store: it stays when the container goes",
        Location::OwnVolume => "a volume that is removed with the container: it goes away with it",
        Location::Memory => "a memory-backed volume: it goes away with the container",
        Location::PodMemory => "the pod's memory: it goes away with the pod",
        Location::Layer => "the container's own layer: it goes away with the container",
    }
}
