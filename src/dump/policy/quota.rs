//! Whether a container may have one more core, and what must go for it. Pure: what is known in, a
//! decision out.

use crate::bytes::Bytes;
use crate::cause::{Cause, CauseCode};
use crate::limits::{Free, Keep, Limits, Rate};
use crate::sys::file::FileIdentity;
use crate::sys::kernel::page_size;
use serde::{Deserialize, Serialize};

/// Most cores that are remembered of a container; the oldest are forgotten first.
pub(crate) const MOST: usize = 1024;

/// What is remembered of a container between its crashes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AccountState {
    /// The tokens of `rate`.
    pub bucket: Option<Bucket>,
    /// The cores that were written, the oldest first.
    pub cores: Vec<KeptCore>,
    /// The dumps that are on their way.
    pub running: Vec<Running>,
}

/// Tokens, and when they were counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    /// How many; a part of one counts.
    pub tokens: f64,
    /// Milliseconds since the boot.
    pub at: u64,
}

/// A core that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptCore {
    /// Its path below the root that its process had. `None`: it is not UTF-8, or not below that
    /// root; then it is counted, and never removed.
    pub path: Option<String>,
    /// That root.
    pub root: String,
    /// `ID/PATH`, where it is in the host's store: the container in whose directory it is, and its
    /// path there. It is looked for, and removed, from the host's side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<String>,
    /// Which file it is.
    pub identity: FileIdentity,
    /// Bytes on disk.
    pub size: u64,
}

/// A dump on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// The number of its slot.
    pub slot: u64,
    /// How many bytes are to be expected of it.
    pub bytes: u64,
}

/// Which cores must be removed for one more, and how many bytes the new one may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Indices into the list `there` of [`room`], the oldest core first.
    pub remove: Vec<usize>,
    /// `None`: no limit.
    pub bytes: Option<u64>,
}

