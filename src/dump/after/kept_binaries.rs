//! After the process was let go, its executable and libraries go into the store, so that its core
//! can be read when the container is gone. The crashed process does not wait for this.
//!
//! Which they are, the child said that has read the core; what it could not open is not kept. A
//! second one, started only if something is missing in the store, copies into files that were
//! opened for it. The parent opens nothing of the container.

use super::reading::{MOST, Reading, SeenFile, Sources};
use crate::config;
use crate::corefile::{self, is_name};
use crate::dump::writer::as_crasher::{self, say};
use crate::elf;
use crate::report;
use crate::store::Store;
use crate::store::binaries::KeptBinaries;
use crate::store::binaries_budget::{BinariesBudget, NewBinary};
use crate::sys::file;
use crate::sys::sandbox::SandboxBounds;
use crate::sys::{AsFd, BorrowedFd, OwnedFd};
use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File as Open;
use std::time::{Duration, Instant};

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

/// The same for a crash that has its slot meanwhile: no longer than nobody notices.
const SHORT: Duration = Duration::from_secs(2);

/// How often one that waits looks whether the other one has the same files in hand.
const LOOK: Duration = Duration::from_millis(100);

/// Whose turn it is to add files for an account.
enum Turn {
    Ours(OwnedFd),
    /// Another crash is adding these very files: they will be there.
    InHand,
    /// Another crash has it, and goes on having it.
    Others,
}

/// Waits for the turn of an account, but not for files that are being copied: a storm of one
/// program would wait for its first crash.
fn alone(
    kept: &KeptBinaries,
    account: &str,
    new: &[&SeenFile],
    patience: Duration,
) -> Result<Turn> {
    let begun = Instant::now();
    loop {
        if let Some(lock) = kept.alone(account, LOOK)? {
            return Ok(Turn::Ours(lock));
        }
        if new.iter().all(|s| kept.is_begun(&s.name)) {
            return Ok(Turn::InHand);
        }
        if begun.elapsed() >= patience {
            return Ok(Turn::Others);
        }
    }
}

/// What is to be kept, and how much of it may be.
pub(super) struct Keeper<'a> {
    /// The core that it belongs to.
    pub of: Reading<'a>,
    /// For whom it counts.
    pub account: &'a str,
    /// The configuration.
    pub most: &'a config::Binaries,
    /// Bytes that are free on the store's disk.
    pub free: u64,
}

impl Keeper<'_> {
    /// Keeps what belongs to the core, which named these files. Returns which are there now: paths,
    /// and names in the store.
    pub(super) fn keep(
        &self,
        store: &Store,
        seen: Vec<SeenFile>,
    ) -> Result<BTreeMap<String, String>> {
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
            let patience = if self.of.summary { TURN } else { SHORT };
            coming = match alone(&kept, self.account, &new, patience)? {
                Turn::Ours(_alone) => self.add(&new, &kept)?,
                Turn::InHand => new.iter().map(|s| s.name.clone()).collect(),
                Turn::Others => {
                    log::info!("another crash of this container is still being kept, ignoring");
                    BTreeSet::new()
                }
            };
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
        let Reading { facts, core_file, deleted, locks, charge, .. } = self.of;
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
        let fds = locks.iter().copied().chain(deleted.fds());
        let files: Vec<BorrowedFd<'_>> =
            open.iter().map(|(_, file)| file.as_fd()).chain(fds).collect();
        let bounds = SandboxBounds { file: self.most.max_file.raw(), ..COPY };
        let done = as_crasher::run::<String>(
            facts,
            core_file,
            &bounds,
            self.of.urgency(),
            charge,
            &files,
            |own, out| {
                let from = Sources { own, deleted };
                open.iter()
                    .filter(|(s, to)| copy_binary(s, to, &from).is_ok())
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

/// What is kept is the copy, which nobody changes any more: whether that is what was seen is looked
/// at when it is there.
fn copy_binary(seen: &SeenFile, to: &OwnedFd, from: &Sources<'_>) -> Result<()> {
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
