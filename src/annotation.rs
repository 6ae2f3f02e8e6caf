//! Reads the annotations by which a container requests a core pattern, in this project's own keys
//! and in those of several cloud providers. Pure.
//!
//! In: the annotations of a bundle. Out: checked [`Wishes`] with notes for the log, or an error
//! that names each value refused.

mod own_keys;

#[cfg(test)]
pub(crate) use own_keys::SETTINGS;
pub(crate) use own_keys::unknown;

use crate::bytes::Limit;
use crate::config::KeptMemory;
use crate::limits::{DiskShare, Free, Limits};
use crate::name_conflict::Existing;
use crate::pattern::Pattern;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// Annotations of a bundle.
pub(crate) type Annotations = BTreeMap<String, String>;

/// The annotations of a config.json. Nothing else of it is read: most containers request nothing.
///
/// # Errors
/// It is no JSON, or its annotations are no texts.
pub(crate) fn of_config_json(text: &[u8]) -> Result<Annotations> {
    #[derive(Deserialize)]
    struct Only {
        annotations: Option<Annotations>,
    }
    let only: Only = serde_json::from_slice(text).context("config.json")?;
    Ok(only.annotations.unwrap_or_default())
}

/// A container's request, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// The annotation that the pattern came from, or `default_pattern`.
    pub key: String,
    pub pattern: Pattern,
    /// Most bytes of one core. `None`: the container did not say.
    pub limit: Option<Limit>,
    /// `coredump_filter` mask, 0 to 0x1ff.
    pub filter: Option<u32>,
    /// Compress cores with zstd while they are written.
    pub compress: bool,
    /// Release the crashed process before its core is complete.
    pub early_release: bool,
    /// What happens where a core's name exists already. `None`: the container did not say.
    pub existing: Option<Existing>,
    /// How much of the memory its cores keep. `None`: the container did not say.
    pub keep: Option<KeptMemory>,
    /// Whether its crashes may be uploaded.
    pub upload: bool,
    /// Bounds by the size of the file system that the cores are on.
    pub share: DiskShare,
    /// Limits of the container's own. They count only where they are lower than the host's.
    pub limits: Limits,
    /// What was ignored and why, one line each, for the log.
    pub notes: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug, Default)]
pub(crate) struct BrokenRules {
    /// Every rule that it breaks, with the annotation and its value.
    pub rules: Vec<anyhow::Error>,
    /// What would have been ignored and why, as in [`Wishes`].
    pub notes: Vec<String>,
    /// Whether settings beside the pattern are among the rules.
    is_strict: bool,
}

impl BrokenRules {
    /// The value, unless a rule is broken.
    fn take<T>(&mut self, value: Result<T>) -> Option<T> {
        value.map_err(|rule| self.rules.push(rule)).ok()
    }

    fn note(&mut self, line: String) {
        self.notes.push(line);
    }

    /// The value of a setting beside the pattern. One that breaks its rule costs no cores: it has
    /// its default, and a note says so, unless the container must not start without all that it
    /// asks for.
    fn good<T>(&mut self, key: &str, value: &str, parsed: Result<T>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(why) if self.is_strict => self.take(Err(why.context(format!("{key} = {value:?}")))),
            Err(why) => {
                self.note(format!("{key} = {value:?}: {why:#}, going on with the default"));
                None
            }
        }
    }

    /// The same of a setting of the container's, if it has it.
    fn setting<T>(
        &mut self,
        view: &View<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T>,
    ) -> Option<T> {
        let (key, value) = view.find(key)?;
        self.good(&key, value, parse(value))
    }
}

impl From<anyhow::Error> for BrokenRules {
    fn from(rule: anyhow::Error) -> Self {
        BrokenRules { rules: vec![rule], ..BrokenRules::default() }
    }
}

impl fmt::Display for BrokenRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<String> = self.rules.iter().map(|rule| format!("{rule:#}")).collect();
        f.write_str(&rules.join("; "))
    }
}

impl std::error::Error for BrokenRules {}

const PATTERN: &str = "oci-coredump/pattern";
const LIMIT: &str = "oci-coredump/limit";
const FILTER: &str = "oci-coredump/filter";
const COMPRESS: &str = "oci-coredump/compress";
const RELEASE: &str = "oci-coredump/release";
const EXISTING: &str = "oci-coredump/existing";
const KEEP: &str = "oci-coredump/keep";
const UPLOAD: &str = "oci-coredump/upload";
const LIMITS: &str = "oci-coredump/limits";
const REQUIRED: &str = "oci-coredump/required";
const HUAWEI: &str = "system.cci.io/coredump";
const STARLINGX: &str = "starlingx.io/core_pattern";
const STARLINGX_SIZE: &str = "starlingx.io/core_max_size";
const STARLINGX_USED: &str = "starlingx.io/core_max_used";
const STARLINGX_FREE: &str = "starlingx.io/core_min_free";
const STARLINGX_COMPRESSION: &str = "starlingx.io/core_compression";

