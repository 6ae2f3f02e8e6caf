//! Prints stacks: threads with equal stacks together, then the modules that appear in them.

use super::call::Call;
use super::output;
use super::table::{self, left};
use crate::corefile::files::FileOrigin;
use crate::corefile::reader::CoreReading;
use crate::corefile::{Frame, GoroutineStack, Match, Module, ThreadStack};
use crate::report::one_line;
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use std::collections::BTreeSet;
use std::io::Write;

/// Prints all stacks of a core.
pub(super) fn print(out: &mut impl Write, reading: &CoreReading) -> Result<()> {
    let modules = &reading.overview.modules;
    for group in groups(&reading.threads) {
        let ids: Vec<String> = group.iter().map(|t| t.tid.to_string()).collect();
        let crashed = reading.threads.first().is_some_and(|first| std::ptr::eq(first, group[0]));
        let head = match (ids.as_slice(), crashed) {
            ([id], true) => format!("Stack of thread {id}, which crashed:"),
            ([id], false) => format!("Stack of thread {id}:"),
            (ids, _) => format!("Stack of {} threads ({}):", ids.len(), short_list(ids)),
        };
        writeln!(out, "\n{}{head}{:#}", Style::new().bold(), Style::new().bold())?;
        frames(out, &group[0].frames, modules)?;
        if let Some(why) = &group[0].cut {
            writeln!(out, "  ... the stack may go on: {}", one_line(why))?;
        }
    }
    goroutines(out, reading)?;
    let crashed = reading.threads.first().map(|t| t.frames.as_slice()).unwrap_or_default();
    let runs = crashed.iter().find_map(|f| interpreter(&modules.get(f.module?)?.path));
    if let Some(language) = runs {
        let reader = match language {
            "Python" => " (pystack and py-spy read those from a core)",
            "Java" => " (jhsdb of the same JDK reads those from a core)",
            _ => "",
        };
        writeln!(
            out,
            "\nThis is a {language} program: the stack has the functions of the interpreter, not \
             those of the program{reader}"
        )?;
    }
    for path in &reading.missing_split {
        writeln!(out, "\nsplit debug information not found: {}", one_line(path))?;
    }
    if let Some(cut) = &reading.cut {
        writeln!(out, "\nNot all could be read: {}", one_line(cut))?;
    }
    if reading.threads.len() < reading.overview.threads {
        writeln!(
            out,
            "Stacks that are not shown: {} of {}.",
            reading.overview.threads - reading.threads.len(),
            reading.overview.threads
        )?;
    }
    // Not the vDSO, which is in the core.
    let files = reading.overview.modules.iter().zip(&reading.matches);
    let mut files = files.filter(|(module, _)| module.path.starts_with('/')).peekable();
    if files.peek().is_some() && files.all(|(_, verdict)| *verdict == Match::Absent) {
        writeln!(
            out,
            "\nNone of the program's files was found. --sysroot DIRECTORY says below which root \
             they are: --sysroot / if the program is this host's"
        )?;
    }
    list_modules(out, reading)
}

/// Prints the goroutines that do not run, those with equal stacks together.
fn goroutines(out: &mut impl Write, reading: &CoreReading) -> Result<()> {
    let mut groups: Vec<Vec<&GoroutineStack>> = Vec::new();
    for g in &reading.goroutines {
        let is_like = |other: &GoroutineStack| {
            (&other.state, &other.frames, &other.cut) == (&g.state, &g.frames, &g.cut)
        };
        match groups.iter_mut().find(|group| is_like(group[0])) {
            Some(group) => group.push(g),
            None => groups.push(vec![g]),
        }
    }
    for group in &groups {
        let ids: Vec<String> = group.iter().map(|g| g.id.to_string()).collect();
        let state = one_line(&group[0].state);
        let head = match ids.as_slice() {
            [id] => format!("goroutine {id} [{state}]:"),
            ids => format!("{} goroutines ({}) [{state}]:", ids.len(), short_list(ids)),
        };
        writeln!(out, "\n{}{head}{:#}", Style::new().bold(), Style::new().bold())?;
        frames(out, &group[0].frames, &reading.overview.modules)?;
        if let Some(why) = &group[0].cut {
            writeln!(out, "  ... the stack may go on: {}", one_line(why))?;
        }
    }
    if reading.more_goroutines > 0 {
        writeln!(out, "\n{} more goroutines are not shown", reading.more_goroutines)?;
    }
    Ok(())
}

/// The interpreter or virtual machine that a module is, by its name. Its functions are on the
/// stack, those of the program that it runs are not.
fn interpreter(path: &str) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 8] = [
        ("libpython", "Python"),
        ("python", "Python"),
        ("libnode", "Node.js"),
        ("node", "Node.js"),
        ("libjvm", "Java"),
        ("libruby", "Ruby"),
        ("ruby", "Ruby"),
        ("libperl", "Perl"),
    ];
    let name = base(path);
    let is = |start: &str| {
        let rest = name.strip_prefix(start);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
    };
    KNOWN.iter().find(|(start, _)| is(start)).map(|(_, name)| *name)
}