/// How many dumps of a container may run: no more than cores that it may keep.
pub(crate) fn slots(limits: &Limits) -> Option<u64> {
    match (Limits::nonzero(limits.concurrent), Limits::nonzero(limits.cores)) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// How many of `all` places contained processes may have together: three quarters. The rest is for
/// the host's own processes.
pub(crate) fn contained_part(all: u64) -> u64 {
    all - all / 4
}

/// Whether anything is to be remembered of the container.
pub(crate) fn keeps_state(limits: &Limits) -> bool {
    limits.rate.is_some()
        || Limits::nonzero(limits.cores).is_some()
        || limits.most_bytes().is_some()
}

/// Takes a token, if there is one. `now`: milliseconds since the boot.
pub(crate) fn take(
    bucket: Option<Bucket>,
    rate: Rate,
    burst: Option<u64>,
    now: u64,
) -> Result<Bucket, Cause> {
    let most = Limits::nonzero(burst).unwrap_or(rate.count) as f64;
    let each = rate.count as f64 / (rate.seconds as f64 * 1000.0);
    let tokens =
        bucket.map_or(most, |b| (b.tokens + now.saturating_sub(b.at) as f64 * each).min(most));
    if tokens < 1.0 {
        let seconds = ((1.0 - tokens) / each / 1000.0).ceil();
        return Err(Cause::limit(
            CauseCode::Rate,
            rate,
            format_args!(
                "the container crashes too often, the next core is due in {seconds} seconds"
            ),
        ));
    }
    Ok(Bucket { tokens: tokens - 1.0, at: now })
}

/// Makes room for one core of about `expected` bytes beside those that are there and the others
/// that are on their way.
pub(crate) fn room(
    limits: &Limits,
    there: &[KeptCore],
    others: &[Running],
    expected: u64,
) -> Result<Room, Cause> {
    let keep = limits.keep.unwrap_or_default();
    // What may go, in the order in which it goes.
    let mut removable = match keep {
        Keep::Newest => 0..there.len(),
        Keep::FirstAndNewest => 1.min(there.len())..there.len(),
        Keep::Oldest => 0..0,
    };
    let mut room = Room::default();
    // Cores beyond MOST are not remembered and would not be counted, so MOST caps the limit here.
    let counted = Limits::nonzero(limits.cores).or(limits.most_bytes().map(|_| u64::MAX));
    if let Some(most) = counted.map(|most| most.min(MOST as u64)) {
        while (there.len() - room.remove.len() + others.len()) as u64 >= most {
            let Some(next) = removable.next() else {
                return Err(Cause::limit(
                    CauseCode::Cores,
                    most,
                    "the limit is reached, and `keep` allows no removal",
                ));
            };
            room.remove.push(next);
        }
    }
    if let Some(most) = limits.most_bytes() {
        let coming: u64 = others.iter().map(|o| o.bytes).sum();
        let mut used = coming
            + there
                .iter()
                .enumerate()
                .filter(|(i, _)| !room.remove.contains(i))
                .map(|(_, k)| k.size)
                .sum::<u64>();
        while used.saturating_add(expected) > most {
            let Some(next) = removable.next() else { break };
            room.remove.push(next);
            used -= there[next].size;
        }
        let left = most.saturating_sub(used);
        if left < page_size() {
            return Err(Cause::limit(
                CauseCode::Bytes,
                Bytes(most),
                format_args!(
                    "{used} bytes are kept or being written, and `keep` allows no removal"
                ),
            ));
        }
        room.bytes = Some(left);
    }
    Ok(room)
}

/// How many bytes a file system of this size has for a core. Both in bytes.
pub(crate) fn space(min_free: Free, total: u64, available: u64) -> Result<Option<u64>, Cause> {
    let free = min_free.of(total);
    match available.saturating_sub(free) {
        // A file system that does not say its size has no limit.
        _ if free == 0 || total == 0 => Ok(None),
        left if left < page_size() => Err(Cause::limit(
            CauseCode::MinFree,
            min_free,
            format_args!("{available} of {total} bytes are free, {free} must stay"),
        )),
        left => Ok(Some(left)),
    }
}

/// Whether a file system with `total` inodes, of which `available` are free, has one for a core.
/// The percentage of `min_free` stays free, 1 % where it has none.
pub(crate) fn inodes(min_free: Free, total: u64, available: u64) -> Result<(), Cause> {
    let percent = match (min_free.percent, min_free.bytes) {
        (Some(percent), _) => percent,
        (None, Some(1..)) => 1,
        (None, _) => 0,
    };
    let free = (u128::from(total) * u128::from(percent) / 100) as u64;
    if total == 0 || percent == 0 || available > free {
        return Ok(());
    }
    Err(Cause::limit(
        CauseCode::MinFree,
        min_free,
        format_args!("{available} of {total} files (inodes) are free, {free} must stay"),
    ))
}

/// Whether the host has memory for a dump that waits, which takes a helper process. It has where
/// no `min_memory` is set. `host`: its memory, total and available; `None` if that is not known,
/// which allows it.
///
/// # Errors
/// Too little memory is available.
pub(crate) fn room_to_wait(
    min_memory: Option<Free>,
    host: Option<(u64, u64)>,
) -> Result<(), Cause> {
    match (min_memory, host) {
        (Some(min_memory), Some((total, available))) => memory(min_memory, total, available),
        _ => Ok(()),
    }
}

/// Whether a host with `total` bytes of memory, of which `available` are, has room for a dump that
/// waits.
fn memory(min_memory: Free, total: u64, available: u64) -> Result<(), Cause> {
    match min_memory.of(total) {
        must if available < must => Err(Cause::limit(
            CauseCode::MinMemory,
            min_memory,
            format_args!(
                "{available} bytes of the host's memory are available, too few for a \
                 dump that waits for a slot"
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(sizes: &[u64]) -> Vec<KeptCore> {
        sizes.iter().map(|size| KeptCore { size: *size, ..KeptCore::default() }).collect()
    }

    fn limits(text: &str) -> Limits {
        Limits::parse(text).unwrap()
    }

    #[test]
    fn which_cores_go() {
        // limits, sizes of what is there, others on their way, expected -> what goes, and the room
        // or the limit that acts
        type Row<'a> =
            (&'a str, &'a [u64], usize, u64, Result<(&'a [usize], Option<u64>), &'a str>);
        let table: [Row<'_>; 14] = [
            ("cores=3", &[1, 1], 0, 1, Ok((&[], None))),
            ("cores=3", &[1, 1, 1], 0, 1, Ok((&[0], None))),
            ("cores=3", &[1, 1, 1, 1, 1], 0, 1, Ok((&[0, 1, 2], None))),
            ("cores=3", &[1, 1], 1, 1, Ok((&[0], None))),
            ("cores=1", &[1], 0, 1, Ok((&[0], None))),
            ("cores=3, keep=first-and-newest", &[1, 1, 1], 0, 1, Ok((&[1], None))),
            ("cores=1, keep=first-and-newest", &[1], 0, 1, Err("cores = 1")),
            ("cores=3, keep=oldest", &[1, 1, 1], 0, 1, Err("cores = 3")),
            ("bytes=1Mi", &[400 << 10, 400 << 10], 0, 100 << 10, Ok((&[], Some(224 << 10)))),
            ("bytes=1Mi", &[400 << 10, 400 << 10], 0, 300 << 10, Ok((&[0], Some(624 << 10)))),
            ("bytes=1Mi", &[400 << 10, 400 << 10], 0, 2 << 20, Ok((&[0, 1], Some(1 << 20)))),
            (
                "bytes=1Mi, keep=oldest",
                &[400 << 10, 400 << 10],
                0,
                2 << 20,
                Ok((&[], Some(224 << 10))),
            ),
            ("bytes=1Mi, keep=oldest", &[1 << 20], 0, 1, Err("bytes = 1Mi")),
            (
                "bytes=1Mi, cores=2",
                &[600 << 10, 600 << 10],
                0,
                600 << 10,
                Ok((&[0, 1], Some(1 << 20))),
            ),
        ];
        for (text, there, others, expected, result) in table {
            let others = vec![Running { slot: 0, bytes: 0 }; others];
            let got = room(&limits(text), &kept(there), &others, expected);
            let got = got
                .as_ref()
                .map(|r| (r.remove.as_slice(), r.bytes))
                .map_err(|r| r.acted().unwrap());
            assert_eq!(got, result.map_err(str::to_owned), "{text} {there:?}");
        }
    }

    #[test]
    fn no_more_than_can_be_remembered() {
        let there = kept(&[1; MOST]);
        assert_eq!(room(&limits("bytes=1Gi"), &there, &[], 1).unwrap().remove, [0]);
        assert_eq!(room(&limits("cores=5000"), &there, &[], 1).unwrap().remove, [0]);
        let refused = room(&limits("bytes=1Gi, keep=oldest"), &there, &[], 1).unwrap_err();
        assert_eq!(refused.acted().unwrap(), format!("cores = {MOST}"));
        assert!(room(&limits("rate=1/s"), &there, &[], 1).unwrap().remove.is_empty());
    }

    #[test]
    fn what_is_on_its_way_takes_room() {
        let others = [Running { slot: 1, bytes: 700 << 10 }];
        assert_eq!(room(&limits("bytes=1Mi"), &[], &others, 1).unwrap().bytes, Some(324 << 10));
        assert_eq!(
            room(&limits("bytes=512Ki"), &[], &others, 1).unwrap_err().acted().unwrap(),
            "bytes = 512Ki"
        );
    }

    #[test]
    fn tokens() {
        let rate = Rate { count: 2, seconds: 60 };
        let mut bucket = None;
        let mut at = |now, burst| {
            take(bucket, rate, burst, now).map(|b| bucket = Some(b)).map_err(|r| r.to_string())
        };
        assert!(at(1000, None).is_ok() && at(1000, None).is_ok());
        assert!(at(2000, None).unwrap_err().contains("due in 29 seconds"));
        assert!(at(31_000, None).is_ok());
        assert!(at(31_500, None).is_err());
        // Never more than the burst, however long it was quiet; a clock that goes backwards gives
        // nothing.
        assert!(at(1 << 40, Some(1)).is_ok());
        assert!(at(1 << 40, Some(1)).is_err());
        assert!(at(5, Some(1)).is_err());
    }

    #[test]
    fn free_space() {
        let free = |text: &str| Free::try_from(text.to_owned()).unwrap();
        assert_eq!(space(free("10%"), 1000 << 20, 300 << 20).unwrap(), Some(200 << 20));
        assert_eq!(
            space(free("10%"), 1000 << 20, 100 << 20).unwrap_err().acted().unwrap(),
            "min_free = 10%"
        );
        assert_eq!(space(free("0"), 1000, 0).unwrap(), None);
        assert_eq!(space(free("1Gi"), 0, 0).unwrap(), None);
        assert!(inodes(free("5%, 1Gi"), 1000, 51).is_ok());
        assert_eq!(
            inodes(free("5%, 1Gi"), 1000, 50).unwrap_err().acted().unwrap(),
            "min_free = 5%, 1Gi"
        );
        assert!(
            inodes(free("200Mi"), 1000, 10).is_err() && inodes(free("200Mi"), 1000, 11).is_ok()
        );
        // btrfs does not say how many.
        assert!(inodes(free("0"), 1000, 0).is_ok() && inodes(free("5%"), 0, 0).is_ok());
    }

    #[test]
    fn memory_for_those_who_wait() {
        let free = |text: &str| Free::try_from(text.to_owned()).unwrap();
        assert!(memory(free("5%, 1Gi"), 16 << 30, 900 << 20).is_ok());
        assert_eq!(
            memory(free("5%, 1Gi"), 64 << 30, 900 << 20).unwrap_err().acted().unwrap(),
            "min_memory = 5%, 1Gi"
        );
        assert!(memory(free("0"), 64 << 30, 0).is_ok());
    }
}