/// The keys whose value is a pattern, in order of precedence: the first that is present wins.
/// Huawei's, the fourth, has JSON as its value.
const PATTERN_KEYS: [&str; 6] = [
    PATTERN,
    "k8s.aliyun.com/eci-core-pattern",
    "alibabacloud.com/core-pattern",
    HUAWEI,
    "bci.virtual-kubelet.io/core-pattern",
    STARLINGX,
];

/// Huawei CCI's value. `max_size` is in MiB and defaults to 1024, according to their documentation.
#[derive(Deserialize)]
struct Huawei {
    core_pattern: Option<String>,
    max_size: Option<u64>,
}

/// The annotations as one container of a pod sees them: `<container>.oci-coredump/<setting>` takes
/// precedence over `oci-coredump/<setting>`.
struct View<'a> {
    all: &'a Annotations,
    container: Option<&'a str>,
}

impl<'a> View<'a> {
    fn find(&self, key: &str) -> Option<(String, &'a str)> {
        let own = self
            .container
            .filter(|_| key.starts_with("oci-coredump/"))
            .map(|c| format!("{c}.{key}"));
        let hit = |k: String| self.all.get(&k).map(|v| (k, v.as_str()));
        own.and_then(hit).or_else(|| hit(key.to_owned()))
    }
}

/// The keys of other projects that are read here.
pub(crate) const FOREIGN: [&str; 9] = [
    PATTERN_KEYS[1],
    PATTERN_KEYS[2],
    HUAWEI,
    PATTERN_KEYS[4],
    PATTERN_KEYS[5],
    STARLINGX_SIZE,
    STARLINGX_USED,
    STARLINGX_FREE,
    STARLINGX_COMPRESSION,
];

/// Whether a key is read here, for any container of the pod: a setting of
/// ours or one of [`FOREIGN`].
pub(crate) fn is_own(key: &str) -> bool {
    key.starts_with("oci-coredump/") || key.contains(".oci-coredump/") || FOREIGN.contains(&key)
}

/// Whether this is a pod's sandbox container, which runs no program of the pod.
pub(crate) fn is_sandbox(all: &Annotations) -> bool {
    let is = |key: &str| all.get(key).map(String::as_str) == Some("sandbox");
    is("io.kubernetes.cri.container-type") || is("io.kubernetes.cri-o.ContainerType")
}

/// Whether the container must not start without its core pattern: `oci-coredump/required`. A value
/// that is neither `true` nor `false` counts as `true`; [`wishes`] then refuses it.
pub(crate) fn required(all: &Annotations, container: Option<&str>) -> bool {
    View { all, container }.find(REQUIRED).is_some_and(|(_, v)| v != "false")
}

/// Reads what a container requests; `None` if it requests nothing. `default` is the administrator's
/// pattern for containers that request none.
///
/// # Errors
/// Names each annotation that breaks a rule, its value and the rule.
pub(crate) fn wishes(
    all: &Annotations,
    container: Option<&str>,
    default: Option<&Pattern>,
) -> Result<Option<Wishes>, BrokenRules> {
    let is_strict = required(all, container);
    let mut broken = BrokenRules { is_strict, ..BrokenRules::default() };
    let view = View { all, container };
    let (found, huawei) = patterns(&view, default, &mut broken);
    if found.is_empty() && broken.rules.is_empty() {
        return Ok(None);
    }
    let (key, text) = found.first().cloned().unwrap_or_default();
    let pattern = found.first().and_then(|(key, text)| {
        let own = if key == STARLINGX { of_starlingx(text) } else { text.clone() };
        let parsed = own.parse::<Pattern>();
        broken.take(parsed.with_context(|| format!("{key} = {text:?}")))
    });
    for (other, value) in found.iter().skip(1).filter(|(_, v)| *v != text) {
        broken.note(format!(
            "{other} = {value:?} disagrees with {key} = {text:?}, ignoring the former"
        ));
    }
    if let Some((k, v)) = view.find(REQUIRED) {
        broken.take(choice(v, ["true", "false"]).with_context(|| format!("{k} = {v:?}")));
    }
    let limit = limit(&view, &key, huawei.as_ref(), &mut broken);
    let mut share = match key == STARLINGX {
        true => starlingx_share(&view, &mut broken),
        false => DiskShare::default(),
    };
    // A size in bytes is the process's limit, as with the other keys.
    let bytes = share.max_size.take_if(|size| size.percent.is_none()).and_then(|size| size.bytes);
    let size = bytes.map(|bytes| if bytes == 0 { Limit::Unlimited } else { Limit::Finite(bytes) });
    let limit = limit.or(size);
    let filter = broken.setting(&view, FILTER, mask);
    let compress = broken.setting(&view, COMPRESS, |v| choice(v, ["none", "zstd"]));
    let release = broken.setting(&view, RELEASE, |v| choice(v, ["complete", "early"]));
    let existing = broken.setting(&view, EXISTING, |v| {
        Ok(Existing::ALL[choice(v, Existing::ALL.map(Existing::as_str))?])
    });
    let keep = broken.setting(&view, KEEP, |v| {
        Ok(KeptMemory::ALL[choice(v, KeptMemory::ALL.map(KeptMemory::as_str))?])
    });
    let limits = broken.setting(&view, LIMITS, Limits::parse).unwrap_or_default();
    let upload = upload(&view, &mut broken);
    broken.notes.extend(unknown(all));
    match pattern.filter(|_| broken.rules.is_empty()) {
        Some(pattern) => Ok(Some(Wishes {
            key,
            pattern,
            limit,
            filter,
            compress: compress == Some(1),
            early_release: release == Some(1),
            existing,
            keep,
            upload,
            share,
            limits,
            notes: broken.notes,
        })),
        None => Err(broken),
    }
}

