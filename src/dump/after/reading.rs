//! After the process was let go, its core is read once: in which function it crashed, with a hash
//! by which the same crash is recognised, and which executable and libraries belong to it. With a
//! summary nobody waits for this, and for the first five seconds all other work goes first; without
//! one it is done at once, since it goes on having the dump's slot.
//!
//! A child that has become the crasher opens the core and what it names. From then on it can open
//! nothing, and reads what the summary needs.

use super::deleted_files::DeletedFiles;
use crate::corefile::{self, Compressed, Module, ModuleFiles, Summary};
use crate::dump::crash::facts::Facts;
use crate::dump::policy::plan::CorePlan;
use crate::dump::writer::as_crasher::{self, Charge, Urgency, say};
use crate::dump::writer::crasher::open_dir;
use crate::dump::writer::create_file::split;
use crate::elf::{self, Source};
use crate::sys::file::FileId;
use crate::sys::mapped_file::Map;
use crate::sys::resolve::{self, Below, Want};
use crate::sys::sandbox::{self, SandboxBounds};
use crate::sys::{BorrowedFd, OwnedFd, file, proc, rlimit};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::time::Duration;

/// Finding the files, and the summary after it. What is said goes into the record, which is read
/// back up to a size only. Programs with more debug information than that have no summary.
const BOUNDS: SandboxBounds = SandboxBounds {
    memory: 2 << 30,
    cpu: FILES + SUMMARY,
    time: Duration::from_secs(40),
    output: 80 << 10,
    file: 0,
};

/// Processor time of both, in seconds.
const FILES: u64 = 30;
const SUMMARY: u64 = 5;

/// Most files of one process.
pub(super) const MOST: usize = 256;

/// How much of a compressed core is decompressed: its notes stand at its start.
const START: u64 = 16 << 20;

/// A file that was mapped, as the child saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeenFile {
    /// Under which name it is kept; empty where it is too large for that.
    pub name: String,
    pub path: String,
    /// Where its beginning is mapped.
    #[serde(default)]
    pub start: u64,
    pub size: u64,
    /// Bytes on disk: holes count nothing.
    #[serde(default)]
    pub disk: u64,
}

/// One thing that the child says.
#[derive(Serialize, Deserialize)]
enum Line {
    File(SeenFile),
    Summary(Summary),
}

/// A core that is to be read.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    /// What is known of the process.
    pub facts: &'a Facts,
    /// Its core's file.
    pub core_file: &'a CorePlan,
    /// Device and inode number of the core.
    pub core: FileId,
    /// Those of its files that have no name any more.
    pub deleted: &'a DeletedFiles,
    /// What a child that hangs keeps: its slot, or the place in which it is read.
    pub locks: &'a [BorrowedFd<'a>],
    /// Whose control groups its children run in.
    pub charge: Charge<'a>,
    /// The summary is wanted. Then it has no slot that anybody waits for.
    pub summary: bool,
    /// The files are wanted; the largest that is kept, in bytes.
    pub files: Option<u64>,
}

/// What a core says, as far as it was wanted.
#[derive(Debug, Default)]
pub(super) struct CoreFindings {
    pub summary: Option<Summary>,
    pub files: Vec<SeenFile>,
}

impl Reading<'_> {
    /// Reads the core.
    ///
    /// # Errors
    /// There is no child.
    pub(super) fn read(&self) -> Result<CoreFindings> {
        let Self { facts, core_file, deleted, .. } = *self;
        let fds: Vec<BorrowedFd<'_>> = self.locks.iter().copied().chain(deleted.fds()).collect();
        let child = |own: &OwnedFd, out: &mut File| self.tell(&Sources { own, deleted }, out);
        let urgency = self.urgency();
        let lines = as_crasher::run(facts, core_file, &BOUNDS, urgency, self.charge, &fds, child)?;
        let mut told = CoreFindings::default();
        for line in lines {
            match line {
                Line::File(file) => told.files.push(file),
                Line::Summary(summary) => told.summary = Some(summary),
            }
        }
        Ok(told)
    }

    /// How urgent it is to read or copy.
    pub(super) fn urgency(&self) -> Urgency {
        if self.summary { Urgency::Later } else { Urgency::Now }
    }

    /// As the crasher. What is wanted of the files comes first: it is said when the summary takes
    /// more than it may.
    fn tell(&self, from: &Sources<'_>, out: &mut File) {
        let Ok(file) = open_core(self.core_file, self.core, from.own) else { return };
        let compressed = self.core_file.compress.then(|| Compressed::of(&file));
        let core: Option<&dyn Source> = match &compressed {
            Some(compressed) => compressed.as_ref().ok().map(|core| core as _),
            None => Some(&file),
        };
        let modules = match core {
            Some(core) => corefile::overview(core).map(|overview| overview.modules),
            None => modules_at_start(&file),
        };
        let Ok(modules) = modules else { return };
        let mut files = Vec::new();
        for module in modules.iter().take(MOST) {
            let file = from.open(&module.path, module.start).ok();
            let seen = file.as_ref().zip(self.files).and_then(|(f, most)| mapped(module, f, most));
            if let Some(seen) = seen {
                say(out, &Line::File(seen));
            }
            if self.summary {
                files.push([file, from.debug_of(module)]);
            }
        }
        if let Some(core) = core
            && self.summary
            && rlimit::bound_processor(SUMMARY).is_ok()
        {
            sandbox::confined(|| {
                if let Some(summary) = summary(core, &files) {
                    say(out, &Line::Summary(summary));
                }
            });
        }
    }
}

