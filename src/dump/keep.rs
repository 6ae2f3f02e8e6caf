//! After the process was let go: its executable and libraries go into the store, so that its core can be read when the container is gone. Nobody waits
//! for this, and everybody else goes first.
//!
//! With the crasher's eyes: a child that has become it finds them by its core and sees what they are; what it cannot open is not kept. A second one, which is
//! started only if something is not there yet, copies into files that were opened for it. The parent opens nothing of the container.

use super::as_crasher::{self, Haste, say};
use super::facts::Facts;
use super::plan::File;
use crate::config;
use crate::corefile::{self, Module, Source, is_name};
use crate::store::Store;
use crate::store::binaries::Binaries;
use crate::sys::file;
use crate::sys::jail::Bounds;
use crate::sys::resolve::{self, Below};
use crate::sys::{AsFd, BorrowedFd, OwnedFd, proc};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File as Open;
use std::io::Read;
use std::time::Duration;

/// For finding them. What is said goes into the record, which is read back up to a size only.
const LOOK: Bounds =
    Bounds { memory: 1 << 30, cpu: 30, time: Duration::from_secs(30), output: 64 << 10, file: 0 };

/// For copying them; `file` is what is configured. The container's mounts are held that long; and it is less than the age at which an unfinished file counts
/// as left behind.
const COPY: Bounds =
    Bounds { memory: 1 << 30, cpu: 60, time: Duration::from_secs(30), output: 64 << 10, file: 0 };

/// Most files of one process.
const MOST: usize = 256;

/// How much of a compressed core is decompressed: its notes stand at its start.
const START: u64 = 16 << 20;

/// A file that was mapped, as the first child saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// Under which name it is kept; empty where it is too large for that.
    name: String,
    path: String,
    size: u64,
}

/// Keeps what belongs to the core that is the file `core`. Returns which are there now: paths, and names in the store.
pub fn keep(
    facts: &Facts,
    plan: &File,
    core: (u64, u64),
    store: &Store,
    most: &config::Binaries,
    free: u64,
) -> Result<BTreeMap<String, String>> {
    let seen = as_crasher::run(facts, plan, &LOOK, Haste::Last, &[], |own, out| {
        look(plan, core, most.max_file, own, out)
    })?;
    let (seen, large): (Vec<Seen>, Vec<Seen>) =
        seen.into_iter().take(MOST).partition(|s: &Seen| is_name(&s.name));
    for s in large {
        log::info!(
            "{:?} is not kept with its core: {} bytes are more than [binaries] max_file",
            s.path,
            s.size
        );
    }
    if seen.is_empty() {
        return Ok(BTreeMap::new());
    }
    let kept = store.binaries()?;
    let missing: Vec<&Seen> = seen.iter().filter(|s| kept.size(&s.name).is_none()).collect();
    let coming = if missing.is_empty() {
        BTreeSet::new()
    } else {
        add(facts, plan, &missing, &kept, most, free)?
    };
    // One of another size has been damaged since.
    let is_there = |s: &Seen| kept.take(&s.name) == Some(s.size) || coming.contains(&s.name);
    Ok(seen.into_iter().filter(is_there).map(|s| (s.path, s.name)).collect())
}

/// Copies those that there is room for. Returns those that another process has in hand at this moment: they will be there.
fn add(
    facts: &Facts,
    plan: &File,
    missing: &[&Seen],
    kept: &Binaries,
    most: &config::Binaries,
    free: u64,
) -> Result<BTreeSet<String>> {
    let used = kept.all()?.iter().map(|(_, bytes)| bytes).fold(0, |a: u64, b| a.saturating_add(*b));
    let mut room = most.max_total.saturating_sub(used).min(free / 2);
    let (mut open, mut coming) = (Vec::new(), BTreeSet::new());
    for s in missing {
        if s.size > room {
            log::info!(
                "{:?} is not kept with its core: {} bytes are more than there is room for",
                s.path,
                s.size
            );
        } else if let Some(file) = kept.begin(&s.name) {
            room -= s.size;
            open.push((*s, file));
        } else {
            coming.insert(s.name.clone());
        }
    }
    let files: Vec<BorrowedFd<'_>> = open.iter().map(|(_, file)| file.as_fd()).collect();
    let bounds = Bounds { file: most.max_file, ..COPY };
    let done = as_crasher::run::<String>(facts, plan, &bounds, Haste::Last, &files, |own, out| {
        open.iter().filter(|(s, to)| copy(s, to, own).is_ok()).for_each(|(s, _)| say(out, &s.name));
    });
    let done: BTreeSet<String> = done.unwrap_or_default().into_iter().collect();
    for (s, file) in &open {
        let whole = done.contains(&s.name) && file::stat(file)?.size == s.size;
        if whole { kept.finish(&s.name)? } else { kept.abandon(&s.name)? }
    }
    Ok(coming)
}

/// As the crasher: which files its core names, as far as they are still the same and can be read.
fn look(plan: &File, core: (u64, u64), most: u64, own: &OwnedFd, out: &mut Open) {
    let Ok(modules) = modules(plan, core) else { return };
    for module in modules.iter().take(MOST) {
        let Ok(file) = open(&module.path, own) else { continue };
        let id = corefile::build_id(&file);
        // Without its first page the core does not know better.
        if module.build_id.is_some() && module.build_id != id {
            continue;
        }
        let size = file.size();
        let name = if size > most {
            Some(String::new())
        } else {
            corefile::name(&file, id.as_deref(), size)
        };
        if let Some(name) = name {
            say(out, &Seen { name, path: module.path.clone(), size });
        }
    }
}

/// The core names them. It was made by this process's twin a moment ago; whether it still has its name is looked at.
fn modules(plan: &File, core: (u64, u64)) -> Result<Vec<Module>> {
    let (dir, name) = super::writer::split(&plan.path);
    let file = file::open_read(resolve::open_dir_as_process(dir)?, proc::os(name))?;
    ensure!(file::stat(&file)?.id == core, "another file has the core's name");
    if !plan.compress {
        return Ok(corefile::overview(&file)?.modules);
    }
    let mut start = Vec::new();
    // A frame that goes on is no error here.
    let _ = zstd::stream::read::Decoder::new(file)?.take(START).read_to_end(&mut start);
    Ok(corefile::overview(&start)?.modules)
}

/// Opens a mapped file, below the root that this process has.
fn open(path: &str, own: &OwnedFd) -> Result<Open> {
    Ok(resolve::open_file_in(own, file::open_dir("/".as_ref())?, path.as_ref(), Below::InRoot)?)
}

/// What is kept is the copy, which nobody changes any more: whether that is what was seen is looked at when it is there.
fn copy(seen: &Seen, to: &OwnedFd, own: &OwnedFd) -> Result<()> {
    let to = Open::from(to.try_clone()?);
    file::copy_whole(&open(&seen.path, own)?, &to, seen.size)?;
    let name = corefile::name(&to, corefile::build_id(&to).as_deref(), seen.size);
    ensure!(name.as_ref() == Some(&seen.name), "another file has the path now");
    Ok(())
}
