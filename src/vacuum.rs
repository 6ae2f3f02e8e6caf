//! What the store holds, and what of it goes: the oldest crashes, by rules, and the kept binaries that no core needs any more. A core in the store goes with its
//! record; one on a volume or in a layer is not ours and stays.

use crate::config::{Config, RUN_DIR};
use crate::record::{Location, Outcome, Record};
use crate::store::{Records, Store, binaries::Binaries};
use crate::sys::file;
use crate::sys::resolve::{self, Below};
use crate::sys::{OwnedFd, proc};
use anyhow::{Context, Result};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

/// How often the configured rules are applied, at most.
const EVERY: Duration = Duration::from_secs(600);

/// What may stay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Bytes on disk of all cores in the store, and of the binaries that are kept with them.
    pub max_size: Option<u64>,
    /// Crashes that are not older than this.
    pub since: Option<Timestamp>,
    /// The newest, whatever the other rules say about fewer.
    pub keep: Option<usize>,
}

impl Rules {
    /// The administrator's, at this time.
    pub fn configured(config: &Config, now: Timestamp) -> Self {
        let age = config
            .vacuum
            .max_age
            .map(|s| jiff::SignedDuration::from_secs(s.min(i64::MAX as u64) as i64));
        Rules {
            max_size: config.vacuum.max_size,
            since: age.and_then(|age| now.checked_sub(age).ok()),
            keep: config.vacuum.keep,
        }
    }
}

/// One crash.
#[derive(Clone, Debug)]
pub struct Item {
    name: OsString,
    /// Its record, without what is not needed here: there may be very many.
    pub record: Record,
    /// Bytes on disk that go with its core in the store; `None` if there is none, or if the file that has
    /// its name is another one.
    core: Option<u64>,
}

impl Item {
    /// Whether its core is in the store.
    pub fn has_core(&self) -> bool {
        self.core.is_some()
    }

    /// The kept binaries that its core needs. One whose core has gone from the store, or with its container, needs none.
    fn needs(&self) -> impl Iterator<Item = &String> {
        let gone = self.record.outcome == Outcome::None
            || self.record.location == Location::Store && self.core.is_none();
        self.record.binaries.values().filter(move |_| !gone)
    }
}

/// All crashes, the oldest first, and the binaries.
#[derive(Debug)]
pub struct Stock {
    /// The crashes.
    pub items: Vec<Item>,
    records: Records,
    binaries: Option<Binaries>,
    /// Bytes on disk of each binary.
    sizes: BTreeMap<String, u64>,
}

/// What goes.
#[derive(Debug, Default)]
pub struct Doomed<'a> {
    /// The crashes, the oldest first, with the bytes that go with each.
    pub crashes: Vec<(&'a Item, u64)>,
    /// Binaries that nobody needed before, with their bytes.
    pub unneeded: Vec<(String, u64)>,
    /// Binaries that nobody needs then.
    left_over: Vec<String>,
}

impl Stock {
    /// Looks at everything; `None` if there are no records.
    pub fn take(store: &Store) -> Result<Option<Self>> {
        let Some(records) = store.look_at_records()? else { return Ok(None) };
        let mut items = Vec::new();
        for name in records.names()? {
            let Some(record) = records.read(&name) else { continue };
            let core = Core::of(&record).map(|core| (core.id, core.bytes));
            items.push((Item { name, record: slim(record), core: None }, core));
        }
        items.sort_by(|(a, _), (b, _)| a.record.time.cmp(&b.record.time));
        // A file counts once, for the newest of the records that name it: the older ones were overwritten.
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
        Ok(Some(Stock { items, records, binaries, sizes }))
    }

    /// Bytes on disk: cores in the store, kept binaries.
    pub fn size(&self) -> (u64, u64) {
        (
            self.items.iter().filter_map(|i| i.core).fold(0, u64::saturating_add),
            self.sizes.values().copied().fold(0, u64::saturating_add),
        )
    }

