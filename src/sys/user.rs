//! The user who runs this process.

use std::io::Read;
use std::sync::OnceLock;

/// IDs that no user and no file of a host has: above those of distributions, systemd (uid-ranges:
/// to 2,147,418,111) and subordinate ranges, and within 31 bits.
pub(crate) mod reserved {
    use std::ops::Range;

    /// The group of a user whose group is not known.
    pub(crate) const NO_GROUP: u32 = 2_147_450_877;
    /// User and group of the program that fetches, if root starts it.
    pub(crate) const FETCHER: u32 = 2_147_450_878;
    /// User and group of the sandboxes that root makes.
    pub(crate) const READER: u32 = 2_147_450_879;
    /// Users of debuggers that root starts, one each.
    pub(crate) const DEBUGGERS: Range<u32> = 2_147_450_880..2_147_451_904;
}

/// The user who runs this process, on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunBy {
    /// Root, in the initial user namespace or in a user namespace of root's.
    Root,
    /// This user, by the ID on the host; possibly as root of a user namespace of their own.
    User(u32),
}

/// Determines the user, once, from /proc/self/uid_map. In a nested namespace, that gives the
/// ID that the outer one uses.
///
/// # References
/// user_namespaces(7).
pub(crate) fn run_by() -> RunBy {
    static RUN_BY: OnceLock<RunBy> = OnceLock::new();
    *RUN_BY.get_or_init(|| {
        match outside(&uid_map(), effective_uid()) {
            Some(0) => RunBy::Root,
            Some(uid) => RunBy::User(uid),
            // Without a map every ID is the overflow ID, which belongs to no one.
            None => RunBy::User(effective_uid()),
        }
    })
}

/// The map of this process, empty if it cannot be read.
fn uid_map() -> String {
    // With room from the start, since /proc does not say how long a file is.
    let mut map = String::with_capacity(4096);
    let file = std::fs::File::open("/proc/self/uid_map");
    let _ = file.and_then(|file| file.take(1 << 16).read_to_string(&mut map));
    map
}

/// The ID outside of a user namespace of a user inside, by its map.
fn outside(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        uid.checked_sub(inside).filter(|n| *n < count)?.checked_add(outside)
    })
}

/// Whether this process is root of the initial user namespace, as far as /proc/self/uid_map shows.
pub(crate) fn is_host_root() -> bool {
    rustix::process::geteuid().is_root()
        && uid_map().split_whitespace().eq(["0", "0", "4294967295"])
}

/// The effective user ID in this process's user namespace.
pub(crate) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::outside;

    #[test]
    fn users_outside_of_a_namespace() {
        let rootless = "         0       1001          1\n         1     100000      65536\n";
        assert_eq!(
            (outside(rootless, 0), outside(rootless, 1), outside(rootless, 65_537)),
            (Some(1001), Some(100_000), None)
        );
        assert_eq!(outside("0 0 4294967295\n", 1001), Some(1001));
        assert_eq!(outside("", 0), None);
    }
}
