//! Inventory of the store, and removal of the oldest crashes by rules, together with the kept
//! binaries that no core needs any more. A core in the store is removed with its record; one on a
//! volume or in a container's layer is not ours and stays.

use crate::config::{Config, RUN_DIR};
use crate::record::{Location, Names, Outcome, Record};
use crate::registry::{Registry, check_id};
use crate::store::binaries::{Binaries, is_settled};
use crate::store::uploads::Uploads;
use crate::store::{Records, Store};
use crate::sys::file;
use crate::sys::resolve::{self, Below};
use crate::sys::{OwnedFd, proc};
use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Shortest time between two applications of the configured rules.
const EVERY: Duration = Duration::from_secs(600);

/// Rules for what may stay.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// Most bytes on disk of all cores in the store and the binaries kept with them.
    pub max_size: Option<u64>,
    /// Crashes before this time are removed.
    pub since: Option<Timestamp>,
    /// Most crashes: the newest stay, unless another rule removes them.
    pub keep: Option<usize>,
    /// Crashes since this time that are to be uploaded and are not yet stay, but for `max_size`,
    /// which removes them last.
    pub awaited_since: Option<Timestamp>,
    /// Crashes that have been uploaded are removed.
    pub uploaded: bool,
}

impl Rules {
    /// The configured rules, at the time `now`.
    pub(crate) fn configured(config: &Config, now: Timestamp) -> Self {
        let ago = |seconds: Option<u64>| {
            let span = SignedDuration::from_secs(seconds?.min(i64::MAX as u64) as i64);
            now.checked_sub(span).ok()
        };
        let is_on = config.upload.url.is_some();
        Rules {
            max_size: config.vacuum.max_size,
            since: ago(config.vacuum.max_age),
            keep: config.vacuum.keep,
            awaited_since: ago(config.upload.keep_until_uploaded).filter(|_| is_on),
            uploaded: is_on && config.upload.delete_after_upload,
        }
    }
}

/// One crash.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    name: OsString,
    /// Its record, without the fields that are not needed here, since there may be very many.
    pub record: Record,
    /// Bytes on disk that removing its core from the store would free. `None` if it has no core
    /// there, or if another file has its name.
    core: Option<u64>,
    /// File name of a core that has no record, of a container that is gone.
    orphan: Option<OsString>,
}

/// Longest time that a dump may be in progress. A record that says so for longer is of
/// a helper that was killed.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

impl Item {
    /// Whether this is a core without a record.
    pub(crate) fn is_orphan(&self) -> bool {
        self.orphan.is_some()
    }

    /// Whether it is to be uploaded, and its time for that is not over.
    fn is_awaited(&self, rules: Rules) -> bool {
        let time = self.record.time.parse::<Timestamp>().ok();
        self.orphan.is_none()
            && self.record.upload != Some(false)
            && self.record.uploaded.is_none()
            && rules.awaited_since.is_some_and(|since| time.is_some_and(|t| t >= since))
    }

    /// The account that the crash counts for.
    fn account(&self) -> &str {
        self.record.account.as_deref().unwrap_or(&self.record.names.container_id)
    }

