//! Limits for the cores of one container: the keys of the configuration's `[limits]` and of the
//! annotation `oci-coredump/limits`. Pure.

mod core_limit;
mod quantity;
mod share;

pub(crate) use core_limit::soft_core_limit;
pub(crate) use quantity::{Free, Rate};
pub(crate) use share::DiskShare;

use crate::bytes::Limit;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Limits of one container. `None` means not given. 0 means no limit, except for `wait`,
/// where it means no waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Dumps of one account at the same time; 0 is no limit, except that a user's rootless
    /// containers then have 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u64>,
    /// Dumps of all containers together at the same time. The first 4 of each container do not
    /// count, since they use nothing that is shared. Set by the host only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_concurrent: Option<u64>,
    /// Seconds that a further dump waits for a slot before it is refused; 0: it does not wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<u64>,
    /// How much of the host's memory must be available for a dump to wait: each waiting dump holds
    /// a process. Set by the host only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_memory: Option<Free>,
    /// Cores that are kept, 1,024 at most; also the most dumps at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u64>,
    /// Which cores are kept when there would be more than `cores`; without it `newest`. With
    /// `oldest` none is removed, and the new one is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// Bytes on disk of all kept cores together, of which there are then 1,024 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Limit>,
    /// What must stay free on the file system that a core is written to; checked before it and
    /// after each MiB. The percentage also holds for inodes (1 % where only bytes are given). Set
    /// by the host only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_free: Option<Free>,
    /// Cores in a span of time: `N/s`, `N/min`, `N/h` or `N/day`, with N from 1 to 1,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Cores that may be written at once before `rate` counts; without it the number in `rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Seconds without progress after which writing to a target is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<u64>,
    /// Records of one account that are kept. Beyond that the oldest are removed, except those whose
    /// core is in the store. Set by the host only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
}

/// Which cores are kept when a new one would be one too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The newest: the oldest core is removed.
    #[default]
    Newest,
    /// The first, which often tells most, and the newest.
    FirstAndNewest,
    /// The oldest: no core is removed, and the new one is refused.
    Oldest,
}

impl Keep {
    /// As the configuration and annotations have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Keep::Newest => "newest",
            Keep::FirstAndNewest => "first-and-newest",
            Keep::Oldest => "oldest",
        }
    }
}

impl Limits {
    /// The defaults where the administrator sets nothing. They take effect only in a crash storm,
    /// on a full disk or on a target that hangs.
    pub fn defaults() -> Self {
        let free = Free { bytes: Some(1 << 30), percent: Some(5) };
        Limits {
            concurrent: Some(64),
            host_concurrent: Some(256),
            wait: Some(30),
            min_memory: Some(free),
            min_free: Some(free),
            stall: Some(30),
            records: Some(1000),
            ..Limits::default()
        }
    }

    /// These limits, completed with those of `other` where they give nothing.
    pub fn or(self, other: Self) -> Self {
        Limits {
            concurrent: self.concurrent.or(other.concurrent),
            host_concurrent: self.host_concurrent.or(other.host_concurrent),
            wait: self.wait.or(other.wait),
            min_memory: self.min_memory.or(other.min_memory),
            cores: self.cores.or(other.cores),
            keep: self.keep.or(other.keep),
            bytes: self.bytes.or(other.bytes),
            min_free: self.min_free.or(other.min_free),
            rate: self.rate.or(other.rate),
            burst: self.burst.or(other.burst),
            stall: self.stall.or(other.stall),
            records: self.records.or(other.records),
        }
    }

    /// These limits with `concurrent` set in any case: the default applies where it is not set. For
    /// users who can stop the process that writes on their behalf, or make it hang, and could
    /// otherwise have any number of processes wait.
    pub fn with_slots(self) -> Self {
        let concurrent = Self::nonzero(self.concurrent).or(Self::defaults().concurrent);
        Limits { concurrent, ..self }
    }

    /// These limits, lowered by a container's annotation: a value of its own counts only where it
    /// is lower. Which of its cores are kept (`keep`) is the container's own choice.
    pub fn lowered(&self, own: &Limits) -> Self {
        let tighter = |all: Option<Rate>, own: Option<Rate>| match (all, own) {
            (Some(a), Some(o)) => Some(
                if u128::from(o.count) * u128::from(a.seconds)
                    < u128::from(a.count) * u128::from(o.seconds)
                {
                    o
                } else {
                    a
                },
            ),
            (a, o) => a.or(o),
        };
        Limits {
            concurrent: lower(self.concurrent, own.concurrent),
            host_concurrent: self.host_concurrent,
            min_memory: self.min_memory,
            wait: match (self.wait, own.wait) {
                (Some(a), Some(o)) => Some(a.min(o)),
                (a, _) => a,
            },
            cores: lower(self.cores, own.cores),
            keep: own.keep.or(self.keep),
            bytes: lower(self.most_bytes(), own.most_bytes()).map(Limit::Finite),
            min_free: self.min_free,
            rate: tighter(self.rate, own.rate),
            burst: lower(self.burst, own.burst.or(own.rate.map(|r| r.count))),
            stall: lower(self.stall, own.stall),
            records: self.records,
        }
    }

