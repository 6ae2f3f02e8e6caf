//! `report`: a page about one crash. HTML without scripts and without anything from elsewhere;
//! every text of a container is one line, and escaped.

use super::call::Call;
use super::clock;
use super::crashes::Crashes;
use super::debuginfod::Debuginfod;
use super::full::Full;
use super::info;
use super::locate;
use super::overwriter::Overwriters;
use super::query::{self, Query};
use super::selection::{MATCH, Which, no_match};
use super::stack::{groups, short_list, symbols};
use super::subject::search_paths;
use super::target_file::TargetFile;
use crate::corefile::decompress::decompressed;
use crate::corefile::files::SearchPaths;
use crate::corefile::reader::{self, CoreReading};
use crate::corefile::{Frame, Module};
use crate::record::Record;
use crate::registry::Registry;
use crate::report::one_line;
use anyhow::Result;
use jiff::tz::TimeZone;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Most groups of threads, frames of one, modules, and crashes of the timeline that are shown.
const GROUPS: usize = 200;
const FRAMES: usize = 200;
const MODULES: usize = 300;
const BEFORE: usize = 50;

/// Longest text that is shown, in characters.
const LONGEST: usize = 600;

const STYLE: &str = include_str!("report.css");

/// The hash of the style, which the page's policy names: nothing else may have a say.
const STYLE_HASH: &str = "pF5hZvWHMNYA8cXxtL47Van3Ms1gJhMwcyEqs1Y30xk=";

/// Write a page about the newest matching crash: who died of what, and where.
///
/// One HTML file without scripts and without anything from elsewhere: what `info` shows, the
/// stack of every thread, registers, modules, and when the same program crashed with this stack
/// before.
///
/// Example: oci-coredump report nginx -o nginx.html
#[derive(Debug, clap::Args)]
#[command(after_help = MATCH)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    full: Full,
    #[command(flatten)]
    debuginfod: Debuginfod,
    #[command(flatten)]
    target: TargetFile,
}

/// Writes the page about the newest matching crash.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let options = args.full.options()?;
    let (chosen, query) = args.which.choose()?;
    let records = chosen.newest(&query, 1)?;
    let Some(record) = records.last() else { return no_match(&chosen, &query) };
    let registry = Registry::own();
    let overwriters = Overwriters::new(&chosen);
    let core = locate::open(record, registry.as_ref(), &overwriters);
    let state = locate::state(record, &core);
    let sizes = core.as_ref().ok().map(info::Sizes::of);
    let reading = core.ok().map(|core| {
        let paths = search_paths(record, registry.as_ref(), None, &chosen.store)?;
        let paths = SearchPaths { servers: args.debuginfod.servers(&chosen), ..paths };
        decompressed(core).and_then(|core| reader::read(&core, &paths, options.as_ref()))
    });
    let everything = Query::default();
    let all = chosen.crashes(&everything)?;
    let before: Vec<Record> =
        all.iter().flat_map(Crashes::iter).filter(|r| is_like(r, record)).collect();
    let text = page((record, state, sizes), &reading, &before);
    args.target.write(|out| Ok(out.write_all(text.as_bytes())?))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a crash has the same stack, in the same kind of container; where either has none that is
/// known, whether it is of the same program, by the same signal.
fn is_like(other: &Record, record: &Record) -> bool {
    let key = |r: &Record| {
        let n = &r.names;
        (r.exe.clone(), r.signal, r.user, n.image.clone(), n.container_name.clone())
    };
    let hashes = other.stack_hash.as_ref().zip(record.stack_hash.as_ref());
    key(other) == key(record) && hashes.is_none_or(|(other, own)| other == own)
}

