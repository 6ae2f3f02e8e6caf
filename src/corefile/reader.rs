//! Starts the sandboxes in which a core is read: one for what the core alone says, one
//! with its binaries for the stacks. Results are bounded, and may be partial: some
//! information is better than none.

use super::files::{OpenedFiles, SearchPaths};
use super::results::{Match, Overview, PartialResult, ThreadStack};
use super::{ModuleFiles, overview, stacks};
use crate::sys::AsFd;
use crate::sys::map::Map;
use crate::sys::sandbox::{self, SandboxBounds};
use anyhow::{Result, anyhow};
use std::fs::File;
use std::time::Duration;

/// Bounds for reading the core alone.
const QUICK: SandboxBounds = SandboxBounds {
    memory: 2 << 30,
    cpu: 10,
    time: Duration::from_secs(20),
    output: 16 << 20,
    file: 0,
};
/// Bounds for reading it with its binaries, which are mapped: debug information can have gigabytes.
const FULL: SandboxBounds = SandboxBounds {
    memory: 16 << 30,
    cpu: 60,
    time: Duration::from_secs(120),
    output: 64 << 20,
    file: 0,
};

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// What the core alone says.
    pub overview: Overview,
    /// The files of each module.
    pub files: Vec<OpenedFiles>,
    /// For each module, whether its file is the right one.
    pub matches: Vec<Match>,
    /// For each module, the name by which others are linked with it, if it has one.
    pub sonames: Vec<Option<String>>,
    /// The stack of each thread.
    pub threads: Vec<ThreadStack>,
    /// Why the result may be incomplete.
    pub cut: Option<String>,
}

/// Reads what the core alone says.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn read_overview(core: &File) -> Result<Overview> {
    let result = sandbox::run(&QUICK, &[core.as_fd()], |out| {
        let answer = overview(core).map_err(|e| format!("{e:#}"));
        let _ = out.write_all(&serde_json::to_vec(&answer).unwrap_or_default());
    })?;
    match (serde_json::from_slice::<Result<Overview, String>>(&result.output), result.cut) {
        (Ok(answer), _) => answer.map_err(|e| anyhow!(e)),
        (Err(_), Some(cut)) => Err(anyhow!(cut)),
        (Err(e), None) => Err(anyhow!("its reader said something strange: {e}")),
    }
}

/// Reads the core and unwinds all stacks.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn read(core: &File, paths: &SearchPaths) -> Result<Reading> {
    let overview = read_overview(core)?;
    let files: Vec<OpenedFiles> = overview.modules.iter().map(|m| paths.open(m)).collect();
    let mut keep = vec![core.as_fd()];
    keep.extend(files.iter().flat_map(|f| {
        f.file.iter().map(|(_, file)| file.as_fd()).chain(f.debug.as_ref().map(|d| d.as_fd()))
    }));
    let result = sandbox::run(&FULL, &keep, |out| {
        // A file that cannot be mapped counts as not found.
        let maps: Vec<_> = files
            .iter()
            .map(|f| {
                (
                    f.file.as_ref().and_then(|(_, f)| Map::whole(f).ok()),
                    f.debug.as_ref().and_then(|f| Map::whole(f).ok()),
                )
            })
            .collect();
        let files: Vec<ModuleFiles<'_>> = maps
            .iter()
            .map(|(f, d)| ModuleFiles { file: f.as_deref(), debug: d.as_deref() })
            .collect();
        let mut send = |part: PartialResult| -> Result<()> {
            let mut line = serde_json::to_vec(&part)?;
            line.push(b'\n');
            Ok(out.write_all(&line)?)
        };
        if let Err(e) = stacks(core, &files, &mut send) {
            let _ = send(PartialResult::Failed(format!("{e:#}")));
        }
    })?;
    let mut reading = Reading { overview, files, cut: result.cut, ..Reading::default() };
    for line in result.output.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(PartialResult::Matches(matches)) => reading.matches = matches,
            Ok(PartialResult::Sonames(names)) => reading.sonames = names,
            Ok(PartialResult::Thread(thread)) => reading.threads.push(thread),
            Ok(PartialResult::Failed(why)) => reading.cut = Some(why),
            // The last line may be incomplete.
            Err(_) => {}
        }
    }
    reading.matches.resize(reading.overview.modules.len(), Match::Absent);
    reading.sonames.resize(reading.overview.modules.len(), None);
    Ok(reading)
}
