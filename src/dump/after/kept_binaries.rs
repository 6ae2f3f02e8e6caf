//! After the process was let go, its executable and libraries go into the store, so that its core
//! can be read when the container is gone. Nobody waits for this, and all other work goes first.
//!
//! A child that has become the crasher finds them by its core and says which they are; what it
//! cannot open is not kept. A second one, started only if something is missing in the store, copies
//! into files that were opened for it. The parent opens nothing of the container.

use super::deleted_files::DeletedFiles;
use crate::config;
use crate::corefile::{self, Module, is_name};
use crate::dump::crash::facts::Facts;
use crate::dump::policy::plan::{CoreFile, Rights};
use crate::dump::policy::slot::Slot;
use crate::dump::writer::crasher_task::{self, Charge, Urgency, say};
use crate::dump::writer::place::split;
use crate::elf::{self, Source};
use crate::report;
use crate::store::Store;
use crate::store::binaries::KeptBinaries;
use crate::store::binaries_budget::{BinariesBudget, NewBinary};
use crate::sys::file;
use crate::sys::file::FileId;
use crate::sys::resolve::{self, Below, Want};
use crate::sys::sandbox::SandboxBounds;
use crate::sys::{AsFd, BorrowedFd, OwnedFd, proc};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File as Open;
use std::io::Read;
use std::time::Duration;

/// For finding them. What is said goes into the record, which is read back up to a size only.
const LOOK: SandboxBounds = SandboxBounds {
    memory: 1 << 30,
    cpu: 30,
    time: Duration::from_secs(30),
    output: 64 << 10,
    file: 0,
};

/// For copying them; `file` is what is configured. The container's mounts are held that long; and
/// it is less than the age at which an unfinished file counts as left behind.
const COPY: SandboxBounds = SandboxBounds {
    memory: 1 << 30,
    cpu: 60,
    time: Duration::from_secs(30),
    output: 64 << 10,
    file: 0,
};

/// How long another crash of the same container is waited for: as long as its copy may take.
const TURN: Duration = COPY.time;

/// Most files of one process.
const MOST: usize = 256;

/// How much of a compressed core is decompressed: its notes stand at its start.
const START: u64 = 16 << 20;

/// A file that was mapped, as the first child saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SeenFile {
    /// Under which name it is kept; empty where it is too large for that.
    name: String,
    path: String,
    /// Where its beginning is mapped.
    #[serde(default)]
    start: u64,
    size: u64,
    /// Bytes on disk: holes count nothing.
    #[serde(default)]
    disk: u64,
}

/// What is to be kept, and how much of it may be.
pub(crate) struct Keeper<'a> {
    /// What is known of the process.
    pub facts: &'a Facts,
    /// Its core's file.
    pub core_file: &'a CoreFile,
    /// Device and inode number of the core.
    pub core: FileId,
    /// Those of its files that have no name any more.
    pub deleted: &'a DeletedFiles,
    /// For whom it counts.
    pub account: &'a str,
    /// Whose slot it is: a child that hangs keeps it.
    pub slot: Option<&'a Slot>,
    /// Whose control groups its children run in.
    pub charge: Charge<'a>,
    /// The configuration.
    pub most: &'a config::Binaries,
    /// Bytes that are free on the store's disk.
    pub free: u64,
}

