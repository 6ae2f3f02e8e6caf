//! Starts the sandboxes in which a core is read: one for what the core alone says, one
//! with its binaries for the stacks. Results are bounded, and may be partial: some
//! information is better than none.

use super::files::{OpenedFiles, SearchPaths};
use super::links::{Link, NeededFile};
use super::results::{GoroutineStack, Match, Overview, PartialResult, ThreadStack};
use super::{ModuleFiles, VariableOptions, overview, stacks};
use crate::sys::AsFd;
use crate::sys::mapped_file::Map;
use crate::sys::sandbox::{self, SandboxBounds};
use anyhow::{Result, anyhow};
use std::collections::BTreeSet;
use std::fs::File;
use std::time::{Duration, Instant};

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
pub(crate) struct CoreReading {
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
    /// The stacks of goroutines that do not run, in the order of their numbers.
    pub goroutines: Vec<GoroutineStack>,
    /// How many goroutines there are besides.
    pub more_goroutines: usize,
    /// Files of split DWARF that were not found.
    pub missing_split: Vec<String>,
    /// Why the result may be incomplete.
    pub cut: Option<String>,
}

/// Reads what the core alone says.
///
/// # Errors
/// Why it cannot be read.
fn read_overview(core: &File) -> Result<Overview> {
    let result = sandbox::run(&QUICK, &[core.as_fd()], |out| {
        let answer = overview(core).map_err(|e| format!("{e:#}"));
        let _ = out.write_all(&serde_json::to_vec(&answer).unwrap_or_default());
    })?;
    match (serde_json::from_slice::<Result<Overview, String>>(&result.output), result.cut) {
        (Ok(answer), _) => answer.map_err(|e| anyhow!(e)),
        (Err(_), Some(cut)) => Err(anyhow!(cut)),
        (Err(e), None) => Err(anyhow!("invalid answer from the sandboxed reader: {e}")),
    }
}

/// Bounds for looking at one file that a server gave, which is mapped.
const ONE: SandboxBounds = SandboxBounds { memory: 16 << 30, output: 4096, ..QUICK };

/// The build-id of an ELF file in hexadecimal; `None` if it has none, or is no ELF file.
///
/// # Errors
/// It could not be read within the bounds.
pub(crate) fn build_id(file: &File) -> Result<Option<String>> {
    let result = sandbox::run(&ONE, &[file.as_fd()], |out| {
        let map = Map::whole(file);
        let id = map.ok().and_then(|map| super::binary::build_id_of(&map));
        let _ = out.write_all(id.unwrap_or_default().as_bytes());
    })?;
    match result.cut {
        Some(cut) => Err(anyhow!(cut)),
        None => Ok(String::from_utf8(result.output).ok().filter(|id| !id.is_empty())),
    }
}

/// How often the reader may ask for files that files of the last time name: the debug information
/// of a program, what dwz moved out of that, and its split DWARF.
const ROUNDS: usize = 4;

/// The same where servers are asked too: each executable that comes shows more of the stack.
const ROUNDS_WITH_SERVERS: usize = 16;

/// Reads the core and unwinds all stacks, with the variables that are wished for.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn read(
    core: &File,
    paths: &SearchPaths,
    options: Option<&VariableOptions>,
) -> Result<CoreReading> {
    let overview = read_overview(core)?;
    let files = overview.modules.iter().map(|m| paths.open(m)).collect();
    let mut reading = CoreReading { overview, files, ..CoreReading::default() };
    let mut asked = BTreeSet::new();
    // What only servers have is not asked for where there are none.
    let everywhere = 0..reading.overview.modules.len();
    let of = |module| [Link::Executable, Link::DebugInfo].map(|link| NeededFile { module, link });
    let rounds = match paths.servers {
        Some(_) => ROUNDS_WITH_SERVERS,
        None => {
            asked.extend(everywhere.flat_map(of));
            ROUNDS
        }
    };
    // The time that servers take does not count.
    let mut left = FULL.time;
    for _ in 0..rounds {
        let begun = Instant::now();
        let wanted = read_once(core, &mut reading, (&asked, options), left)?;
        left = left.saturating_sub(begun.elapsed());
        let mut has_more = reading.threads.is_empty();
        for w in &wanted {
            let module = reading.overview.modules.get(w.module);
            let files = reading.files.get_mut(w.module);
            if let (Some(module), Some(files)) = (module, files)
                && asked.insert(w.clone())
            {
                has_more |= paths.follow(module, &w.link, files);
            }
        }
        if !has_more || reading.cut.is_some() {
            break;
        }
    }
    Ok(reading)
}

