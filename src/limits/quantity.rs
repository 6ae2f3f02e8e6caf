//! Quantities as they are written in the configuration and in annotations: sizes, free space, and
//! rates.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A number of bytes: an integer, or text such as `512Mi`, `1.5G` and `unlimited` (`u64::MAX`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "IntegerOrText", into = "String")]
pub struct Size(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum IntegerOrText {
    Integer(i64),
    Text(String),
}

impl TryFrom<IntegerOrText> for Size {
    type Error = anyhow::Error;
    fn try_from(value: IntegerOrText) -> Result<Self> {
        match value {
            IntegerOrText::Integer(n) => {
                Ok(Size(u64::try_from(n).ok().context("a size cannot be negative")?))
            }
            IntegerOrText::Text(text) => text.try_into(),
        }
    }
}

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

/// Parses a size: a number with an optional fraction and unit, or `unlimited` (`None`). `K`, `M`,
/// `G` and `T` are powers of 1024, in either case, with or without `i` and `B`.
///
/// # Errors
/// States the rule.
pub(crate) fn bytes(text: &str) -> Result<Option<u64>> {
    const RULE: &str = "expected a size like 0, 200K, 512Mi, 1.5G or unlimited";
    let text = text.trim();
    if text == "unlimited" {
        return Ok(None);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let shift = match unit.strip_suffix('b').unwrap_or(&unit).trim_end_matches('i') {
        "" if unit.is_empty() || unit == "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => bail!(RULE),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok().context(RULE)?;
    // More than nine digits add nothing to a size.
    ensure!(!fraction.is_empty() && fraction.len() <= 9, RULE);
    let parts: u64 = fraction.parse().ok().context(RULE)?;
    let part = (u128::from(parts) << shift) / 10u128.pow(fraction.len() as u32);
    ensure!(whole < u64::MAX >> shift >> 1, "the size does not fit in 63 bits");
    Ok(Some((whole << shift) + part as u64))
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

impl TryFrom<String> for Size {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        Ok(Size(bytes(&text)?.unwrap_or(u64::MAX)))
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
                    free.bytes = Some(
                        bytes(part)?
                            .with_context(|| format!("{part:?}: expected 1Gi, 5% or both"))?,
                    )
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

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == u64::MAX {
            return f.write_str("unlimited");
        }
        let unit = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")]
            .into_iter()
            .find(|(shift, _)| self.0 > 0 && self.0.is_multiple_of(1 << shift));
        match unit {
            Some((shift, name)) => write!(f, "{}{name}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Free {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.percent, self.bytes) {
            (Some(p), Some(b)) => write!(f, "{p}%, {}", Size(b)),
            (Some(p), None) => write!(f, "{p}%"),
            (None, b) => write!(f, "{}", Size(b.unwrap_or(0))),
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

impl From<Size> for String {
    fn from(s: Size) -> String {
        s.to_string()
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