/// Groups the threads: the crashing one alone; the others by equal stacks, in the
/// order of their first thread.
pub(super) fn groups(threads: &[ThreadStack]) -> Vec<Vec<&ThreadStack>> {
    let mut all: Vec<Vec<&ThreadStack>> = Vec::new();
    for (i, thread) in threads.iter().enumerate() {
        match all
            .iter_mut()
            .skip(1)
            .find(|g| g[0].frames == thread.frames && g[0].cut == thread.cut)
        {
            Some(group) if i > 0 => group.push(thread),
            _ => all.push(vec![thread]),
        }
    }
    all
}

pub(super) fn short_list(ids: &[String]) -> String {
    match ids {
        [first, .., last] if ids.len() > 8 => format!("{first} ... {last}"),
        _ => ids.join(", "),
    }
}

fn frames(out: &mut impl Write, frames: &[Frame], modules: &[Module]) -> Result<()> {
    let names = Style::new().bold();
    let dim = AnsiColor::Cyan.on_default();
    for (i, f) in frames.iter().enumerate() {
        let call = Call::of(f);
        write!(out, "  #{i:<3} {names}{}{names:#}", one_line(&call.name))?;
        if let Some(arguments) = &call.arguments {
            write!(out, " ({})", one_line(arguments))?;
        }
        if let Some(file) = &f.file {
            let line = f.line.map(|l| format!(":{l}")).unwrap_or_default();
            write!(out, " at {}{line}", one_line(file))?;
        }
        let place = match (f.module.and_then(|m| modules.get(m)), f.offset) {
            _ if f.inlined => "inlined".to_owned(),
            _ if f.tail_call => "tail call".to_owned(),
            (Some(m), Some(offset)) => format!("{}+{offset:#x}", one_line(base(&m.path))),
            _ => format!("{:#x}", f.address),
        };
        writeln!(out, " {dim}[{place}]{dim:#}")?;
        for (name, value) in call.beneath {
            writeln!(out, "         {} = {}", one_line(name), one_line(value))?;
        }
    }
    Ok(())
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn list_modules(out: &mut impl Write, reading: &CoreReading) -> Result<()> {
    let seen: BTreeSet<usize> = reading
        .threads
        .iter()
        .flat_map(|t| &t.frames)
        .filter_map(|f| f.module)
        .chain([0])
        .collect();
    let packaged = reading.overview.modules.iter().any(|m| m.package.is_some());
    let columns = [
        left("MODULE").flexible(),
        left("BUILD-ID").rank(1),
        left("FILE").flexible(),
        left("PACKAGE").rank(2),
    ];
    let rows: Vec<Vec<table::Cell>> = seen
        .into_iter()
        .filter_map(|i| {
            Some((reading.overview.modules.get(i)?, reading.matches.get(i)?, reading.files.get(i)?))
        })
        .map(|(m, verdict, files)| {
            let origin = files.file.as_ref().map(|(origin, _)| *origin);
            let mut row = vec![
                m.path.as_str().into(),
                m.build_id.as_deref().unwrap_or("-").into(),
                symbols(*verdict, origin, m).into(),
            ];
            if packaged {
                let package = m.package.as_ref().map(ToString::to_string);
                row.push(package.unwrap_or_default().into());
            }
            row
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let columns = &columns[..if packaged { 4 } else { 3 }];
    Ok(table::print(out, columns, &rows, output::width())?)
}

pub(super) fn symbols(verdict: Match, origin: Option<FileOrigin>, module: &Module) -> &'static str {
    match (verdict, origin) {
        (Match::Same, Some(FileOrigin::Kept)) => "kept",
        (Match::Same, Some(FileOrigin::Root)) => "in its root",
        (Match::Same, Some(FileOrigin::Fetched)) => "fetched",
        (Match::Same, None) => "in the core",
        (Match::Unproven, Some(FileOrigin::Kept)) => "kept",
        (Match::Unproven, _) if module.build_id.is_none() => "in its root (no build-id proves it)",
        (Match::Unproven, _) => "unproven",
        (Match::Other, _) => "not used: another build has this path now",
        (Match::Damaged, _) => "not used: not an ELF file that can be read",
        (Match::Absent, _) => "not found",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_by_name() {
        for (path, expected) in [
            ("/usr/bin/python3.11", Some("Python")),
            ("/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0", Some("Python")),
            ("/usr/local/bin/node", Some("Node.js")),
            ("/opt/jdk/lib/server/libjvm.so", Some("Java")),
            ("/usr/bin/node_exporter", None),
            ("/usr/bin/nodetool", None),
            ("/srv/shop", None),
        ] {
            assert_eq!(interpreter(path), expected, "{path}");
        }
    }
}
