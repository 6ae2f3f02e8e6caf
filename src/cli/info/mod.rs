//! `info`: prints everything that is known about a crash, with the stack of every thread.

mod fields;

use super::crash_json::CrashJson;
use super::debuginfod::Debuginfod;
use super::full::Full;
use super::locate::{self, CoreStatus};
use super::output::{self, Paging};
use super::overwriter::{self, Overwriter, Overwriters};
use super::selection::{Chosen, MATCH, Which, no_match};
use super::source::{CrashSource, Packed};
use super::subject::{Opened, Subject};
use super::{clock, stack, still_copied, subject, table};
use crate::corefile::VariableOptions;
use crate::corefile::decompress::decompressed;
use crate::corefile::files::SearchPaths;
use crate::corefile::reader::{self, CoreReading};
use crate::record::Record;
use crate::registry::Registry;
use crate::report::one_line;
use crate::sys::file;
use anyhow::{Context, Result};
use std::io::Write;
use std::mem::take;
use std::process::ExitCode;

pub(super) use fields::{Sizes, of_record};

/// Columns before the value of a field.
const INDENT: usize = 15;

/// Show everything that is known about the newest matching crash, with
/// the stack of every thread.
///
/// Function names come from the container's own files while it runs, else from the kept
/// executables and libraries. A file is used only if its build-id is the one in the core; one that
/// has none is used, and marked. With --core, --sysroot says where the files are. A
/// process without any privileges reads the core. A MATCH that ends in .tar.zst is a bundle that
/// `export` has written, and one such as s3://BUCKET/... an uploaded one, which
/// oci-coredump-ship fetches.
///
/// Example: oci-coredump info nginx --since today
#[derive(Debug, clap::Args)]
#[command(after_help = MATCH)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// Show the newest N crashes instead of one.
    #[arg(
        short = 'n',
        value_name = "N",
        default_value_t = 1,
        hide_default_value = true,
        conflicts_with = "core"
    )]
    newest: usize,
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    debuginfod: Debuginfod,
    #[command(flatten)]
    full: Full,
    /// Print JSON, one object for each crash, on one line (docs/records.md).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    paging: Paging,
}

impl Args {
    /// Whether people read the output, and it ends.
    pub(super) fn is_paged(&self) -> bool {
        !self.paging.no_pager && !self.json
    }
}

/// A record, the state of its core, and the core's sizes now.
pub(super) type CoreState<'a> = (&'a Record, CoreStatus, Option<Sizes>);

/// Prints the selected crashes.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    let sysroot = args.subject.sysroot.as_deref();
    let others = [("--sysroot", sysroot.is_some()), ("-n", args.newest != 1)];
    let options = args.full.options()?;
    let options = options.as_ref();
    let (chosen, query) = &match args.which.source(&others)? {
        CrashSource::Packed(packed) => return run_packed(out, packed, options, args),
        CrashSource::Records(chosen, query) => (chosen, query),
    };
    if let Some(path) = &args.subject.core {
        let (core, paths) = subject::open_core_file(path, sysroot, &chosen.store)?;
        let paths = SearchPaths { servers: args.debuginfod.servers(chosen), ..paths };
        let reading = decompressed(core)
            .and_then(|core| reader::read(&core, &paths, options))
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let reading = Some(Ok(reading));
        let is_whole = is_read(reading.as_ref());
        print(out, None, reading, args.json)?;
        return Ok(status(is_whole));
    }
    let records = chosen.newest(query, args.newest)?;
    if records.is_empty() {
        return no_match(chosen, query);
    }
    let registry = Registry::own();
    let overwriters = Overwriters::new(chosen);
    let mut is_whole = true;
    for (i, record) in records.into_iter().enumerate() {
        let record = still_copied::wait(record, &chosen.store);
        if i > 0 && !args.json {
            writeln!(out)?;
        }
        let core = locate::open(&record, registry.as_ref(), &overwriters);
        let state = locate::state(&record, &core);
        let mut sizes = core.as_ref().ok().map(Sizes::of);
        let (reading, by) = match core {
            Ok(core) => {
                let paths =
                    subject::search_paths(&record, registry.as_ref(), sysroot, &chosen.store)?;
                let paths = SearchPaths { servers: args.debuginfod.servers(chosen), ..paths };
                let reading = decompressed(core).and_then(|core| {
                    sizes = sizes.map(|sizes| sizes.with(&core));
                    reader::read(&core, &paths, options)
                });
                (Some(reading), None)
            }
            Err((CoreStatus::Overwritten, by)) => {
                let zone = clock::zone();
                let why = match args.json {
                    true => overwriter::describe(by, str::to_owned),
                    false => overwriter::describe(by, |text| clock::shown(text, &zone)),
                };
                (Some(Err(anyhow::anyhow!(why))), by)
            }
            Err(_) => (None, None),
        };
        is_whole &= state == CoreStatus::Overwritten || is_read(reading.as_ref());
        let found = (&record, state, sizes);
        print(out, Some(Known { found, by, bundle: None }), reading, args.json)?;
        out.flush()?;
    }
    Ok(status(is_whole))
}

