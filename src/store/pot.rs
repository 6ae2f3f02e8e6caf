//! How the pot of kept binaries is shared out: who may keep how much, and what goes for it.
//! Decisions over values only.

use super::binaries::Held;
use std::collections::{BTreeMap, BTreeSet};

/// Most files of one account: an empty one takes an inode too.
const MOST_FILES: usize = 1024;

/// What goes: from which account, and which file.
pub type Gone = (String, String);

/// What there is, in bytes on disk.
#[derive(Clone, Debug)]
pub struct Pot {
    /// Most of all files: `[binaries] max_total`.
    total: u64,
    /// What they take now, those that no account has included.
    used: u64,
    /// What may still be taken of the disk.
    free: u64,
    /// What each account has, the oldest first. A file that several have counts for each of them.
    accounts: BTreeMap<String, Vec<Held>>,
}

/// What is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its name.
    pub id: &'a str,
    /// Bytes on disk.
    pub bytes: u64,
    /// Whether it is in the pot already, for another account.
    pub is_there: bool,
}

impl Pot {
    /// A pot as it is found.
    pub fn new(
        total: u64,
        used: u64,
        free: u64,
        accounts: impl IntoIterator<Item = (String, Vec<Held>)>,
    ) -> Self {
        Pot { total, used, free, accounts: accounts.into_iter().collect() }
    }

    /// Most bytes of one account: a quarter, so that one that does its worst leaves most of the pot
    /// to others, and an ordinary one needs not count its libraries.
    fn share(&self) -> u64 {
        self.total / 4
    }

    /// Whether an account may keep one more, and what goes for it. Its own oldest go when its share
    /// is used up; where the pot is full, the oldest of whoever has most, so that a new container's
    /// programs are kept also when others have filled it. What goes is counted as gone, the new one
    /// as there. Never one of `needed`. `None`: it is not kept, and nothing goes in vain.
    pub fn make_room(
        &mut self,
        account: &str,
        new: Wanted<'_>,
        needed: &BTreeSet<&str>,
    ) -> Option<Vec<Gone>> {
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

    /// Who has most, if that is more than `own` bytes.
    fn largest(&self, own: u64) -> Option<String> {
        let all = self.accounts.keys().map(|account| (self.bytes_of(account), account));
        all.max().filter(|(bytes, _)| *bytes > own).map(|(_, account)| account.clone())
    }

    /// Takes the oldest from an account. Its bytes are free where no other one has it.
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

    /// Of a pot of 400 bytes, with 1,000 free: what goes when `account` wants
    /// `bytes` for the file "new".
    fn goes(account: &str, bytes: u64, is_there: bool, pot: &[(&str, &[(&str, u64)])]) -> String {
        let ids: BTreeMap<&str, u64> =
            pot.iter().flat_map(|(_, all)| all.iter().copied()).collect();
        let accounts = pot.iter().map(|(name, all)| ((*name).to_owned(), held(all)));
        let mut pot = Pot::new(400, ids.values().sum(), 1000, accounts);
        let before = format!("{pot:?}");
        let new = Wanted { id: "new", bytes, is_there };
        match pot.make_room(account, new, &BTreeSet::from(["new", "libc"])) {
            None => {
                assert_eq!(format!("{pot:?}"), before, "something goes in vain");
                "none".into()
            }
            Some(gone) => {
                assert!(pot.used <= pot.total && pot.bytes_of(account) <= pot.share());
                gone.iter().map(|(who, id)| format!("{who}/{id}")).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn who_makes_room() {
        // Room enough.
        assert_eq!(goes("a", 100, false, &[]), "");
        // More than a share, whatever would go for it.
        assert_eq!(goes("a", 101, false, &[("a", &[("1", 50)])]), "none");
        // A share that is used up: the account's own oldest, as many as
        // needed, not those of this crash.
        let full: &[(&str, u64)] = &[("1", 30), ("libc", 20), ("2", 30), ("3", 20)];
        assert_eq!(goes("a", 20, false, &[("a", full)]), "a/1");
        assert_eq!(goes("a", 55, false, &[("a", full)]), "a/1 a/2");
        assert_eq!(goes("a", 80, false, &[("a", full)]), "a/1 a/2 a/3");
        assert_eq!(goes("a", 81, false, &[("a", full)]), "none");
        // Others do not care.
        assert_eq!(goes("b", 100, false, &[("a", full)]), "");
        // A full pot: of whoever has most, until there is room.
        let many: &[(&str, &[(&str, u64)])] = &[
            ("a", &[("1", 50), ("2", 40)]),
            ("b", &[("3", 60), ("4", 40)]),
            ("c", &[("5", 100)]),
            ("d", &[("6", 99)]),
        ];
        assert_eq!(goes("e", 11, false, many), "");
        assert_eq!(goes("e", 50, false, many), "c/5");
        assert_eq!(goes("e", 90, false, many), "c/5");
        // Nobody has more than it would have: its own, or none.
        assert_eq!(goes("c", 50, false, many), "c/5");
        let even: &[(&str, &[(&str, u64)])] = &[
            ("a", &[("1", 100)]),
            ("b", &[("2", 100)]),
            ("c", &[("3", 100)]),
            ("d", &[("4", 100)]),
        ];
        assert_eq!(goes("e", 100, false, even), "none");
        assert_eq!(goes("e", 99, false, even), "d/4");
        // What two have is free only when both have given it up.
        let shared: &[(&str, &[(&str, u64)])] = &[
            ("a", &[("1", 100)]),
            ("b", &[("1", 100)]),
            ("c", &[("2", 100)]),
            ("d", &[("3", 100)]),
            ("e", &[("4", 60)]),
        ];
        assert_eq!(goes("f", 60, false, shared), "d/3");
        // One that is there already takes of the share only.
        assert_eq!(goes("a", 100, true, even), "a/1");
        assert_eq!(goes("e", 100, true, even), "");
    }

    #[test]
    fn inodes_count_as_well() {
        let many: Vec<Held> =
            (0..MOST_FILES).map(|i| Held { id: i.to_string(), bytes: 0, needed: 0 }).collect();
        let mut pot = Pot::new(400, 0, 1000, [("a".to_owned(), many)]);
        let new = Wanted { id: "new", bytes: 0, is_there: false };
        let gone = pot.make_room("a", new, &BTreeSet::new());
        assert_eq!(gone, Some(vec![("a".to_owned(), "0".to_owned())]));
        // Once it is there it is not counted again.
        assert_eq!(pot.make_room("a", new, &BTreeSet::new()), Some(vec![]));
    }

    #[test]
    fn a_full_disk_takes_from_nobody() {
        let mut pot = Pot::new(400, 50, 10, [("a".to_owned(), held(&[("1", 50)]))]);
        let new = Wanted { id: "new", bytes: 11, is_there: false };
        assert_eq!(pot.make_room("a", new, &BTreeSet::new()), None);
        assert!(pot.make_room("a", Wanted { bytes: 10, ..new }, &BTreeSet::new()).is_some());
        assert_eq!(pot.free, 0);
    }
}