impl Keeper<'_> {
    /// Keeps what belongs to the core. Returns which are there now: paths, and names in the store.
    pub(crate) fn keep(&self, store: &Store) -> Result<BTreeMap<String, String>> {
        let Keeper { facts, core_file, core, most, deleted, .. } = *self;
        let fds = self.slot.iter().flat_map(|t| t.fds()).chain(deleted.fds());
        let fds: Vec<BorrowedFd<'_>> = fds.collect();
        let seen = crasher_task::run(
            facts,
            core_file,
            &LOOK,
            Urgency::Later,
            self.charge,
            &fds,
            |own, out| {
                list_files(core_file, core, most.max_file.raw(), &Sources { own, deleted }, out)
            },
        )?;
        let (seen, large): (Vec<SeenFile>, Vec<SeenFile>) =
            seen.into_iter().take(MOST).partition(|s: &SeenFile| is_name(&s.name));
        say_not_kept(
            &large.iter().collect::<Vec<_>>(),
            "[binaries] max_file is less than its size",
        );
        if seen.is_empty() {
            return Ok(BTreeMap::new());
        }
        let kept = store.binaries()?;
        let is_new =
            |s: &&SeenFile| kept.size(&s.name).is_none() || !kept.has(self.account, &s.name);
        let new: Vec<&SeenFile> = seen.iter().filter(is_new).collect();
        let mut coming = BTreeSet::new();
        if !new.is_empty() {
            match kept.alone(self.account, TURN)? {
                Some(_alone) => coming = self.add(&new, &kept)?,
                None => log::info!("another crash of this container is still being kept, ignoring"),
            }
        }
        // One of another size has been damaged since.
        let is_there =
            |s: &SeenFile| kept.take(&s.name) == Some(s.size) || coming.contains(&s.name);
        Ok(seen.into_iter().filter(is_there).map(|s| (s.path, s.name)).collect())
    }

    /// Copies those that are missing and that there is room for. What another account has brought
    /// counts for this one too. Returns those that another account's keeper has in hand: they will
    /// be there.
    fn add(&self, new: &[&SeenFile], kept: &KeptBinaries) -> Result<BTreeSet<String>> {
        let Keeper { facts, core_file, most, deleted, .. } = *self;
        let mut budget = self.budget(kept)?;
        let needed: BTreeSet<&str> = new.iter().map(|s| s.name.as_str()).collect();
        let (mut open, mut coming) = (Vec::new(), BTreeSet::new());
        let (mut without_room, mut failed) = (Vec::new(), Vec::new());
        for s in new {
            let is_there = kept.take(&s.name).is_some();
            let wanted = NewBinary { id: &s.name, bytes: s.disk, is_there };
            let Some(gone) = budget.make_room(self.account, wanted, &needed) else {
                without_room.push(*s);
                continue;
            };
            // One that fails does not keep the others from being finished.
            failed.extend(gone.iter().filter_map(|(account, id)| kept.give_up(account, id).err()));
            if is_there {
                failed.extend(kept.claim(self.account, &s.name).err());
            } else if let Some(file) = kept.begin(&s.name) {
                open.push((*s, file));
            } else {
                coming.insert(s.name.clone());
            }
        }
        say_not_kept(&without_room, "this container has no room for it");
        if open.is_empty() {
            return report::all_or_first(failed).map(|()| coming);
        }
        let fds = self.slot.iter().flat_map(|t| t.fds()).chain(deleted.fds());
        let files: Vec<BorrowedFd<'_>> =
            open.iter().map(|(_, file)| file.as_fd()).chain(fds).collect();
        let bounds = SandboxBounds { file: most.max_file.raw(), ..COPY };
        let done = crasher_task::run::<String>(
            facts,
            core_file,
            &bounds,
            Urgency::Later,
            self.charge,
            &files,
            |own, out| {
                let from = Sources { own, deleted };
                open.iter()
                    .filter(|(s, to)| copy(s, to, &from).is_ok())
                    .for_each(|(s, _)| say(out, &s.name));
            },
        );
        let done: BTreeSet<String> = done.unwrap_or_default().into_iter().collect();
        let settle =
            |s: &SeenFile, file: &OwnedFd| match done.contains(&s.name) && is_whole(s, file) {
                true => kept.finish(&s.name).and_then(|()| kept.claim(self.account, &s.name)),
                false => kept.abandon(&s.name),
            };
        failed.extend(open.iter().filter_map(|(s, file)| settle(s, file).err()));
        report::all_or_first(failed).map(|()| coming)
    }

    /// What there is now. Half of the disk's free space stays for others.
    fn budget(&self, kept: &KeptBinaries) -> Result<BinariesBudget> {
        let used = kept.all()?.iter().fold(0, |a: u64, (_, bytes)| a.saturating_add(*bytes));
        let mut accounts = Vec::new();
        for account in kept.accounts()? {
            let held = kept.of_account(&account)?;
            accounts.push((account, held));
        }
        Ok(BinariesBudget::new(self.most.max_total.raw(), used, self.free / 2, accounts))
    }
}

