//! Plans what the rules remove. Pure, but for the list of the binaries that nothing needs.

use super::inventory::{Inventory, Item};
use crate::config::Config;
use crate::store::fetched::{FetchedFile, removable};
use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
    /// Seconds after which a fetched file that nobody needed is removed.
    pub max_unused: Option<u64>,
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
            max_size: config.vacuum.max_size.finite(),
            since: ago(config.vacuum.max_age),
            keep: config.vacuum.keep,
            awaited_since: ago(config.upload.keep_until_uploaded).filter(|_| is_on),
            uploaded: is_on && config.upload.delete_after_upload,
            max_unused: config.debuginfod.max_unused,
        }
    }
}

impl Item {
    /// Whether it is to be uploaded, and its time for that is not over.
    fn is_awaited(&self, rules: Rules) -> bool {
        let time = self.record.time.parse::<Timestamp>().ok();
        self.orphan.is_none()
            && self.record.upload != Some(false)
            && self.record.uploaded.is_none()
            && rules.awaited_since.is_some_and(|since| time.is_some_and(|t| t >= since))
    }
}

/// What is to be removed.
#[derive(Debug)]
pub(crate) struct RemovalPlan<'a> {
    /// The crashes, the oldest first, with the bytes that removing each one frees.
    pub crashes: Vec<(&'a Item, u64)>,
    /// Binaries that no core needs, with their bytes.
    pub unneeded: Vec<(String, u64)>,
    /// What debuginfod servers gave: it can be fetched again, so it goes before any crash.
    pub fetched: Vec<&'a FetchedFile>,
    /// Binaries that no core will need once the crashes are removed.
    pub(super) left_over: Vec<String>,
}

impl Inventory {
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
        let most = rules.max_size.map_or(u64::MAX, |max| max.saturating_sub(planner.left));
        let fetched = self.fetched.as_ref().map_or(&[][..], |(all, _)| all);
        let gone: Vec<_> = removable(fetched, rules.max_unused, most).collect();
        let bytes = |all: &mut dyn Iterator<Item = &FetchedFile>| -> u64 {
            all.map(|file| file.bytes).sum()
        };
        planner.left += bytes(&mut fetched.iter()) - bytes(&mut gone.iter().copied());
        if let Some(max) = rules.max_size {
            let bytes = |item: &Item| item.core.unwrap_or(0);
            planner.thin(|planner| planner.left > max, bytes, may_go);
            planner.thin(|planner| planner.left > max, bytes, |_| true);
        }
        Ok(planner.finish(unneeded, gone))
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
    /// for which `weight` adds up to most. A crash that frees no bytes is skipped where `weight` is
    /// in bytes.
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

    fn finish(
        self,
        unneeded: Vec<(String, u64)>,
        fetched: Vec<&'a FetchedFile>,
    ) -> RemovalPlan<'a> {
        let crashes =
            self.gone.iter().map(|(at, bytes)| (&self.inventory.items[*at], *bytes)).collect();
        RemovalPlan { crashes, unneeded, fetched, left_over: self.left_over }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Location, Outcome, Record};
    use crate::store::Store;

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
        (dir, Inventory { items, store, records, binaries: None, sizes, fetched: None })
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