/// `files`: of each module its file and its debug information, as far as they could be opened.
fn summary(core: &dyn Source, files: &[[Option<File>; 2]]) -> Option<Summary> {
    let map = |file: &Option<File>| Map::whole(file.as_ref()?).ok();
    let maps: Vec<[Option<Map>; 2]> = files.iter().map(|f| f.each_ref().map(map)).collect();
    let files: Vec<ModuleFiles<'_>> = maps
        .iter()
        .map(|[file, debug]| ModuleFiles {
            file: file.as_deref(),
            debug: debug.as_deref().into_iter().collect(),
            ..ModuleFiles::default()
        })
        .collect();
    corefile::summary(core, &files).ok()
}

/// What is said of a mapped file, if it is still the one that the core names.
fn mapped(module: &Module, file: &File, most: u64) -> Option<SeenFile> {
    let id = elf::build_id(file);
    // A core without the module's first page has no build-id of it; the file is accepted then.
    if module.build_id.is_some() && module.build_id != id {
        return None;
    }
    let size = file.size();
    let name = if size > most { String::new() } else { corefile::name(file, id.as_deref(), size)? };
    let disk = file::stat(file).map_or(size, |s| s.allocated.min(size));
    Some(SeenFile { name, path: module.path.clone(), start: module.start, size, disk })
}

/// The modules that a compressed core names whose frames cannot be read each by itself.
fn modules_at_start(core: &File) -> Result<Vec<Module>> {
    let mut start = Vec::new();
    // A frame that goes on is no error here.
    let _ = zstd::stream::read::Decoder::new(core)?.take(START).read_to_end(&mut start);
    Ok(corefile::overview(&start)?.modules)
}

/// Opens the core. It was made by this process's twin a moment ago; whether it still has its name
/// is looked at.
/// That is done before it is opened: the name may be a device's by now, which opening would change.
fn open_core(core_file: &CorePlan, core: FileId, own: &OwnedFd) -> Result<File> {
    let (dir, name) = split(&core_file.path);
    let dir = open_dir(core_file.rights, dir)?;
    let found = resolve::resolve(dir, proc::os(name), Below::NoLinks, Want::Any)?;
    ensure!(file::stat(&found)?.id == core, "another file has the core's name");
    Ok(resolve::open_pinned_file(own, found)?)
}

/// Where a child that has become the crasher opens mapped files.
pub(super) struct Sources<'a> {
    pub own: &'a OwnedFd,
    pub deleted: &'a DeletedFiles,
}

impl Sources<'_> {
    /// Opens a mapped file: that of the process itself where it has no name any more, else by its
    /// path.
    pub(super) fn open(&self, path: &str, start: u64) -> Result<File> {
        match self.deleted.at(start) {
            Some(pinned) => Ok(resolve::open_pinned_file(self.own, pinned)?),
            None => self.open_path(path),
        }
    }

    /// Opens the debug information of a module, by its build-id.
    fn debug_of(&self, module: &Module) -> Option<File> {
        let id = module.build_id.as_deref()?;
        let (first, rest) = (id.get(..2)?, id.get(2..)?);
        self.open_path(&format!("/usr/lib/debug/.build-id/{first}/{rest}.debug")).ok()
    }

    /// Opens a file below the root that this process has.
    fn open_path(&self, path: &str) -> Result<File> {
        let root = file::open_dir("/".as_ref())?;
        Ok(resolve::open_file_in(self.own, root, path.as_ref(), Below::InRoot)?)
    }
}
