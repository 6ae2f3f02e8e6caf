//! Free space and rates, as they are written in the configuration and in annotations.

use crate::bytes::Bytes;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How much of a file system or of memory must stay free: bytes, a percentage, or both (`5%, 1Gi`),
/// of which the lesser applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Free {
    /// An absolute number of bytes.
    pub bytes: Option<u64>,
    /// A percentage of the whole, 0 to 100.
    pub percent: Option<u64>,
}

/// A number of events in a span of time, written `10/min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    /// How many events the span allows.
    pub count: u64,
    /// Length of the span in seconds.
    pub seconds: u64,
}

impl Free {
    /// How many bytes of `total` must stay free.
    pub fn of(self, total: u64) -> u64 {
        let share = self.percent.map(|p| (u128::from(total) * u128::from(p) / 100) as u64);
        match (self.bytes, share) {
            (Some(b), Some(s)) => b.min(s),
            (b, s) => b.or(s).unwrap_or(0),
        }
    }
}

impl TryFrom<String> for Free {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        let mut free = Free::default();
        for part in text.split(',').map(str::trim) {
            match part.strip_suffix('%') {
                Some(p) => {
                    free.percent = Some(
                        p.parse()
                            .ok()
                            .filter(|p| *p <= 100)
                            .with_context(|| format!("{part:?}: expected 0% to 100%"))?,
                    )
                }
                None => {
                    let rule = || format!("{part:?}: expected 1Gi, 5% or both");
                    free.bytes = Some(part.parse::<Bytes>().with_context(rule)?.0)
                }
            }
        }
        Ok(free)
    }
}

impl TryFrom<String> for Rate {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        const RULE: &str = "expected a rate like 10/min: a number, then /s, /min, /h or /day";
        let (count, unit) = text.split_once('/').context(RULE)?;
        let seconds = match unit {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            "day" => 86400,
            _ => bail!(RULE),
        };
        let count = count.parse().ok().filter(|n| (1..=1_000_000).contains(n)).context(RULE)?;
        Ok(Rate { count, seconds })
    }
}

impl fmt::Display for Free {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.percent, self.bytes) {
            (Some(p), Some(b)) => write!(f, "{p}%, {}", Bytes(b)),
            (Some(p), None) => write!(f, "{p}%"),
            (None, b) => write!(f, "{}", Bytes(b.unwrap_or(0))),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.seconds {
            1 => "s",
            60 => "min",
            3600 => "h",
            _ => "day",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl From<Free> for String {
    fn from(f: Free) -> String {
        f.to_string()
    }
}

impl From<Rate> for String {
    fn from(r: Rate) -> String {
        r.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space() {
        let of = |text: &str, total| Free::try_from(text.to_owned()).unwrap().of(total);
        assert_eq!(of("5%, 1Gi", 1 << 40), 1 << 30);
        assert_eq!(of("5%, 1Gi", 100 << 20), 5 << 20);
        assert_eq!((of("10%", 1000), of("1Ki", 10), of("0", 10)), (100, 1024, 0));
        assert!(Free::try_from("101%".to_owned()).is_err());
    }
}
