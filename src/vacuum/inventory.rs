//! The inventory of the store: all crashes, with the bytes that each one has there.

use super::stored_core::StoredCore;
use crate::record::{Location, Names, Outcome, Record};
use crate::registry::{Registry, check_id};
use crate::store::binaries::{KeptBinaries, is_settled};
use crate::store::fetched::{Fetched, FetchedFile};
use crate::store::uploads::Uploads;
use crate::store::{Records, Store, tree};
use crate::sys::file;
use crate::sys::file::FileId;
use crate::sys::user::{self, RunBy};
use crate::users;
use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(super) name: OsString,
    /// Its record, without the fields that are not needed here, since there may be very many.
    pub record: Record,
    /// Bytes on disk that removing its core from the store would free. `None` if it has no core
    /// there, or if another file has its name.
    pub(super) core: Option<u64>,
    /// Path, in the container's directory of the store, of a core that has no record, of a
    /// container that is gone.
    pub(super) orphan: Option<PathBuf>,
}

/// Longest time that a dump may be in progress. A record that says so for longer is of
/// a helper that was killed.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

impl Item {
    /// Whether this is a core without a record.
    pub(crate) fn is_orphan(&self) -> bool {
        self.orphan.is_some()
    }

    /// The account that the crash counts for.
    pub(super) fn account(&self) -> &str {
        self.record.account.as_deref().unwrap_or(&self.record.names.container_id)
    }

    /// Whether its dump may be in progress.
    pub(super) fn may_be_going_on(&self) -> bool {
        let time = self.record.time.parse::<Timestamp>().ok();
        self.record.outcome == Outcome::Started
            && time.is_some_and(|time| Timestamp::now().duration_since(time) < LONGEST)
    }

    /// Whether its core is in the store.
    pub(crate) fn has_core(&self) -> bool {
        self.core.is_some()
    }

    /// The kept binaries that its core needs. None if its core is gone, from the
    /// store or with its container.
    pub(super) fn needs(&self) -> impl Iterator<Item = &String> {
        let gone = self.record.outcome == Outcome::None
            || self.record.location == Location::Store && self.core.is_none();
        self.record.binaries.values().filter(move |_| !gone)
    }
}

/// All crashes, the oldest first, and the kept binaries.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// The crashes, the oldest first.
    pub items: Vec<Item>,
    pub(super) store: PathBuf,
    pub(super) records: Records,
    pub(super) binaries: Option<KeptBinaries>,
    /// Bytes on disk of each kept binary.
    pub(super) sizes: BTreeMap<String, u64>,
    /// What debuginfod servers gave, and the directory of it.
    pub(super) fetched: Option<(Vec<FetchedFile>, Fetched)>,
}

impl Inventory {
    /// Takes the inventory of a store; `None` if there are no records. `uploads`: what has been
    /// uploaded of it.
    pub(crate) fn take(store: &Store, uploads: &Uploads) -> Result<Option<Self>> {
        let Some(records) = store.existing_records()? else { return Ok(None) };
        let mut items = Vec::new();
        for name in records.names()? {
            let Some(record) = records.read(&name) else { continue };
            let record = Record { uploaded: uploads.of(&record), ..record };
            let core = StoredCore::of(store.path(), &record).map(|core| (core.id, core.bytes));
            items.push((Item { name, record: slim(record), core: None, orphan: None }, core));
        }
        let known: BTreeSet<FileId> =
            items.iter().filter_map(|(_, c)| Some(c.as_ref()?.0)).collect();
        items.extend(orphans(store, &known)?);
        items.sort_by(|(a, _), (b, _)| a.record.time.cmp(&b.record.time));
        // A file counts once, for the newest record that names it: the
        // older cores were overwritten.
        let mut seen = BTreeSet::new();
        for (item, core) in items.iter_mut().rev() {
            item.core = core.filter(|(id, _)| seen.insert(*id)).map(|(_, bytes)| bytes);
        }
        let items = items.into_iter().map(|(item, _)| item).collect();
        let binaries = store.existing_binaries();
        let sizes = binaries
            .as_ref()
            .map(KeptBinaries::all)
            .transpose()?
            .unwrap_or_default()
            .into_iter()
            .collect();
        let fetched = match user::run_by() {
            RunBy::Root => store.existing_fetched(),
            RunBy::User(_) => users::own_fetched().as_deref().and_then(Fetched::look),
        };
        let fetched = match fetched {
            Some(dir) => Some((dir.all()?, dir)),
            None => None,
        };
        let store = store.path().to_owned();
        Ok(Some(Inventory { items, store, records, binaries, sizes, fetched }))
    }

    /// Bytes on disk of the cores in the store, and of the kept binaries.
    pub(crate) fn size(&self) -> (u64, u64) {
        (
            self.items.iter().filter_map(|i| i.core).fold(0, u64::saturating_add),
            self.sizes.values().copied().fold(0, u64::saturating_add),
        )
    }

    /// The crashes whose complete record `takes` accepts, the oldest first.
    pub(crate) fn select(&self, takes: impl Fn(&Record) -> bool) -> Vec<&Item> {
        let is = |item: &&Item| self.records.read(&item.name).is_some_and(|record| takes(&record));
        self.items.iter().filter(is).collect()
    }

    pub(crate) fn binaries(&self) -> usize {
        self.sizes.len()
    }
}

/// Device and inode number of a core, and the bytes on disk that removing it frees.
type FileBytes = (FileId, u64);

/// The cores in the store that have no record and whose container is gone: the record was
/// damaged, or removed by hand.
fn orphans(store: &Store, known: &BTreeSet<FileId>) -> Result<Vec<(Item, Option<FileBytes>)>> {
    let mut found = Vec::new();
    for container_id in gone(store)? {
        let Ok(dir) = file::open_dir(&store.container_path(&container_id)) else { continue };
        let paths = tree::files(&dir).unwrap_or_else(|e| {
            log::warn!("the directory of container {container_id} is left out: {e:#}");
            Vec::new()
        });
        for path in paths {
            let Some((parent, name)) = tree::parent(&dir, &path) else { continue };
            let Ok(stat) = file::stat_at(parent, name) else { continue };
            if !stat.regular || known.contains(&stat.id) || !is_settled(stat.modified) {
                continue;
            }
            let time = Timestamp::from_second(stat.modified).unwrap_or_default();
            let record = Record {
                time: time.to_string(),
                names: Names { container_id: container_id.clone(), ..Names::default() },
                outcome: Outcome::Written,
                location: Location::Store,
                ..Record::default()
            };
            let item = Item { name: OsString::new(), record, core: None, orphan: Some(path) };
            found.push((item, Some((stat.id, stat.allocated))));
        }
    }
    Ok(found)
}

/// The containers with a directory in the store that are not registered any more.
pub(super) fn gone(store: &Store) -> Result<Vec<String>> {
    let live: BTreeSet<String> =
        Registry::open().map(|r| r.ids()).transpose()?.unwrap_or_default().into_iter().collect();
    let mut ids = store.container_ids()?;
    ids.retain(|id| check_id(id).is_ok() && !live.contains(id));
    Ok(ids)
}

fn slim(record: Record) -> Record {
    Record {
        exe: String::new(),
        pattern: String::new(),
        core_path: None,
        core_path_hex: None,
        host_path: None,
        host_path_hex: None,
        host_dir: None,
        ..record
    }
}
