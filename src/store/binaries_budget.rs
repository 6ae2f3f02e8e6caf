//! Shares the space for kept binaries among accounts: who may keep how much, and what is removed
//! for it. Pure decisions over values.

use super::binaries::Held;
use std::collections::{BTreeMap, BTreeSet};

/// Most files of one account, since an empty file takes an inode too.
const MOST_FILES: usize = 1024;

/// A removal: the account, and the name of its file.
pub(crate) type RemovedBinary = (String, String);

/// The kept binaries and the space for them, in bytes on disk.
#[derive(Clone, Debug)]
pub(crate) struct BinariesBudget {
    /// Most bytes of all files together: `[binaries] max_total`.
    total: u64,
    /// Bytes of all files now, including those of no account.
    used: u64,
    /// Bytes that may still be taken from the disk.
    free: u64,
    /// The files of each account, the oldest first. A file of several
    /// accounts counts for each of them.
    accounts: BTreeMap<String, Vec<Held>>,
}

/// A file that is to be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewBinary<'a> {
    pub id: &'a str,
    pub bytes: u64,
    /// Whether the file is kept already, for another account.
    pub is_there: bool,
}

impl BinariesBudget {
    /// The state as it is found on disk.
    pub(crate) fn new(
        total: u64,
        used: u64,
        free: u64,
        accounts: impl IntoIterator<Item = (String, Vec<Held>)>,
    ) -> Self {
        BinariesBudget { total, used, free, accounts: accounts.into_iter().collect() }
    }

    /// Most bytes of one account: a quarter of all, so that an account which fills its share leaves
    /// most to the others, and an ordinary one has room for its libraries.
    fn share(&self) -> u64 {
        self.total / 4
    }

    /// Whether an account may keep one more file, and what is removed for it. If its share is used
    /// up, its own oldest files are removed. If the whole space is used up, the oldest files of the
    /// account that has most are removed, so that a new container's programs are kept even when
    /// others have filled the space. Updates the state accordingly. Files in `needed` are never
    /// removed. `None` means that the file is not kept, and then nothing is removed.
    pub(crate) fn make_room(
        &mut self,
        account: &str,
        new: NewBinary<'_>,
        needed: &BTreeSet<&str>,
    ) -> Option<Vec<RemovedBinary>> {
        let own = self.accounts.get(account);
        if own.is_some_and(|held| held.iter().any(|held| held.id == new.id)) {
            return Some(Vec::new());
        }
        let more = if new.is_there { 0 } else { new.bytes };
        if new.bytes > self.share() || more > self.free {
            return None;
        }
        let mut after = self.clone();
        let mut gone = Vec::new();
        loop {
            let own = after.bytes_of(account).saturating_add(new.bytes);
            let files = after.accounts.get(account).map_or(0, Vec::len);
            let whose = if own > after.share() || files >= MOST_FILES {
                account.to_owned()
            } else if after.used.saturating_add(more) > after.total {
                after.largest(own).unwrap_or_else(|| account.to_owned())
            } else {
                break;
            };
            let id = after.take_oldest(&whose, needed)?;
            gone.push((whose, id));
        }
        after.used = after.used.saturating_add(more);
        after.free -= more;
        let held = Held { id: new.id.to_owned(), bytes: new.bytes, needed: i64::MAX };
        after.accounts.entry(account.to_owned()).or_default().push(held);
        *self = after;
        Some(gone)
    }

    fn bytes_of(&self, account: &str) -> u64 {
        let held = self.accounts.get(account).into_iter().flatten();
        held.fold(0, |sum, held| sum.saturating_add(held.bytes))
    }

    /// The account that has most, if that is more than `own` bytes.
    fn largest(&self, own: u64) -> Option<String> {
        let all = self.accounts.keys().map(|account| (self.bytes_of(account), account));
        all.max().filter(|(bytes, _)| *bytes > own).map(|(_, account)| account.clone())
    }

