//! Numbers of bytes and limits on them: one parser, and one form of "unlimited". The configuration,
//! annotations and the command line all use them. Pure.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bytes(pub u64);

/// A limit in bytes. Every finite one is less than none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Given", into = "String")]
pub enum Limit {
    /// A number of bytes.
    Finite(u64),
    /// No limit.
    #[default]
    Unlimited,
}

/// How a limit is written: an integer, a text, or nothing.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Integer(u64),
    Negative(i64),
    Text(String),
    Nothing,
}

impl Limit {
    /// A limit as the kernel has it, where [`u64::MAX`] is RLIM_INFINITY.
    pub const fn from_raw(bytes: u64) -> Self {
        if bytes == u64::MAX { Limit::Unlimited } else { Limit::Finite(bytes) }
    }

    /// The limit as the kernel has it.
    pub const fn raw(self) -> u64 {
        match self {
            Limit::Finite(bytes) => bytes,
            Limit::Unlimited => u64::MAX,
        }
    }

    /// The number of bytes, if there is a limit.
    pub fn finite(self) -> Option<u64> {
        match self {
            Limit::Finite(bytes) => Some(bytes),
            Limit::Unlimited => None,
        }
    }
}

/// A limit of `getrlimit(2)`, of which `None` is RLIM_INFINITY.
impl From<Option<u64>> for Limit {
    fn from(bytes: Option<u64>) -> Self {
        bytes.map_or(Limit::Unlimited, Limit::Finite)
    }
}

/// Parses a number with an optional fraction and unit. `K`, `M`, `G` and `T` are powers of 1024, in
/// either case, with or without `i` and `B`. The error states the rule.
impl FromStr for Bytes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        const RULE: &str = "expected a size like 0, 200K, 512Mi, 1.5G or unlimited";
        let text = text.trim();
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
        let bytes = u64::try_from((u128::from(whole) << shift) + part);
        Ok(Bytes(bytes.ok().context("the size does not fit in 64 bits")?))
    }
}

/// Parses a size, or `unlimited`.
impl FromStr for Limit {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "unlimited" => Ok(Limit::Unlimited),
            size => size.parse().map(|Bytes(bytes)| Limit::from_raw(bytes)),
        }
    }
}

impl TryFrom<Given> for Limit {
    type Error = anyhow::Error;

    fn try_from(given: Given) -> Result<Self> {
        match given {
            Given::Integer(bytes) => Ok(Limit::from_raw(bytes)),
            Given::Negative(bytes) => bail!("{bytes}: a size cannot be negative"),
            Given::Text(text) => text.parse(),
            Given::Nothing => Ok(Limit::Unlimited),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")]
            .into_iter()
            .find(|(shift, _)| self.0 > 0 && self.0.is_multiple_of(1 << shift));
        match unit {
            Some((shift, name)) => write!(f, "{}{name}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Finite(bytes) => Bytes(*bytes).fmt(f),
            Limit::Unlimited => f.write_str("unlimited"),
        }
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> String {
        limit.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1K", 1024),
            ("1.5M", 3 << 19),
            ("2GiB", 2 << 30),
            ("2 gb", 2 << 30),
        ] {
            assert_eq!(text.parse::<Bytes>().unwrap(), Bytes(bytes), "{text}");
            assert_eq!(text.parse::<Limit>().unwrap(), Limit::Finite(bytes), "{text}");
        }
        for text in ["", "G", "-1", "1X", "1.2.3M", "inf", "99999999999999999999"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
        assert!("unlimited".parse::<Bytes>().is_err());
    }

    #[test]
    fn one_form_of_unlimited() {
        for text in ["null", "\"unlimited\"", "18446744073709551615"] {
            assert_eq!(serde_json::from_str::<Limit>(text).unwrap(), Limit::Unlimited, "{text}");
        }
        assert_eq!(serde_json::from_str::<Limit>("4096").unwrap(), Limit::Finite(4096));
        assert!(serde_json::from_str::<Limit>("-1").is_err());
        assert_eq!(serde_json::to_string(&Limit::Unlimited).unwrap(), "\"unlimited\"");
        assert_eq!(serde_json::to_string(&Limit::Finite(3 << 20)).unwrap(), "\"3Mi\"");
        assert_eq!(Limit::Finite(7).min(Limit::Unlimited), Limit::Finite(7));
        assert_eq!(Limit::from_raw(Limit::Unlimited.raw()), Limit::Unlimited);
        // setrlimit(2) takes all of 64 bits: what a registry entry says can be read again.
        for raw in [i64::MAX as u64, 1 << 63, u64::MAX - 1, u64::MAX] {
            let text = serde_json::to_string(&Limit::from_raw(raw)).unwrap();
            assert_eq!(serde_json::from_str::<Limit>(&text).unwrap().raw(), raw, "{text}");
        }
    }
}
