//! What was kept with the last core of an account. In a crash loop it is the same each time, and no
//! core is read for it then.

use crate::bytes::Limit;
use crate::store::binaries::KeptBinaries;
use crate::sys::cred::Credentials;
use crate::sys::file::JsonFile;
use crate::sys::{OwnedFd, kernel};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const LAST: JsonFile = JsonFile("kept", 1 << 20);

/// How long it counts, in seconds: meanwhile a file could be changed in its place.
const COUNTS: i64 = 60;

/// Which files a process has mapped, as whom it could read them, and how large one may be that is
/// kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MappedFilesHash(String);

impl MappedFilesHash {
    /// Those in the text of /proc/PID/maps. `None`: one has no name any more, so that the next
    /// process has another one.
    ///
    /// # References
    /// proc_pid_maps(5).
    pub(crate) fn of(maps: &[u8], reader: &Credentials, largest: Limit) -> Option<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{reader:?} {largest}\n").as_bytes());
        let mut last: &[u8] = b"";
        for line in maps.split(|b| *b == b'\n') {
            // Device, inode, path: the fourth word and what follows.
            let mut words = line.splitn(4, |b| *b == b' ');
            let Some(file) = words.nth(3) else { continue };
            if !file.contains(&b'/') || file == last {
                continue;
            }
            if file.ends_with(b" (deleted)") {
                return None;
            }
            hasher.update(file).update(b"\n");
            last = file;
        }
        Some(MappedFilesHash(hasher.finalize().to_hex().to_string()))
    }
}

/// The last core, and what was kept with it: of each file its path, its name in the store, and its
/// size in bytes.
#[derive(Default, Serialize, Deserialize)]
struct KeptBefore {
    mapped: Option<MappedFilesHash>,
    at: i64,
    kept: Vec<(String, String, u64)>,
}

/// What was kept with the last core of the account, if that had the same files, and all of it is
/// still there. `dir`: the directory of the account's limits.
pub(super) fn recall(
    dir: &OwnedFd,
    account: &str,
    mapped: &MappedFilesHash,
    store: &KeptBinaries,
) -> Option<BTreeMap<String, String>> {
    let before: KeptBefore = LAST.read(dir);
    let age = kernel::seconds() - before.at;
    if before.mapped.as_ref() != Some(mapped) || !(0..COUNTS).contains(&age) {
        return None;
    }
    let is_there = |(_, name, size): &(String, String, u64)| {
        store.take(name) == Some(*size) && store.has(account, name)
    };
    let all = before.kept.iter().all(is_there);
    all.then(|| before.kept.into_iter().map(|(path, name, _)| (path, name)).collect())
}

/// Notes what was kept with a core.
///
/// # Errors
/// It cannot be written.
pub(super) fn note(
    dir: &OwnedFd,
    mapped: &MappedFilesHash,
    store: &KeptBinaries,
    kept: &BTreeMap<String, String>,
) -> Result<()> {
    let with_size =
        |(path, name): (&String, &String)| Some((path.clone(), name.clone(), store.size(name)?));
    // One that another crash has in hand is not there yet: the next crash looks again.
    let Some(kept) = kept.iter().map(with_size).collect() else { return Ok(()) };
    let mapped = Some(mapped.clone());
    LAST.replace(dir, &KeptBefore { mapped, at: kernel::seconds(), kept })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files() {
        let of = |maps: &str, uid| {
            let reader = Credentials { uid: [uid; 4], ..Credentials::default() };
            MappedFilesHash::of(maps.as_bytes(), &reader, Limit::Unlimited)
        };
        let one = "\
00400000-00401000 r--p 00000000 08:01 77                         /bin/server
00401000-00402000 r-xp 00001000 08:01 77                         /bin/server
00402000-00403000 rw-p 00000000 00:00 0                          [heap]
7f0000004000-7f0000005000 r--p 00000000 08:01 78 /lib/a b.so
";
        let elsewhere = one.replace("0040", "0050").replace("7f00", "7e00");
        assert_eq!(of(one, 7), of(&elsewhere, 7));
        for other in [one.replace("77  ", "79  "), one.replace("a b", "a c"), String::new()] {
            assert_ne!(of(one, 7), of(&other, 7), "{other}");
        }
        assert_ne!(of(one, 7), of(one, 8));
        assert_eq!(of(&one.replace(".so", ".so (deleted)"), 7), None);
    }
}