    /// Removes the oldest file from an account. Its bytes become free if no other account has it.
    fn take_oldest(&mut self, account: &str, needed: &BTreeSet<&str>) -> Option<String> {
        let held = self.accounts.get_mut(account)?;
        let old = held.remove(held.iter().position(|h| !needed.contains(h.id.as_str()))?);
        if !self.accounts.values().flatten().any(|held| held.id == old.id) {
            self.used = self.used.saturating_sub(old.bytes);
            self.free = self.free.saturating_add(old.bytes);
        }
        Some(old.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(all: &[(&str, u64)]) -> Vec<Held> {
        let held = |&(id, bytes): &(&str, u64)| Held { id: id.into(), bytes, needed: 0 };
        all.iter().map(held).collect()
    }

    /// With a total of 400 bytes and 1,000 free on disk: what is removed when `account` wants
    /// `bytes` for the file "new".
    fn goes(
        account: &str,
        bytes: u64,
        is_there: bool,
        budget: &[(&str, &[(&str, u64)])],
    ) -> String {
        let ids: BTreeMap<&str, u64> =
            budget.iter().flat_map(|(_, all)| all.iter().copied()).collect();
        let accounts = budget.iter().map(|(name, all)| ((*name).to_owned(), held(all)));
        let mut budget = BinariesBudget::new(400, ids.values().sum(), 1000, accounts);
        let before = format!("{budget:?}");
        let new = NewBinary { id: "new", bytes, is_there };
        match budget.make_room(account, new, &BTreeSet::from(["new", "libc"])) {
            None => {
                assert_eq!(format!("{budget:?}"), before, "something goes in vain");
                "none".into()
            }
            Some(gone) => {
                assert!(budget.used <= budget.total && budget.bytes_of(account) <= budget.share());
                gone.iter().map(|(who, id)| format!("{who}/{id}")).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn who_makes_room() {
        // There is room.
        assert_eq!(goes("a", 100, false, &[]), "");
        // More than a share, whatever were removed for it.
        assert_eq!(goes("a", 101, false, &[("a", &[("1", 50)])]), "none");
        // A share that is used up: the account's own oldest files, as many as needed,
        // except those of this crash.
        let full: &[(&str, u64)] = &[("1", 30), ("libc", 20), ("2", 30), ("3", 20)];
        assert_eq!(goes("a", 20, false, &[("a", full)]), "a/1");
        assert_eq!(goes("a", 55, false, &[("a", full)]), "a/1 a/2");
        assert_eq!(goes("a", 80, false, &[("a", full)]), "a/1 a/2 a/3");
        assert_eq!(goes("a", 81, false, &[("a", full)]), "none");
        // Other accounts are not affected.
        assert_eq!(goes("b", 100, false, &[("a", full)]), "");
        // The whole space is used up: files of the account that has most, until there is room.
        let many: &[(&str, &[(&str, u64)])] = &[
            ("a", &[("1", 50), ("2", 40)]),
            ("b", &[("3", 60), ("4", 40)]),
            ("c", &[("5", 100)]),
            ("d", &[("6", 99)]),
        ];
        assert_eq!(goes("e", 11, false, many), "");
        assert_eq!(goes("e", 50, false, many), "c/5");
        assert_eq!(goes("e", 90, false, many), "c/5");
        // No account has more than this one would have: its own files, or none.
        assert_eq!(goes("c", 50, false, many), "c/5");
        let even: &[(&str, &[(&str, u64)])] = &[
            ("a", &[("1", 100)]),
            ("b", &[("2", 100)]),
            ("c", &[("3", 100)]),
            ("d", &[("4", 100)]),
        ];
        assert_eq!(goes("e", 100, false, even), "none");
        assert_eq!(goes("e", 99, false, even), "d/4");
        // The bytes of a file of two accounts become free only when both have given it up.
        let shared: &[(&str, &[(&str, u64)])] = &[
            ("a", &[("1", 100)]),
            ("b", &[("1", 100)]),
            ("c", &[("2", 100)]),
            ("d", &[("3", 100)]),
            ("e", &[("4", 60)]),
        ];
        assert_eq!(goes("f", 60, false, shared), "d/3");
        // A file that is kept already takes only from the share.
        assert_eq!(goes("a", 100, true, even), "a/1");
        assert_eq!(goes("e", 100, true, even), "");
    }

    #[test]
    fn inodes_count_as_well() {
        let many: Vec<Held> =
            (0..MOST_FILES).map(|i| Held { id: i.to_string(), bytes: 0, needed: 0 }).collect();
        let mut budget = BinariesBudget::new(400, 0, 1000, [("a".to_owned(), many)]);
        let new = NewBinary { id: "new", bytes: 0, is_there: false };
        let gone = budget.make_room("a", new, &BTreeSet::new());
        assert_eq!(gone, Some(vec![("a".to_owned(), "0".to_owned())]));
        // A file that is kept already is not counted again.
        assert_eq!(budget.make_room("a", new, &BTreeSet::new()), Some(vec![]));
    }

    #[test]
    fn a_full_disk_takes_from_nobody() {
        let mut budget = BinariesBudget::new(400, 50, 10, [("a".to_owned(), held(&[("1", 50)]))]);
        let new = NewBinary { id: "new", bytes: 11, is_there: false };
        assert_eq!(budget.make_room("a", new, &BTreeSet::new()), None);
        assert!(budget.make_room("a", NewBinary { bytes: 10, ..new }, &BTreeSet::new()).is_some());
        assert_eq!(budget.free, 0);
    }
}