/// The patterns that are asked for, by their keys, the one that counts first; and the whole of
/// Huawei's value.
fn patterns(
    view: &View<'_>,
    default: Option<&Pattern>,
    broken: &mut BrokenRules,
) -> (Vec<(String, String)>, Option<Huawei>) {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut huawei = None;
    for key in PATTERN_KEYS {
        let Some((key, value)) = view.find(key) else { continue };
        if key == HUAWEI {
            let parsed = serde_json::from_str::<Huawei>(value).with_context(|| {
                format!("{key} = {value:?}: expected JSON like {{\"core_pattern\": \"/d/core\"}}")
            });
            huawei = broken.take(parsed);
            found
                .extend(huawei.iter().filter_map(|h| Some((key.clone(), h.core_pattern.clone()?))));
        } else {
            found.push((key, value.to_owned()));
        }
    }
    if found.is_empty() && broken.rules.is_empty() {
        found.extend(default.map(|p| ("default_pattern".to_owned(), p.to_string())));
    }
    (found, huawei)
}

/// Most bytes of one core; `key`: of the pattern that counts.
fn limit(
    view: &View<'_>,
    key: &str,
    huawei: Option<&Huawei>,
    broken: &mut BrokenRules,
) -> Option<Limit> {
    match (view.find(LIMIT), huawei) {
        (Some((k, v)), _) => broken.good(&k, v, v.parse()),
        (None, Some(h)) if key == HUAWEI => {
            let mib = h.max_size.unwrap_or(1024);
            let bytes = mib.checked_mul(1 << 20).context("max_size is too large");
            broken.good(key, &format!("max_size {mib}"), bytes).map(Limit::Finite)
        }
        _ => None,
    }
}

/// Whether the crash may be uploaded. What leaves the node is never guessed, and no reason to go
/// without cores.
fn upload(view: &View<'_>, broken: &mut BrokenRules) -> bool {
    match view.find(UPLOAD) {
        None | Some((_, "true")) => true,
        Some((k, v)) => {
            if v != "false" {
                broken.note(format!("{k} = {v:?}: expected true or false, taking it for false"));
            }
            false
        }
    }
}

/// StarlingX's pattern in core(5)'s letters. Its handler takes letters of either case; those that
/// core(5) does not know in upper case are in lower case here.
fn of_starlingx(text: &str) -> String {
    let mut out = String::new();
    let mut is_specifier = false;
    for c in text.chars() {
        out.push(if is_specifier && "UGSTH".contains(c) { c.to_ascii_lowercase() } else { c });
        is_specifier = c == '%' && !is_specifier;
    }
    out
}

/// StarlingX's bounds: bytes or a percentage of the file system, 0 for none.
fn starlingx_share(view: &View<'_>, broken: &mut BrokenRules) -> DiskShare {
    let size = |v: &str| Free::try_from(v.to_owned());
    if let Some((k, v)) = view.find(STARLINGX_COMPRESSION).filter(|(_, v)| *v != "none") {
        broken.note(format!(
            "{k} = {v:?}: not compressed; here this is oci-coredump/compress: zstd, ignoring"
        ));
    }
    DiskShare {
        max_size: broken.setting(view, STARLINGX_SIZE, size),
        max_used: broken.setting(view, STARLINGX_USED, size),
        min_free: broken.setting(view, STARLINGX_FREE, size),
    }
}

/// Which of these words a value is.
fn choice<const N: usize>(value: &str, words: [&str; N]) -> Result<usize> {
    let at = words.iter().position(|word| *word == value);
    let (last, others) = words.split_last().context("no words")?;
    at.with_context(|| format!("expected {} or {last}", others.join(", ")))
}

/// A `coredump_filter` mask, hexadecimal with `0x` or decimal; core(5) knows bits 0 to 8.
fn mask(text: &str) -> Result<u32> {
    let value = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    let value = value.ok().context("expected a mask like 0x33")?;
    ensure!(value <= 0x1ff, "core(5) knows the bits 0x1 to 0x100 only");
    Ok(value)
}

#[cfg(test)]
mod tests;