    fn may_be_going_on(&self) -> bool {
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
    fn needs(&self) -> impl Iterator<Item = &String> {
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
    store: PathBuf,
    records: Records,
    binaries: Option<Binaries>,
    /// Bytes on disk of each kept binary.
    sizes: BTreeMap<String, u64>,
}

/// What is to be removed.
#[derive(Debug)]
pub(crate) struct RemovalPlan<'a> {
    /// The crashes, the oldest first, with the bytes that removing each one frees.
    pub crashes: Vec<(&'a Item, u64)>,
    /// Binaries that no core needs, with their bytes.
    pub unneeded: Vec<(String, u64)>,
    /// Binaries that no core will need once the crashes are removed.
    left_over: Vec<String>,
}

impl Inventory {
    /// Takes the inventory of a store; `None` if there are no records. `uploads`: what has been
    /// uploaded of it.
    pub(crate) fn take(store: &Store, uploads: &Uploads) -> Result<Option<Self>> {
        let Some(records) = store.look_at_records()? else { return Ok(None) };
        let mut items = Vec::new();
        for name in records.names()? {
            let Some(record) = records.read(&name) else { continue };
            let record = Record { uploaded: uploads.of(&record), ..record };
            let core = Core::of(store.path(), &record).map(|core| (core.id, core.bytes));
            items.push((Item { name, record: slim(record), core: None, orphan: None }, core));
        }
        let known: BTreeSet<(u64, u64)> =
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
        let binaries = store.look_at_binaries();
        let sizes = binaries
            .as_ref()
            .map(Binaries::all)
            .transpose()?
            .unwrap_or_default()
            .into_iter()
            .collect();
        Ok(Some(Inventory { items, store: store.path().to_owned(), records, binaries, sizes }))
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

    /// Number of kept binaries.
    pub(crate) fn binaries(&self) -> usize {
        self.sizes.len()
    }

    /// Plans what the rules remove, the oldest crash first. A dump that may be in progress stays.
    /// If there are too many crashes or bytes, the oldest crash of the account that has most is
    /// removed, so that an account with few keeps them.
    pub(crate) fn plan_removal(&self, rules: Rules) -> Result<RemovalPlan<'_>> {
        let mut planner = RemovalPlanner::new(self);
        let unneeded = self.binaries.as_ref().map_or(Ok(Vec::new()), |b| {
            b.unneeded(&planner.users.keys().map(|id| (*id).clone()).collect())
        })?;
        planner.left = planner.left.saturating_sub(unneeded.iter().map(|(_, bytes)| bytes).sum());
        for (at, item) in self.items.iter().enumerate() {
            let time = item.record.time.parse::<Timestamp>().ok();
            let is_old = rules.since.is_some_and(|since| time.is_none_or(|t| t < since));
            let is_safe = rules.uploaded && item.record.uploaded.is_some();
            if is_safe || is_old && !item.is_awaited(rules) {
                planner.take(at);
            }
        }
        let may_go = |item: &Item| !item.is_awaited(rules);
        if let Some(keep) = rules.keep {
            planner.thin(|planner| planner.number > keep, |_| 1, may_go);
        }
        if let Some(max) = rules.max_size {
            let bytes = |item: &Item| item.core.unwrap_or(0);
            planner.thin(|planner| planner.left > max, bytes, may_go);
            planner.thin(|planner| planner.left > max, bytes, |_| true);
        }
        Ok(planner.finish(unneeded))
    }

    /// Removes one crash. The core is removed first: a record without its core says so, but a
    /// core without its record is lost. What is gone already is no error, and a file that is not
    /// that core any more stays.
    ///
    /// # Errors
    /// The crash could not be removed and stays.
    pub(crate) fn remove(&self, item: &Item) -> Result<()> {
        if let Some(name) = &item.orphan {
            let dir = self.store.join("containers").join(&item.record.names.container_id);
            return file::unlink(file::open_dir(&dir)?, name);
        }
        if item.core.is_some()
            && let Some(record) = self.records.read(&item.name)
            && let Some(core) = Core::of(&self.store, &record)
        {
            file::unlink(&core.dir, &core.name)?;
        }
        self.records.remove(&item.name)
    }

    fn forget_empty(&self) -> Result<()> {
        let Some(store) = Store::look(&self.store)? else { return Ok(()) };
        for id in gone(&store)? {
            store.forget_empty(&id)?;
        }
        Ok(())
    }

    /// Removes, after the crashes, what is not needed any more: binaries, and the leftovers of
    /// helpers that were killed. A failure is logged, and the rest is tried.
    pub(crate) fn tidy(&self, plan: &RemovalPlan<'_>) {
        let attempt = |what: &str, result: Result<()>| {
            if let Err(e) = result {
                log::warn!("vacuum: {what} cannot be removed, ignoring: {e:#}");
            }
        };
        attempt("what killed helpers left of records", self.records.sweep());
        attempt("an empty directory of a container that has gone", self.forget_empty());
        let Some(binaries) = &self.binaries else { return };
        attempt("what killed helpers left of binaries", binaries.sweep());
        for id in plan.unneeded.iter().map(|(id, _)| id).chain(&plan.left_over) {
            attempt(id, binaries.remove(id));
        }
    }
}

/// Selects the crashes to remove, one after the other.
struct RemovalPlanner<'a> {
    inventory: &'a Inventory,
    /// How many of the remaining crashes need each binary.
    users: BTreeMap<&'a String, usize>,
    gone: BTreeMap<usize, u64>,
    /// Number of the remaining crashes, and their bytes (`left`).
    number: usize,
    left: u64,
    left_over: Vec<String>,
}

impl<'a> RemovalPlanner<'a> {
    fn new(inventory: &'a Inventory) -> Self {
        let mut users: BTreeMap<&String, usize> = BTreeMap::new();
        for id in inventory.items.iter().flat_map(Item::needs) {
            *users.entry(id).or_default() += 1;
        }
        let (cores, binaries) = inventory.size();
        let (number, left) = (inventory.items.len(), cores.saturating_add(binaries));
        RemovalPlanner {
            inventory,
            users,
            gone: BTreeMap::new(),
            number,
            left,
            left_over: Vec::new(),
        }
    }

