//! After the process was let go, the core is read once for a summary: in which function it crashed,
//! and a hash by which the same crash is recognised. Nobody waits for this, and all other work goes
//! first.
//!
//! A child that has become the crasher opens the core and what it names; from then on it can open
//! nothing, and reads.

use super::deleted_files::DeletedFiles;
use super::kept_binaries::{Sources, open_core};
use crate::corefile::{self, Compressed, ModuleFiles, Summary};
use crate::dump::crash::facts::Facts;
use crate::dump::policy::plan::CoreFile;
use crate::dump::policy::slot::Slot;
use crate::dump::writer::crasher_task::{self, Charge, Urgency, say};
use crate::elf::Source;
use crate::sys::BorrowedFd;
use crate::sys::file::FileId;
use crate::sys::mapped_file::Map;
use crate::sys::sandbox::{self, SandboxBounds};
use anyhow::Result;
use std::fs::File;
use std::time::Duration;

/// Programs with more debug information than that have no summary.
const BOUNDS: SandboxBounds = SandboxBounds {
    memory: 2 << 30,
    cpu: 5,
    time: Duration::from_secs(10),
    output: 16 << 10,
    file: 0,
};

/// Most modules whose files are opened.
const MOST: usize = 256;

/// Reads the core of a crash; `None` where nothing can be said. `core`: its device and inode
/// number. `deleted`: the process's files that have no name any more.
///
/// # Errors
/// There is no child.
pub(crate) fn summarize(
    facts: &Facts,
    core_file: &CoreFile,
    core: FileId,
    deleted: &DeletedFiles,
    slot: Option<&Slot>,
    charge: Charge<'_>,
) -> Result<Option<Summary>> {
    let fds: Vec<BorrowedFd<'_>> = slot.iter().flat_map(|t| t.fds()).chain(deleted.fds()).collect();
    let said =
        crasher_task::run(facts, core_file, &BOUNDS, Urgency::Later, charge, &fds, |own, out| {
            let Ok(file) = open_core(core_file, core, own) else { return };
            let compressed = core_file.compress.then(|| Compressed::of(&file));
            let core: &dyn Source = match &compressed {
                Some(Ok(compressed)) => compressed,
                Some(Err(_)) => return,
                None => &file,
            };
            if let Ok(files) = files_of(core, &Sources { own, deleted }) {
                sandbox::confined(|| {
                    let maps: Vec<[Option<Map>; 2]> =
                        files.iter().map(|f| f.each_ref().map(map)).collect();
                    let files: Vec<ModuleFiles<'_>> = maps
                        .iter()
                        .map(|[file, debug]| ModuleFiles {
                            file: file.as_deref(),
                            debug: debug.as_deref().into_iter().collect(),
                            ..ModuleFiles::default()
                        })
                        .collect();
                    if let Ok(summary) = corefile::summary(core, &files) {
                        say(out, &summary);
                    }
                });
            }
        })?;
    Ok(said.into_iter().next())
}

fn map(file: &Option<File>) -> Option<Map> {
    Map::whole(file.as_ref()?).ok()
}

/// Of each module its file and its debug information, as far as the crasher can open them.
fn files_of(core: &dyn Source, from: &Sources<'_>) -> Result<Vec<[Option<File>; 2]>> {
    let modules = corefile::overview(core)?.modules;
    let files = modules.iter().take(MOST).map(|module| {
        let debug = module.build_id.as_deref().and_then(|id| {
            let (first, rest) = (id.get(..2)?, id.get(2..)?);
            from.open_path(&format!("/usr/lib/debug/.build-id/{first}/{rest}.debug")).ok()
        });
        [from.open(&module.path, module.start).ok(), debug]
    });
    Ok(files.collect())
}