/// A text as it stands in the page.
fn escape(text: &str) -> String {
    let mut line: String = one_line(text).chars().take(LONGEST + 1).collect();
    if line.chars().count() > LONGEST {
        line.pop();
        line.push('\u{2026}');
    }
    let mut out = String::new();
    for c in line.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn page(
    found: info::CoreState<'_>,
    reading: &Option<Result<CoreReading>>,
    before: &[Record],
) -> String {
    let (record, state, sizes) = found;
    let reading_ok = reading.as_ref().and_then(|r| r.as_ref().ok());
    let title =
        format!("{} in {} of {}", record.signal_name, record.comm, query::container(&record.names));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{}</h1>\n",
        escape(&title),
        escape(&title)
    );
    let overview = reading_ok.map(|r| &r.overview);
    out.push_str("<dl>\n");
    for (name, text, _) in info::of_record(record, state, sizes, overview, &TimeZone::UTC) {
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(&text));
    }
    out.push_str("</dl>\n");
    match reading {
        Some(Ok(reading)) => core(&mut out, reading),
        Some(Err(e)) => {
            let why = escape(&format!("The core cannot be read: {e:#}"));
            let _ = writeln!(out, "<h2>Stacks</h2>\n<p>{why}</p>");
        }
        None => out.push_str("<h2>Stacks</h2>\n<p>There is no core to read.</p>\n"),
    }
    timeline(&mut out, record, before);
    out.push_str("</body>\n</html>\n");
    out
}

fn core(out: &mut String, reading: &CoreReading) {
    let modules = &reading.overview.modules;
    out.push_str("<h2>Stacks</h2>\n");
    let groups = groups(&reading.threads);
    for (i, group) in groups.iter().take(GROUPS).enumerate() {
        let ids: Vec<String> = group.iter().map(|thread| thread.tid.to_string()).collect();
        let head = match (ids.as_slice(), i) {
            ([id], 0) => format!("Thread {id}, which crashed"),
            ([id], _) => format!("Thread {id}"),
            (ids, _) => format!("{} threads ({})", ids.len(), short_list(ids)),
        };
        let top = group[0].frames.first().and_then(|f| f.function.as_deref()).unwrap_or("??");
        let open = if i == 0 { " open" } else { "" };
        let _ = writeln!(
            out,
            "<details{open}><summary>{} <code>{}</code></summary>\n<ol start=\"0\">",
            escape(&head),
            escape(top)
        );
        for frame in group[0].frames.iter().take(FRAMES) {
            let _ = writeln!(out, "<li>{}</li>", line(frame, modules));
        }
        out.push_str("</ol>\n");
        let cut = group[0].cut.as_deref().map(|why| format!("The stack may go on: {why}"));
        let more = group[0].frames.len().saturating_sub(FRAMES);
        let more = (more > 0).then(|| format!("{more} more frames are not shown."));
        for words in [cut, more].into_iter().flatten() {
            let _ = writeln!(out, "<p>{}</p>", escape(&words));
        }
        out.push_str("</details>\n");
    }
    let left = groups.len().saturating_sub(GROUPS);
    let more = (left > 0).then(|| format!("{left} more stacks are not shown."));
    let cut = reading.cut.as_deref().map(|cut| format!("Not all could be read: {cut}"));
    for words in [more, cut].into_iter().flatten() {
        let _ = writeln!(out, "<p>{}</p>", escape(&words));
    }
    if !reading.overview.registers.is_empty() {
        out.push_str("<h2>Registers of the thread that crashed</h2>\n<dl class=\"registers\">\n");
        for (name, value) in &reading.overview.registers {
            let _ = writeln!(out, "<dt>{}</dt><dd>{value:#018x}</dd>", escape(name));
        }
        out.push_str("</dl>\n");
    }
    out.push_str(
        "<h2>Modules</h2>\n<div><table>\n<tr><th>Path</th><th>Build-id</th><th>File</th></tr>\n",
    );
    for (i, module) in modules.iter().take(MODULES).enumerate() {
        let origin = reading.files.get(i).and_then(|f| f.file.as_ref().map(|(o, _)| *o));
        let verdict = reading.matches.get(i).copied().unwrap_or_default();
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&module.path),
            escape(module.build_id.as_deref().unwrap_or("-")),
            escape(symbols(verdict, origin, module))
        );
    }
    out.push_str("</table></div>\n");
}

fn line(frame: &Frame, modules: &[Module]) -> String {
    let call = Call::of(frame);
    let name = escape(&call.name);
    let source = frame.file.as_ref().map(|file| {
        let line = frame.line.map(|line| format!(":{line}")).unwrap_or_default();
        format!(" <span>{}{line}</span>", escape(file))
    });
    let module = frame.module.and_then(|i| modules.get(i)).zip(frame.offset);
    let place = match module {
        _ if frame.inlined => "inlined".to_owned(),
        Some((module, offset)) => {
            let name = module.path.rsplit('/').next().unwrap_or_default();
            format!("{}+{offset:#x}", escape(name))
        }
        None => format!("{:#x}", frame.address),
    };
    let arguments = call.arguments.as_deref().map(|all| format!(" ({})", escape(all)));
    let mut out = format!(
        "<code>{name}{}</code>{} <small>{place}</small>",
        arguments.unwrap_or_default(),
        source.unwrap_or_default()
    );
    if !call.beneath.is_empty() {
        out.push_str("<ul>");
        for (name, value) in call.beneath {
            let _ = write!(out, "<li><code>{} = {}</code></li>", escape(name), escape(value));
        }
        out.push_str("</ul>");
    }
    out
}