/// Whether a core gave a stack. One that is not there, as the record says, is no failure.
fn is_read(reading: Option<&Result<CoreReading>>) -> bool {
    reading.is_none_or(|reading| reading.as_ref().is_ok_and(|read| !read.threads.is_empty()))
}

fn status(is_whole: bool) -> ExitCode {
    if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a crash from a bundle: its record, and what its core says.
fn run_packed(
    out: &mut impl Write,
    packed: Packed<'_>,
    options: Option<&VariableOptions>,
    args: &Args,
) -> Result<ExitCode> {
    file::set_umask(0o077);
    let (_dir, Opened { core, record, paths, .. }) = packed.subject()?;
    let servers = Chosen::of(None).ok().and_then(|chosen| args.debuginfod.servers(&chosen));
    let paths = SearchPaths { servers, ..paths };
    let sizes = Sizes::of(&core);
    // `export --core` makes one without.
    let known = match &record {
        Some(record) => {
            let state = locate::state(record, &Ok::<_, CoreStatus>(core.try_clone()?));
            Some(Known { found: (record, state, Some(sizes)), by: None, bundle: Some(packed) })
        }
        None => None,
    };
    let reading = Some(reader::read(&core, &paths, options));
    let is_whole = is_read(reading.as_ref());
    print(out, known, reading, args.json)?;
    Ok(status(is_whole))
}

/// What is known of a crash beside its core.
struct Known<'a> {
    found: CoreState<'a>,
    /// Whose core is in the place of its own.
    by: Option<&'a Overwriter>,
    /// Where it is from, if not from the records of a store.
    bundle: Option<Packed<'a>>,
}

/// `known`: nothing of a core file alone.
fn print(
    out: &mut impl Write,
    known: Option<Known<'_>>,
    reading: Option<Result<CoreReading>>,
    json: bool,
) -> Result<()> {
    let (reading, error) = match reading {
        None => (None, None),
        Some(Ok(reading)) => (Some(reading), None),
        Some(Err(e)) => (None, Some(format!("{e:#}"))),
    };
    if json {
        let cut = reading.as_ref().and_then(|r| r.cut.clone());
        let mut reading = reading;
        let take = |r: &mut CoreReading| (take(&mut r.threads), take(&mut r.goroutines));
        let (stacks, goroutines) = reading.as_mut().map(take).unwrap_or_default();
        let crash = CrashJson {
            more_goroutines: reading.as_ref().map(|r| r.more_goroutines).filter(|n| *n > 0),
            core: reading.map(|r| r.overview),
            stacks,
            goroutines,
            core_error: error.or(cut),
            ..match known {
                Some(Known { found: (record, state, _), by, .. }) => {
                    CrashJson::of(record, state, by)
                }
                None => CrashJson::of_core(),
            }
        };
        return crash.print(out);
    }
    let overview = reading.as_ref().map(|r| &r.overview);
    let fields = match known {
        Some(Known { found: (record, state, sizes), bundle, .. }) => {
            let mut all = fields::of_record(record, state, sizes, overview, &clock::zone());
            all.extend(fields::next(record, state, bundle));
            all
        }
        None => overview.map(fields::of_core).unwrap_or_default(),
    };
    let error = error.map(|why| fields::field("Stack", format!("the core cannot be read: {why}")));
    for (name, text, style) in fields.iter().chain(&error) {
        let text = one_line(text);
        let lines = match output::width() {
            Some(width) => table::wrapped(&text, width.saturating_sub(INDENT)),
            None => vec![text],
        };
        for (n, line) in lines.iter().enumerate() {
            let name = if n == 0 { format!("{name}:") } else { String::new() };
            writeln!(out, "{name:>0$} {style}{line}{style:#}", INDENT - 1)?;
        }
    }
    match &reading {
        Some(reading) => stack::print(out, reading),
        None => Ok(()),
    }
}