    /// The crashes whose whole records are meant, the oldest first.
    pub fn select(&self, takes: impl Fn(&Record) -> bool) -> Vec<&Item> {
        let is = |item: &&Item| self.records.read(&item.name).is_some_and(|record| takes(&record));
        self.items.iter().filter(is).collect()
    }

    /// How many binaries are kept.
    pub fn binaries(&self) -> usize {
        self.sizes.len()
    }

    /// Which go, the oldest first. A dump that may be going on stays.
    pub fn doomed(&self, rules: Rules) -> Result<Doomed<'_>> {
        let mut users: BTreeMap<&String, usize> = BTreeMap::new();
        for id in self.items.iter().flat_map(Item::needs) {
            *users.entry(id).or_default() += 1;
        }
        let needed: BTreeSet<String> = users.keys().map(|id| (*id).clone()).collect();
        let mut doomed = Doomed {
            unneeded: self.binaries.as_ref().map_or(Ok(Vec::new()), |b| b.unneeded(&needed))?,
            ..Doomed::default()
        };
        let (cores, binaries) = self.size();
        let mut left = cores
            .saturating_add(binaries)
            .saturating_sub(doomed.unneeded.iter().map(|(_, bytes)| bytes).sum());
        let mut number = self.items.len();
        for item in &self.items {
            let time = item.record.time.parse::<Timestamp>().ok();
            let too_old = rules.since.is_some_and(|since| time.is_none_or(|t| t < since));
            let too_many = rules.keep.is_some_and(|keep| number > keep);
            let last: Vec<&String> = item
                .needs()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .filter(|id| users[*id] == item.needs().filter(|n| n == id).count())
                .collect();
            let bytes = last
                .iter()
                .filter_map(|id| self.sizes.get(*id))
                .fold(item.core.unwrap_or(0), |a, b| a.saturating_add(*b));
            let too_much = rules.max_size.is_some_and(|max| left > max) && bytes > 0;
            if !(too_old || too_many || too_much) || item.record.outcome == Outcome::Started {
                continue;
            }
            left = left.saturating_sub(bytes);
            number -= 1;
            item.needs().for_each(|id| *users.entry(id).or_default() -= 1);
            doomed.left_over.extend(last.into_iter().cloned());
            doomed.crashes.push((item, bytes));
        }
        Ok(doomed)
    }

    /// Removes one crash. The core first: a record without its core says so, a core without its record is
    /// lost. What has gone already is no error, and what is another file by now stays.
    ///
    /// # Errors
    /// It stays.
    pub fn remove(&self, item: &Item) -> Result<()> {
        if item.core.is_some()
            && let Some(record) = self.records.read(&item.name)
            && let Some(core) = Core::of(&record)
        {
            file::unlink(&core.dir, &core.name)?;
        }
        self.records.remove(&item.name)
    }

    /// Removes what is not needed any more, after the crashes: binaries, and what was left behind by
    /// helpers that were killed. What cannot be removed is said, and the next one is tried.
    pub fn tidy(&self, doomed: &Doomed<'_>) {
        let attempt = |what: &str, result: Result<()>| {
            if let Err(e) = result {
                log::warn!("vacuum: {what} cannot be removed, ignoring: {e:#}");
            }
        };
        attempt("what killed helpers left of records", self.records.sweep());
        let Some(binaries) = &self.binaries else { return };
        attempt("what killed helpers left of binaries", binaries.sweep());
        for id in doomed.unneeded.iter().map(|(id, _)| id).chain(&doomed.left_over) {
            attempt(id, binaries.remove(id));
        }
    }
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

/// The core of a record in the store.
struct Core {
    dir: OwnedFd,
    name: OsString,
    /// Device and inode number.
    id: (u64, u64),
    /// Bytes that the disk gets back with it.
    bytes: u64,
}