/// Reads with the files that there are so far, and returns which others are wanted.
fn read_once(
    core: &File,
    reading: &mut CoreReading,
    (asked, options): (&BTreeSet<NeededFile>, Option<&VariableOptions>),
    time: Duration,
) -> Result<Vec<NeededFile>> {
    let mut keep = vec![core.as_fd()];
    keep.extend(reading.files.iter().flat_map(OpenedFiles::all).map(File::as_fd));
    let bounds = SandboxBounds { time, ..FULL };
    let result = sandbox::run(&bounds, &keep, |out| {
        // A file that cannot be mapped counts as not found.
        let map = |files: &[File]| -> Vec<Map> {
            files.iter().filter_map(|file| Map::whole(file).ok()).collect()
        };
        let maps: Vec<_> = reading
            .files
            .iter()
            .map(|f| {
                let file = f.file.as_ref().and_then(|(_, f)| Map::whole(f).ok());
                (file, map(&f.debug), map(&f.supplementary), map(&f.split))
            })
            .collect();
        let files: Vec<ModuleFiles<'_>> = maps
            .iter()
            .map(|(file, debug, supplementary, split)| ModuleFiles {
                file: file.as_deref(),
                debug: slices(debug),
                supplementary: slices(supplementary),
                split: slices(split),
            })
            .collect();
        let mut send = |part: PartialResult| -> Result<()> {
            let mut line = serde_json::to_vec(&part)?;
            line.push(b'\n');
            Ok(out.write_all(&line)?)
        };
        if let Err(e) = stacks(core, &files, asked, options, &mut send) {
            let _ = send(PartialResult::Failed(format!("{e:#}")));
        }
    })?;
    reading.cut = result.cut;
    reading.threads.clear();
    reading.goroutines.clear();
    let mut wanted = Vec::new();
    for line in result.output.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(PartialResult::Matches(matches)) => reading.matches = matches,
            Ok(PartialResult::Sonames(names)) => reading.sonames = names,
            Ok(PartialResult::Thread(thread)) => reading.threads.push(thread),
            Ok(PartialResult::Goroutine(stack)) => reading.goroutines.push(stack),
            Ok(PartialResult::MoreGoroutines(more)) => reading.more_goroutines = more,
            Ok(PartialResult::Variables(frame, all)) => {
                let first = reading.threads.first_mut();
                if let Some(frame) = first.and_then(|thread| thread.frames.get_mut(frame)) {
                    frame.variables = all;
                }
            }
            Ok(PartialResult::Needed(all)) => wanted = all,
            Ok(PartialResult::Failed(why)) => reading.cut = Some(why),
            // The last line may be incomplete.
            Err(_) => {}
        }
    }
    reading.matches.resize(reading.overview.modules.len(), Match::Absent);
    reading.sonames.resize(reading.overview.modules.len(), None);
    reading.missing_split = wanted
        .iter()
        .filter_map(|w| match &w.link {
            Link::Split { path, .. } => Some(path.clone()),
            _ => None,
        })
        .collect();
    Ok(wanted)
}

fn slices(maps: &[Map]) -> Vec<&[u8]> {
    maps.iter().map(|map| &**map).collect()
}
