//! How much of the file system that a core is written to it may take, in StarlingX's words. Pure.

use super::Free;
use serde::{Deserialize, Serialize};

/// Bounds for one core by the size of the file system that it is written to. `None` and 0 mean no
/// bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DiskShare {
    /// Most bytes of one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Free>,
    /// Most bytes in use on the file system, with the core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_used: Option<Free>,
    /// Bytes that stay free on the file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_free: Option<Free>,
}

impl DiskShare {
    /// Whether there is no bound at all.
    pub(crate) fn is_none(&self) -> bool {
        *self == DiskShare::default()
    }

    /// The fewest bytes that a bound leaves for a core, and the bound as it is written: its key
    /// without a domain, and its value. `total` and `available`: bytes of the file system.
    pub(crate) fn room(&self, total: u64, available: u64) -> Option<(u64, String)> {
        let bytes = |bound: Option<Free>| bound.map(|b| b.of(total)).filter(|b| *b > 0);
        let used = total.saturating_sub(available);
        let bounds = [
            ("core_max_size", self.max_size, bytes(self.max_size)),
            ("core_max_used", self.max_used, bytes(self.max_used).map(|b| b.saturating_sub(used))),
            (
                "core_min_free",
                self.min_free,
                bytes(self.min_free).map(|b| available.saturating_sub(b)),
            ),
        ];
        let room = |(key, bound, left): (&str, Option<Free>, Option<u64>)| {
            left.zip(bound).map(|(left, bound)| (left, format!("{key} = {bound}")))
        };
        // A file system that does not say its size has no shares.
        bounds.into_iter().filter(|_| total > 0).filter_map(room).min_by_key(|(left, _)| *left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_counts() {
        let free = |text: &str| Some(Free::try_from(text.to_owned()).unwrap());
        let room = |max_size, max_used, min_free| {
            DiskShare { max_size, max_used, min_free }.room(1000, 400)
        };
        let is = |bytes, text: &str| Some((bytes, text.to_owned()));
        assert_eq!(room(None, None, None), None);
        assert_eq!(room(free("50%"), None, None), is(500, "core_max_size = 50%"));
        assert_eq!(room(free("0"), None, None), None);
        assert_eq!(room(free("50%"), free("80%"), None), is(200, "core_max_used = 80%"));
        assert_eq!(room(None, free("50%"), None), is(0, "core_max_used = 50%"));
        assert_eq!(room(None, None, free("30%")), is(100, "core_min_free = 30%"));
        assert_eq!(room(free("10"), None, free("90%")), is(0, "core_min_free = 90%"));
        let all = DiskShare { max_size: free("1"), ..DiskShare::default() };
        assert_eq!(all.room(0, 0), None, "of an unknown size");
    }
}