impl Core {
    /// The file, if it still is the one of the record. The directory may be the container's: links in it
    /// do not lead out, and what has the name is never followed.
    fn of(r: &Record) -> Option<Self> {
        let path = r.host_bytes().filter(|_| r.location == Location::Store)?;
        let dir = r.host_dir.as_ref()?;
        let path = Path::new(proc::os(path.strip_prefix(dir.as_bytes())?));
        let (parent, name) = (path.parent()?, path.file_name()?);
        let is_top = parent == Path::new("/") || parent == Path::new("");
        let parent = if is_top { OsStr::new(".") } else { parent.as_os_str() };
        let top = file::open_dir(Path::new(dir)).ok()?;
        let dir = resolve::resolve(&top, parent, Below::InRoot, true).ok()?;
        let found = file::identity_at(&dir, name).ok()?;
        let stat = file::stat_at(&dir, name).ok()?;
        let same = r.identity.is_none_or(|identity| identity.is_same_file(&found));
        let bytes = if stat.links == 1 { stat.allocated } else { 0 };
        same.then(|| Core { dir, name: name.to_owned(), id: found.id, bytes })
    }
}

/// Whether the core of a record is in the store.
pub fn has_core_in_store(record: &Record) -> bool {
    Core::of(record).is_some()
}

/// Applies the configured rules, now and then. Nobody waits for this.
///
/// # Errors
/// What could not be looked at or removed.
pub fn now_and_then(config: &Config) -> Result<()> {
    if !is_due("vacuumed", EVERY) {
        return Ok(());
    }
    let apply = || -> Result<()> {
        let Some(stock) =
            Store::look(&config.store)?.map(|s| Stock::take(&s)).transpose()?.flatten()
        else {
            return Ok(());
        };
        let doomed = stock.doomed(Rules::configured(config, Timestamp::now()))?;
        for (item, bytes) in &doomed.crashes {
            let of = &item.record;
            if let Err(e) = stock.remove(item) {
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
        stock.tidy(&doomed);
        Ok(())
    };
    apply().context("vacuum")
}

/// Whether something that is done at most once in a while is due, and if so, notes that it is done now.
pub fn is_due(what: &str, every: Duration) -> bool {
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
            record: Record {
                time: time.into(),
                outcome,
                binaries,
                location: Location::Store,
                ..Record::default()
            },
        }
    }

    fn stock(items: Vec<Item>, sizes: &[(&str, u64)]) -> (tempfile::TempDir, Stock) {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(&Config { store: dir.path().join("store"), ..Config::default() }).unwrap();
        let sizes = sizes.iter().map(|(id, n)| ((*id).to_owned(), *n)).collect();
        (dir, Stock { items, records: store.records().unwrap(), binaries: None, sizes })
    }

    #[test]
    fn the_oldest_go() {
        let (_dir, stock) = stock(
            vec![
                item("a", "2026-01-01T00:00:00Z", Some(10), Outcome::Written, &[]),
                item("b", "2026-01-02T00:00:00Z", None, Outcome::None, &[]),
                item("c", "2026-01-03T00:00:00Z", Some(10), Outcome::Started, &[]),
                item("d", "2026-01-04T00:00:00Z", Some(10), Outcome::Written, &[]),
                item("e", "2026-01-05T00:00:00Z", Some(10), Outcome::Written, &[]),
            ],
            &[],
        );
        let gone = |rules| {
            stock
                .doomed(rules)
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

    /// A binary counts once, and goes with the last core that needs it.
    #[test]
    fn binaries_count_and_go_with_the_last() {
        let (_dir, stock) = stock(
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
        assert_eq!(stock.size(), (20, 137));
        let gone = |max_size| {
            let doomed =
                stock.doomed(Rules { max_size: Some(max_size), ..Rules::default() }).unwrap();
            (
                doomed
                    .crashes
                    .iter()
                    .map(|(i, bytes)| (i.name.to_str().unwrap(), *bytes))
                    .collect::<Vec<_>>(),
                doomed.left_over.join(" "),
            )
        };
        assert_eq!(gone(157), (vec![], String::new()));
        assert_eq!(gone(156), (vec![("a", 40)], "app".into()));
        assert_eq!(gone(116), (vec![("a", 40), ("b", 117)], "app libc tool".into()));
    }
}
