//! RLIMIT_CORE of a container, by its request and its specification. Pure.

use crate::bytes::Limit;

/// The soft RLIMIT_CORE to set: what is `asked` for, else unlimited. `there`: the soft and the hard
/// limit in config.json. A soft limit above 0 there was set deliberately, and stays (`None`) unless
/// the request names another; a hard limit is never exceeded.
pub(crate) fn soft_core_limit(asked: Option<Limit>, there: Option<(u64, u64)>) -> Option<Limit> {
    match (asked, there) {
        (None, Some((soft, _))) if soft > 0 => None,
        (_, Some((_, hard))) => Some(asked.unwrap_or_default().min(Limit::from_raw(hard))),
        (_, None) => Some(asked.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_wins_below_the_hard_limit() {
        let (none, some) = (Limit::Unlimited, Limit::Finite);
        for (asked, there, soft) in [
            (None, None, Some(none)),
            (Some(some(7)), None, Some(some(7))),
            (None, Some((0, u64::MAX)), Some(none)),
            (None, Some((0, 9)), Some(some(9))),
            (Some(some(7)), Some((0, 9)), Some(some(7))),
            (Some(some(10)), Some((1, 9)), Some(some(9))),
            (Some(some(0)), Some((0, 0)), Some(some(0))),
            (None, Some((1, 9)), None),
        ] {
            assert_eq!(soft_core_limit(asked, there), soft, "{asked:?} {there:?}");
        }
    }
}