    /// The binaries that among the remaining crashes only this one needs.
    fn last(&self, item: &'a Item) -> Vec<&'a String> {
        let needs = item.needs().collect::<BTreeSet<_>>().into_iter();
        let own = |id: &&String| item.needs().filter(|n| n == id).count();
        needs.filter(|id| self.users[*id] == own(id)).collect()
    }

    /// The bytes that removing this crash frees.
    fn bytes(&self, at: usize) -> u64 {
        let item = &self.inventory.items[at];
        let sizes = self.last(item).into_iter().filter_map(|id| self.inventory.sizes.get(id));
        sizes.fold(item.core.unwrap_or(0), |a, b| a.saturating_add(*b))
    }

    /// Selects a crash for removal. Returns whether it was selected now.
    fn take(&mut self, at: usize) -> bool {
        let item = &self.inventory.items[at];
        if item.may_be_going_on() || self.gone.contains_key(&at) {
            return false;
        }
        let bytes = self.bytes(at);
        self.left_over.extend(self.last(item).into_iter().cloned());
        item.needs().for_each(|id| *self.users.entry(id).or_default() -= 1);
        self.left = self.left.saturating_sub(bytes);
        self.number -= 1;
        self.gone.insert(at, bytes);
        true
    }

    /// While there is too much, selects, among the crashes that `may_go`, the oldest of the account
    /// for which `weight` adds up to most. A crash that frees no bytes is skipped where `weight` is in bytes.
    fn thin(
        &mut self,
        is_too_much: impl Fn(&Self) -> bool,
        weight: impl Fn(&Item) -> u64,
        may_go: impl Fn(&Item) -> bool,
    ) {
        let mut accounts: BTreeMap<&str, (u64, VecDeque<usize>)> = BTreeMap::new();
        for (at, item) in self.inventory.items.iter().enumerate() {
            if !self.gone.contains_key(&at) && !item.may_be_going_on() && may_go(item) {
                let (sum, crashes) = accounts.entry(item.account()).or_default();
                *sum += weight(item);
                crashes.push_back(at);
            }
        }
        // Of equal accounts the one with the oldest crash sorts last, and is taken first.
        let mut by_weight: BTreeSet<(u64, Reverse<usize>, &str)> = accounts
            .iter()
            .filter_map(|(name, (sum, crashes))| Some((*sum, Reverse(*crashes.front()?), *name)))
            .collect();
        while is_too_much(self)
            && let Some((_, _, name)) = by_weight.pop_last()
        {
            let Some((sum, crashes)) = accounts.get_mut(name) else { continue };
            let Some(at) = crashes.pop_front() else { continue };
            let item = &self.inventory.items[at];
            let weight = weight(item);
            *sum -= weight;
            if weight > 0 || self.bytes(at) > 0 {
                self.take(at);
            }
            by_weight.extend(crashes.front().map(|next| (*sum, Reverse(*next), name)));
        }
    }

    fn finish(self, unneeded: Vec<(String, u64)>) -> RemovalPlan<'a> {
        let crashes =
            self.gone.iter().map(|(at, bytes)| (&self.inventory.items[*at], *bytes)).collect();
        RemovalPlan { crashes, unneeded, left_over: self.left_over }
    }
}

/// Device and inode number of a core, and the bytes on disk that removing it frees.
type Bytes = ((u64, u64), u64);

/// The cores in the store that have no record and whose container is gone: the record was
/// damaged, or removed by hand.
fn orphans(store: &Store, known: &BTreeSet<(u64, u64)>) -> Result<Vec<(Item, Option<Bytes>)>> {
    let mut found = Vec::new();
    for container_id in gone(store)? {
        let Ok(dir) = file::open_dir(&store.container_path(&container_id)) else { continue };
        for name in file::names(file::reopen_dir(&dir)?)? {
            let Ok(stat) = file::stat_at(&dir, &name) else { continue };
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
            let item = Item { name: OsString::new(), record, core: None, orphan: Some(name) };
            found.push((item, Some((stat.id, stat.allocated))));
        }
    }
    Ok(found)
}

/// The containers with a directory in the store that are not registered any more.
fn gone(store: &Store) -> Result<Vec<String>> {
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

/// The core in the store of one record.
struct Core {
    dir: OwnedFd,
    name: OsString,
    /// Device and inode number.
    id: (u64, u64),
    /// Bytes on disk that removing it frees.
    bytes: u64,
}

impl Core {
    /// The record's core, if the file still is the one that the record describes. The directory
    /// may be the container's: links in it do not lead out of it, and the file itself is never
    /// followed if it is a link.
    ///
    /// The record cannot choose the directory: only the one that this store has for the
    /// record's container is searched.
    fn of(store: &Path, r: &Record) -> Option<Self> {
        let path = r.host_bytes().filter(|_| r.location == Location::Store)?;
        check_id(&r.names.container_id).ok()?;
        let dir = store.join("containers").join(&r.names.container_id);
        let path = Path::new(proc::os(path.strip_prefix(r.host_dir.as_ref()?.as_bytes())?));
        let (parent, name) = (path.parent()?, path.file_name()?);
        let is_top = parent == Path::new("/") || parent == Path::new("");
        let parent = if is_top { OsStr::new(".") } else { parent.as_os_str() };
        let top = file::open_dir(&dir).ok()?;
        let dir = resolve::resolve(&top, parent, Below::InRoot, true).ok()?;
        let found = file::identity_at(&dir, name).ok()?;
        let stat = file::stat_at(&dir, name).ok()?;
        let same = r.identity.is_none_or(|identity| identity.is_same_file(&found));
        let bytes = if stat.links == 1 { stat.allocated } else { 0 };
        same.then(|| Core { dir, name: name.to_owned(), id: found.id, bytes })
    }
}

/// Whether the core of a record is in the store. For records that this project wrote.
pub(crate) fn has_core_in_store(store: &Path, record: &Record) -> bool {
    Core::of(store, record).is_some()
}

/// Applies the configured rules, at most every ten minutes. No crash and no container waits for it.
///
/// # Errors
/// What could not be read or removed.
pub(crate) fn now_and_then(config: &Config) -> Result<()> {
    if !is_due("vacuumed", EVERY) {
        return Ok(());
    }
    let apply = || -> Result<()> {
        let uploads = Uploads::look(&config.upload.state);
        let Some(inventory) = Store::look(&config.store)?
            .map(|s| Inventory::take(&s, &uploads))
            .transpose()?
            .flatten()
        else {
            return Ok(());
        };
        let plan = inventory.plan_removal(Rules::configured(config, Timestamp::now()))?;
        for (item, bytes) in &plan.crashes {
            let of = &item.record;
            if let Err(e) = inventory.remove(item) {
                let id = &of.names.container_id;
                log::warn!("vacuum: the crash of {} in container {id} stays: {e:#}", of.time);
                continue;
            }
            log::info!(
                "vacuum: removed the crash of {} in container {} ({bytes} bytes)",
                item.record.time,
                item.record.names.container_id
            );
        }
        inventory.tidy(&plan);
        Ok(())
    };
    apply().context("vacuum")
}

/// Whether a recurring task is due, which runs at most once in `every`. If so,
/// records that it runs now.
pub(crate) fn is_due(what: &str, every: Duration) -> bool {
    file::open_dir(RUN_DIR.as_ref()).is_ok_and(|dir| file::is_due(&dir, what.as_ref(), every))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, time: &str, core: Option<u64>, outcome: Outcome, needs: &[&str]) -> Item {
        let binaries =
            needs.iter().enumerate().map(|(i, id)| (format!("/{i}"), (*id).to_owned())).collect();
        Item {
            name: name.into(),
            core,
            orphan: None,
            record: Record {
                time: time.into(),
                outcome,
                binaries,
                location: Location::Store,
                ..Record::default()
            },
        }
    }

    fn inventory(items: Vec<Item>, sizes: &[(&str, u64)]) -> (tempfile::TempDir, Inventory) {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(&Config { store: dir.path().join("store"), ..Config::default() }).unwrap();
        let sizes = sizes.iter().map(|(id, n)| ((*id).to_owned(), *n)).collect();
        let records = store.records().unwrap();
        let store = store.path().to_owned();
        (dir, Inventory { items, store, records, binaries: None, sizes })
    }

    #[test]
    fn the_oldest_go() {
        let now = Timestamp::now().to_string();
        let (_dir, inventory) = inventory(
            vec![
                item("a", "2026-01-01T00:00:00Z", Some(10), Outcome::Written, &[]),
                item("b", "2026-01-02T00:00:00Z", None, Outcome::None, &[]),
                item("c", &now, Some(10), Outcome::Started, &[]),
                item("d", "2026-01-04T00:00:00Z", Some(10), Outcome::Written, &[]),
                item("e", "2026-01-05T00:00:00Z", Some(10), Outcome::Written, &[]),
            ],
            &[],
        );
        let gone = |rules| {
            inventory
                .plan_removal(rules)
                .unwrap()
                .crashes
                .iter()
                .map(|(i, _)| i.name.to_str().unwrap())
                .collect::<String>()
        };
        assert_eq!(gone(Rules::default()), "");
        assert_eq!(gone(Rules { keep: Some(5), ..Rules::default() }), "");
        assert_eq!(gone(Rules { keep: Some(3), ..Rules::default() }), "ab");
        assert_eq!(gone(Rules { keep: Some(0), ..Rules::default() }), "abde");
        assert_eq!(gone(Rules { max_size: Some(40), ..Rules::default() }), "");
        assert_eq!(gone(Rules { max_size: Some(25), ..Rules::default() }), "ad");
        assert_eq!(
            gone(Rules { since: "2026-01-02T12:00:00Z".parse().ok(), ..Rules::default() }),
            "ab"
        );
        assert_eq!(
            gone(Rules { since: "2027-01-01T00:00:00Z".parse().ok(), ..Rules::default() }),
            "abde"
        );
    }

    /// What is not uploaded yet waits for that, but not for ever, and not on a full disk.
    #[test]
    fn what_is_to_be_uploaded_stays() {
        let of = |name: &str, day: u32, is_there: bool| {
            let time = format!("2026-01-0{day}T00:00:00Z");
            let mut item = item(name, &time, Some(10), Outcome::Written, &[]);
            item.record.uploaded = is_there.then(Default::default);
            item
        };
        let mut private = of("p", 3, false);
        private.record.upload = Some(false);
        let items = vec![
            of("old", 1, false),
            of("a", 2, true),
            private,
            of("b", 4, false),
            of("c", 5, true),
        ];
        let (_dir, inventory) = inventory(items, &[]);
        let day = |day: u32| format!("2026-01-0{day}T00:00:00Z").parse().ok();
        let gone = |rules| -> String {
            let plan = inventory.plan_removal(rules).unwrap();
            plan.crashes.iter().map(|(i, _)| i.name.to_str().unwrap()).collect()
        };
        let rules = Rules { awaited_since: day(2), ..Rules::default() };
        assert_eq!(gone(Rules { since: day(9), ..rules }), "oldapc");
        assert_eq!(gone(Rules { keep: Some(0), ..rules }), "oldapc");
        assert_eq!(gone(Rules { max_size: Some(10), ..rules }), "oldapc");
        assert_eq!(gone(Rules { max_size: Some(5), ..rules }), "oldapbc");
        assert_eq!(gone(Rules { uploaded: true, ..rules }), "ac");
    }

    /// Crashing very often costs an account its own crashes only.
    #[test]
    fn nobodys_many_are_at_the_expense_of_anothers_few() {
        let mut items = vec![];
        for day in 1..=9 {
            let time = format!("2026-01-0{day}T00:00:00Z");
            let of = |account: &str, core| {
                let mut item = item(&format!("{account}{day}"), &time, core, Outcome::Written, &[]);
                item.record.account = Some(account.into());
                item
            };
            items.extend((day <= 2).then(|| of("few", Some(10))));
            items.push(of("many", Some(10)));
            items.push(of("volume", None));
        }
        let (_dir, inventory) = inventory(items, &[]);
        let gone = |rules| -> Vec<String> {
            let plan = inventory.plan_removal(rules).unwrap();
            plan.crashes.iter().map(|(i, _)| i.name.to_str().unwrap().into()).collect()
        };
        assert_eq!(
            gone(Rules { keep: Some(16), ..Rules::default() }),
            ["many1", "volume1", "many2", "volume2"]
        );
        assert_eq!(
            gone(Rules { max_size: Some(80), ..Rules::default() }),
            ["many1", "many2", "many3"]
        );
        assert_eq!(gone(Rules { max_size: Some(20), ..Rules::default() }).len(), 9);
    }

    /// A binary counts once, and is removed with the last core that needs it.
    #[test]
    fn binaries_count_and_go_with_the_last() {
        let (_dir, inventory) = inventory(
            vec![
                item("a", "2026-01-01T00:00:00Z", Some(10), Outcome::Written, &["libc", "app"]),
                item(
                    "b",
                    "2026-01-02T00:00:00Z",
                    Some(10),
                    Outcome::Written,
                    &["libc", "tool", "tool"],
                ),
                // Its core was deleted by hand.
                item("c", "2026-01-03T00:00:00Z", None, Outcome::Written, &["libc"]),
            ],
            &[("libc", 100), ("app", 30), ("tool", 7)],
        );
        assert_eq!(inventory.size(), (20, 137));
        let gone = |max_size| {
            let plan = inventory
                .plan_removal(Rules { max_size: Some(max_size), ..Rules::default() })
                .unwrap();
            (
                plan.crashes
                    .iter()
                    .map(|(i, bytes)| (i.name.to_str().unwrap(), *bytes))
                    .collect::<Vec<_>>(),
                plan.left_over.join(" "),
            )
        };
        assert_eq!(gone(157), (vec![], String::new()));
        assert_eq!(gone(156), (vec![("a", 40)], "app".into()));
        assert_eq!(gone(116), (vec![("a", 40), ("b", 117)], "app libc tool".into()));
    }
}
