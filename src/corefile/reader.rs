//! Starts the sandboxes in which a core is read: one for what the core alone says, one
//! with its binaries for the stacks. Results are bounded, and may be partial: some
//! information is better than none.

use super::files::{Opened, Places};
use super::{Bytes, Match, Overview, ThreadStack, Told, overview, stacks};
use crate::sys::AsFd;
use crate::sys::map::Map;
use crate::sys::sandbox::{self, Bounds};
use anyhow::{Result, anyhow};
use std::fs::File;
use std::time::Duration;

/// Bounds for reading the core alone.
const QUICK: Bounds =
    Bounds { memory: 2 << 30, cpu: 10, time: Duration::from_secs(20), output: 16 << 20, file: 0 };
/// Bounds for reading it with its binaries, which are mapped: debug information can have gigabytes.
const FULL: Bounds =
    Bounds { memory: 16 << 30, cpu: 60, time: Duration::from_secs(120), output: 64 << 20, file: 0 };

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// What the core alone says.
    pub overview: Overview,
    /// The files of each module.
    pub files: Vec<Opened>,
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
pub(crate) fn look(core: &File) -> Result<Overview> {
    let said = sandbox::run(&QUICK, &[core.as_fd()], |out| {
        let answer = overview(core).map_err(|e| format!("{e:#}"));
        let _ = out.write_all(&serde_json::to_vec(&answer).unwrap_or_default());
    })?;
    match (serde_json::from_slice::<Result<Overview, String>>(&said.output), said.cut) {
        (Ok(answer), _) => answer.map_err(|e| anyhow!(e)),
        (Err(_), Some(cut)) => Err(anyhow!(cut)),
        (Err(e), None) => Err(anyhow!("its reader said something strange: {e}")),
    }
}

/// Reads the core and unwinds all stacks.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn read(core: &File, places: &Places) -> Result<Reading> {
    let overview = look(core)?;
    let files: Vec<Opened> = overview.modules.iter().map(|m| places.open(m)).collect();
    let mut keep = vec![core.as_fd()];
    keep.extend(files.iter().flat_map(|f| {
        f.file.iter().map(|(_, file)| file.as_fd()).chain(f.debug.as_ref().map(|d| d.as_fd()))
    }));
    let said = sandbox::run(&FULL, &keep, |out| {
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
        let bytes: Vec<Bytes<'_>> =
            maps.iter().map(|(f, d)| Bytes { file: f.as_deref(), debug: d.as_deref() }).collect();
        let mut tell = |told: Told| -> Result<()> {
            let mut line = serde_json::to_vec(&told)?;
            line.push(b'\n');
            Ok(out.write_all(&line)?)
        };
        if let Err(e) = stacks(core, &bytes, &mut tell) {
            let _ = tell(Told::Failed(format!("{e:#}")));
        }
    })?;
    let mut reading = Reading { overview, files, cut: said.cut, ..Reading::default() };
    for line in said.output.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Told::Matches(matches)) => reading.matches = matches,
            Ok(Told::Sonames(names)) => reading.sonames = names,
            Ok(Told::Thread(thread)) => reading.threads.push(thread),
            Ok(Told::Failed(why)) => reading.cut = Some(why),
            // The last line may be incomplete.
            Err(_) => {}
        }
    }
    reading.matches.resize(reading.overview.modules.len(), Match::Absent);
    reading.sonames.resize(reading.overview.modules.len(), None);
    Ok(reading)
}