/// One line, however many there are.
fn say_not_kept(files: &[&SeenFile], why: &str) {
    if let [first, others @ ..] = files {
        let others = match others.len() {
            0 => String::new(),
            n => format!(", and {n} more"),
        };
        log::info!(
            "not kept with its core: {:?} of {} bytes ({why}){others}",
            first.path,
            first.size
        );
    }
}

/// Whether a copy is as large as was said. More would be more than its account was asked for.
fn is_whole(seen: &SeenFile, copy: &OwnedFd) -> bool {
    let most = seen.disk.saturating_add(SLACK);
    file::stat(copy).is_ok_and(|stat| stat.size == seen.size && stat.allocated <= most)
}

/// How much more a copy may take on the store's disk than the file did on its own: larger blocks.
const SLACK: u64 = 1 << 20;

/// As the crasher: which files its core names, as far as they are still the same and can be read.
fn list_files(core_file: &CoreFile, core: FileId, most: u64, from: &Sources<'_>, out: &mut Open) {
    let Ok(modules) = modules(core_file, core, from.own) else { return };
    for module in modules.iter().take(MOST) {
        let Ok(file) = from.open(&module.path, module.start) else { continue };
        let id = elf::build_id(&file);
        // A core without the module's first page has no build-id of it; the file is accepted then.
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
            let disk = file::stat(&file).map_or(size, |s| s.allocated.min(size));
            let (path, start) = (module.path.clone(), module.start);
            say(out, &SeenFile { name, path, start, size, disk });
        }
    }
}

/// The core names them.
fn modules(core_file: &CoreFile, core: FileId, own: &OwnedFd) -> Result<Vec<Module>> {
    let file = open_core(core_file, core, own)?;
    if !core_file.compress {
        return Ok(corefile::overview(&file)?.modules);
    }
    let mut start = Vec::new();
    // A frame that goes on is no error here.
    let _ = zstd::stream::read::Decoder::new(file)?.take(START).read_to_end(&mut start);
    Ok(corefile::overview(&start)?.modules)
}

/// Opens the core. It was made by this process's twin a moment ago; whether it still has its name
/// is looked at.
/// That is done before it is opened: the name may be a device's by now, which opening would change.
pub(super) fn open_core(core_file: &CoreFile, core: FileId, own: &OwnedFd) -> Result<Open> {
    let (dir, name) = split(&core_file.path);
    let dir = match core_file.rights {
        Rights::ContainerRoot => resolve::open_dir_of_root(dir)?,
        Rights::Crasher | Rights::HostRoot => resolve::open_dir_as_process(dir)?,
    };
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
    pub(super) fn open(&self, path: &str, start: u64) -> Result<Open> {
        match self.deleted.at(start) {
            Some(pinned) => Ok(resolve::open_pinned_file(self.own, pinned)?),
            None => self.open_path(path),
        }
    }

    /// Opens a file below the root that this process has.
    pub(super) fn open_path(&self, path: &str) -> Result<Open> {
        let root = file::open_dir("/".as_ref())?;
        Ok(resolve::open_file_in(self.own, root, path.as_ref(), Below::InRoot)?)
    }
}

/// What is kept is the copy, which nobody changes any more: whether that is what was seen is looked
/// at when it is there.
fn copy(seen: &SeenFile, to: &OwnedFd, from: &Sources<'_>) -> Result<()> {
    let to = Open::from(to.try_clone()?);
    file::copy_whole(
        &from.open(&seen.path, seen.start)?,
        &to,
        seen.size,
        seen.disk.saturating_add(SLACK),
    )?;
    let name = corefile::name(&to, elf::build_id(&to).as_deref(), seen.size);
    ensure!(name.as_ref() == Some(&seen.name), "another file has the path now");
    Ok(())
}