    /// Reads an annotation's value: `cores=3, keep=first-and-newest, bytes=2Gi, rate=10/min`.
    ///
    /// # Errors
    /// Names the word and the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self> {
        let mut limits = Limits::default();
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .with_context(|| format!("{part:?}: expected words like cores=3, bytes=2Gi"))?;
            let (key, value) = (key.trim(), value.trim());
            let number = || {
                value.parse::<u64>().with_context(|| {
                    format!(
                        "{key}={value}: expected a whole number; 0 is no limit (no waiting, for \
                         wait)"
                    )
                })
            };
            let named = || format!("{key}={value}");
            match key {
                "concurrent" => limits.concurrent = Some(number()?),
                "wait" => limits.wait = Some(number()?),
                "cores" => limits.cores = Some(number()?),
                "keep" => {
                    limits.keep = Some(match value {
                        "newest" => Keep::Newest,
                        "first-and-newest" => Keep::FirstAndNewest,
                        "oldest" => Keep::Oldest,
                        _ => bail!("keep={value}: expected newest, first-and-newest or oldest"),
                    })
                }
                "bytes" => limits.bytes = Some(value.parse().with_context(named)?),
                "rate" => limits.rate = Some(Rate::try_from(value.to_owned()).with_context(named)?),
                "burst" => limits.burst = Some(number()?),
                "stall" => limits.stall = Some(number()?),
                "min_free" | "min_memory" | "host_concurrent" | "records" => {
                    bail!("{key} is the host's, and set in its configuration only")
                }
                _ => bail!(
                    "{key:?}: expected concurrent, wait, cores, keep, bytes, rate, burst or stall"
                ),
            }
        }
        Ok(limits)
    }

    /// Most bytes of all kept cores, if there is such a limit: neither 0 nor `unlimited` is one.
    pub(crate) fn most_bytes(&self) -> Option<u64> {
        Self::nonzero(self.bytes.and_then(Limit::finite))
    }

    /// A limit that is set; 0 counts as not set.
    pub fn nonzero(number: Option<u64>) -> Option<u64> {
        number.filter(|n| *n > 0)
    }
}

/// The lower of two limits, where 0 and `None` mean no limit.
fn lower(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (Limits::nonzero(a), Limits::nonzero(b)) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (x, y) => x.or(y).or(a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_only_lowers() {
        let all = Limits {
            cores: Some(10),
            rate: Some(Rate { count: 10, seconds: 60 }),
            bytes: Some(Limit::Finite(1 << 30)),
            ..Limits::defaults()
        };
        let with = |text: &str| all.lowered(&Limits::parse(text).unwrap());
        let (low, high) = (
            with("cores=3, bytes=1Mi, rate=1/min, concurrent=2, stall=5, wait=0"),
            with("cores=30,bytes=2Gi,rate=20/min,concurrent=0,stall=0,wait=99"),
        );
        assert_eq!(
            (low.cores, low.bytes, low.rate.unwrap().to_string().as_str()),
            (Some(3), Some(Limit::Finite(1 << 20)), "1/min")
        );
        assert_eq!((low.concurrent, low.stall, low.wait), (Some(2), Some(5), Some(0)));
        assert_eq!(Limits { burst: None, ..high }, all);
        assert_eq!(with("rate=500/h").rate, Some(Rate { count: 500, seconds: 3600 }));
        let burst = |text: &str| {
            Limits { burst: Some(50), ..all.clone() }.lowered(&Limits::parse(text).unwrap()).burst
        };
        assert_eq!(
            (
                burst("cores=1"),
                burst("rate=2/min"),
                burst("rate=2/min, burst=4"),
                burst("burst=99")
            ),
            (Some(50), Some(2), Some(4), Some(50))
        );
        // A container's entry cannot change the limits that only the host sets.
        let greedy = Limits {
            host_concurrent: Some(9999),
            min_memory: Some(Free::default()),
            min_free: Some(Free::default()),
            ..Limits::default()
        };
        assert_eq!(all.lowered(&greedy), all);
        assert_eq!(with("keep=first-and-newest").keep, Some(Keep::FirstAndNewest));
        // What the administrator does not limit, the container may limit.
        assert_eq!(Limits::default().lowered(&Limits::parse("cores=3").unwrap()).cores, Some(3));
    }

    #[test]
    fn bad_words_are_named() {
        for (text, names) in [
            ("", "expected words"),
            ("cores", "cores"),
            ("cores=-1", "cores=-1"),
            ("keep=all", "keep=all"),
            ("rate=0/min", "rate=0/min"),
            ("rate=5/week", "rate=5/week"),
            ("bytes=2X", "bytes=2X"),
            ("min_free=0", "min_free"),
            ("host_concurrent=1000", "host_concurrent"),
            ("core=1", "\"core\""),
        ] {
            let e = format!("{:#}", Limits::parse(text).unwrap_err());
            assert!(e.contains(names), "{text}: {e}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let limits = Limits {
            bytes: Some(Limit::Finite(3 << 20)),
            rate: Some(Rate { count: 7, seconds: 3600 }),
            keep: Some(Keep::FirstAndNewest),
            ..Limits::defaults()
        };
        let text = serde_json::to_string(&limits).unwrap();
        assert!(
            text.contains("\"3Mi\"")
                && text.contains("\"7/h\"")
                && text.contains("\"5%, 1Gi\"")
                && text.contains("first-and-newest"),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Limits>(&text).unwrap(), limits);
    }
}