/// The crashes with the same stack, the newest first.
fn timeline(out: &mut String, record: &Record, before: &[Record]) {
    let head = match &record.stack_hash {
        Some(hash) => format!("Crashes of this program with the same stack ({hash})"),
        None => "Crashes of this program by this signal".to_owned(),
    };
    let _ = writeln!(out, "<h2>{}</h2>\n<ul>", escape(&head));
    for other in before.iter().rev().take(BEFORE) {
        let times = match other.crashes() {
            0 | 1 => String::new(),
            n => format!(", {n} times"),
        };
        let this = if other == record { " (this one)" } else { "" };
        let words = format!(
            "{}{times}: process {} of {}{this}",
            clock::shown(&other.time, &TimeZone::UTC),
            other.pid,
            query::container(&other.names)
        );
        let _ = writeln!(out, "<li>{}</li>", escape(&words));
    }
    out.push_str("</ul>\n");
    if before.len() > BEFORE {
        let _ = writeln!(out, "<p>And {} more.</p>", before.len() - BEFORE);
    }
}

#[cfg(test)]
mod tests {
    use super::super::locate::CoreStatus;
    use super::*;
    use crate::corefile::{Overview, ThreadStack};

    /// What a container chose stands in the page as text only.
    #[test]
    fn hostile_names_are_text() {
        let bad = "</title><script>alert(1)</script><img src=x onerror='a'>\n\u{202e}\"&";
        let mut record = Record { comm: bad.into(), exe: bad.into(), ..Record::default() };
        record.names.pod_name = Some(bad.into());
        record.reason = Some(bad.repeat(100));
        let frame =
            Frame { function: Some(bad.into()), file: Some(bad.into()), ..Frame::default() };
        let threads = vec![ThreadStack { tid: 1, frames: vec![frame], cut: Some(bad.into()) }];
        let module = Module { path: bad.into(), build_id: Some(bad.into()), ..Module::default() };
        let overview =
            Overview { modules: vec![module], arguments: bad.into(), ..Overview::default() };
        let reading =
            CoreReading { overview, threads, cut: Some(bad.into()), ..CoreReading::default() };
        let text = page(
            (&record, CoreStatus::Present, None),
            &Some(Ok(reading)),
            std::slice::from_ref(&record),
        );
        for tag in ["<script", "<img", "onerror='", "\u{202e}"] {
            assert!(!text.contains(tag), "{tag}: {text}");
        }
        assert_eq!(text.matches("</title>").count(), 1);
        assert!(text.contains("&lt;script&gt;") && text.len() < 64 << 10);
    }

    #[test]
    fn crashes_with_the_same_stack() {
        let crash = |exe: &str, hash: Option<&str>| Record {
            exe: exe.into(),
            stack_hash: hash.map(str::to_owned),
            ..Record::default()
        };
        let own = crash("/a", Some("1f"));
        for (other, is) in [
            (crash("/a", Some("1f")), true),
            (crash("/a", Some("2e")), false),
            (crash("/a", None), true),
            (crash("/b", Some("1f")), false),
        ] {
            assert_eq!(is_like(&other, &own), is, "{other:?}");
        }
        let text = page((&own, CoreStatus::None, None), &None, std::slice::from_ref(&own));
        assert!(text.contains("<h2>Crashes of this program with the same stack (1f)</h2>"));
    }

    #[test]
    fn without_a_core_it_says_why() {
        let record = Record { reason: Some("rate = 10/min".into()), ..Record::default() };
        let text = page((&record, CoreStatus::None, None), &None, &[]);
        assert!(text.contains("rate = 10/min") && text.contains("There is no core to read."));
        let error = Some(Err(anyhow::anyhow!("<b>")));
        assert!(page((&record, CoreStatus::None, None), &error, &[]).contains("&lt;b&gt;"));
    }
}
