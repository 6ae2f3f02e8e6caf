//! Which crashes without a core have a record of their own: the first few of a container in a
//! minute. Those beyond are counted in one record for each kind of reason. Pure.

use crate::cause::CauseCode;
use crate::record::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Records of their own that crashes without a core have in a minute, of each account.
const EACH_MINUTE: u32 = 5;

/// How long one record goes on counting before another one is begun, in milliseconds.
const COUNTED: u64 = 60 * 60 * 1000;

/// What is remembered of an account.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Refusals {
    /// The minute since the boot in which `own` was counted.
    minute: u64,
    /// Records of their own in that minute.
    own: u32,
    /// By kind of reason: the record that counts, and when it was begun, in milliseconds since the
    /// boot.
    pub sums: BTreeMap<String, (String, u64)>,
}

/// How a crash without a core is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    /// In a record of its own.
    Own,
    /// In a new record, which counts from now on.
    Begin,
    /// In the record of this name.
    Count(String),
}

/// Decides how a crash is told of, and counts it. `now`: milliseconds since the boot.
pub(crate) fn decide(told: &mut Refusals, kind: &str, now: u64) -> Tally {
    let minute = now / 60_000;
    if told.minute != minute {
        (told.minute, told.own) = (minute, 0);
    }
    if told.own < EACH_MINUTE {
        told.own += 1;
        return Tally::Own;
    }
    match told.sums.get(kind) {
        Some((name, begun)) if now.saturating_sub(*begun) < COUNTED => Tally::Count(name.clone()),
        _ => Tally::Begin,
    }
}

/// The kind of a reason, of which there are few: a container can choose numbers in reasons, but no
/// kinds.
pub(crate) fn kind(record: &Record) -> &'static str {
    record.cause.unwrap_or(CauseCode::Other).as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_of_a_minute_and_then_one() {
        let mut told = Refusals::default();
        let mut ways = |kind: &str, now: u64, times: usize| -> Vec<Tally> {
            let all: Vec<Tally> = (0..times).map(|_| decide(&mut told, kind, now)).collect();
            if all.contains(&Tally::Begin) {
                told.sums.insert(kind.to_owned(), (format!("{kind}-{now}"), now));
            }
            all
        };
        assert!(ways("rate", 0, 5).iter().all(|way| *way == Tally::Own));
        assert_eq!(ways("rate", 1000, 1), [Tally::Begin]);
        assert_eq!(
            ways("rate", 2000, 2),
            [Tally::Count("rate-1000".into()), Tally::Count("rate-1000".into())]
        );
        // Another kind has another record, and no further ones of its own.
        assert_eq!(ways("cores", 2000, 1), [Tally::Begin]);
        // The next minute.
        assert_eq!(ways("rate", 60_000, 6)[4..], [Tally::Own, Tally::Count("rate-1000".into())]);
        // After an hour another record counts.
        assert_eq!(ways("rate", 60_500 + COUNTED, 6)[4..], [Tally::Own, Tally::Begin]);
    }
}
