//! Reads the annotations by which a container requests a core pattern, in this project's own keys
//! and in those of several cloud providers. Pure.
//!
//! In: the annotations of a bundle. Out: checked [`Wishes`] with notes for the log, or an error
//! that names the value refused.

use crate::bytes::Limit;
use crate::limits::Limits;
use crate::pattern::Pattern;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Annotations of a bundle.
pub(crate) type Annotations = BTreeMap<String, String>;

/// A container's request, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// The annotation that the pattern came from, or `default_pattern`.
    pub key: String,
    /// The pattern.
    pub pattern: Pattern,
    /// Most bytes of one core. `None`: the container did not say.
    pub limit: Option<Limit>,
    /// `coredump_filter` mask, 0 to 0x1ff.
    pub filter: Option<u32>,
    /// Compress cores with zstd while they are written.
    pub compress: bool,
    /// Release the crashed process before its core is complete.
    pub early: bool,
    /// Whether its crashes may be uploaded.
    pub upload: bool,
    /// Limits of the container's own. They count only where they are lower than the host's.
    pub limits: Limits,
    /// What was ignored and why, one line each, for the log.
    pub notes: Vec<String>,
}

const PATTERN: &str = "oci-coredump/pattern";
const LIMIT: &str = "oci-coredump/limit";
const FILTER: &str = "oci-coredump/filter";
const COMPRESS: &str = "oci-coredump/compress";
const RELEASE: &str = "oci-coredump/release";
const UPLOAD: &str = "oci-coredump/upload";
const LIMITS: &str = "oci-coredump/limits";
const REQUIRED: &str = "oci-coredump/required";
const HUAWEI: &str = "system.cci.io/coredump";
const STARLINGX_SIZE: &str = "starlingx.io/core_max_size";

/// The keys whose value is a pattern, in order of precedence: the first that is present wins.
/// Huawei's, the fourth, has JSON as its value.
const PATTERN_KEYS: [&str; 6] = [
    PATTERN,
    "k8s.aliyun.com/eci-core-pattern",
    "alibabacloud.com/core-pattern",
    HUAWEI,
    "bci.virtual-kubelet.io/core-pattern",
    "starlingx.io/core_pattern",
];

/// StarlingX's other keys. They are accepted; a note in the log says that they are ignored.
const STARLINGX_OTHERS: [&str; 3] =
    ["starlingx.io/core_compression", "starlingx.io/core_max_used", "starlingx.io/core_min_free"];

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
    STARLINGX_OTHERS[0],
    STARLINGX_OTHERS[1],
    STARLINGX_OTHERS[2],
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
/// Names the annotation, its value and the rule that it breaks.
pub(crate) fn wishes(
    all: &Annotations,
    container: Option<&str>,
    default: Option<&Pattern>,
) -> Result<Option<Wishes>> {
    let view = View { all, container };
    let mut found: Vec<(String, String)> = Vec::new();
    let mut huawei = None;
    for key in PATTERN_KEYS {
        let Some((key, value)) = view.find(key) else { continue };
        if key == HUAWEI {
            let parsed: Huawei = serde_json::from_str(value).with_context(|| {
                format!("{key} = {value:?}: expected JSON like {{\"core_pattern\": \"/d/core\"}}")
            })?;
            if let Some(p) = &parsed.core_pattern {
                found.push((key, p.clone()));
            }
            huawei = Some(parsed);
        } else {
            found.push((key, value.to_owned()));
        }
    }
    if found.is_empty() {
        found.extend(default.map(|p| ("default_pattern".to_owned(), p.to_string())));
    }
    let Some((key, text)) = found.first().cloned() else { return Ok(None) };
    let pattern: Pattern = text.parse().with_context(|| format!("{key} = {text:?}"))?;

    let mut notes = Vec::new();
    for (other, value) in found.iter().skip(1).filter(|(_, v)| *v != text) {
        notes.push(format!(
            "{other} = {value:?} disagrees with {key} = {text:?}, ignoring the former"
        ));
    }
    for other in STARLINGX_OTHERS
        .iter()
        .filter(|k| key == "starlingx.io/core_pattern" && all.contains_key(**k))
    {
        notes.push(format!("{other} has no counterpart here, ignoring"));
    }
    if let Some((k, v)) = view.find(REQUIRED) {
        ensure!(matches!(v, "true" | "false"), "{k} = {v:?}: expected true or false");
    }
    let limit = match (view.find(LIMIT), &huawei, view.find(STARLINGX_SIZE)) {
        (Some((k, v)), _, _) => Some(v.parse().with_context(|| format!("{k} = {v:?}"))?),
        (None, Some(h), _) if key == HUAWEI => Some(Limit::Finite(
            h.max_size
                .unwrap_or(1024)
                .checked_mul(1 << 20)
                .with_context(|| format!("{HUAWEI}: max_size is too large"))?,
        )),
        // StarlingX: 0 means no limit, and a percentage of the disk is valid
        // but has no counterpart here.
        (None, _, Some((k, v))) if key.starts_with("starlingx.io/") => match v.parse() {
            Ok(Limit::Finite(0)) => Some(Limit::Unlimited),
            Ok(limit) => Some(limit),
            Err(e) => {
                notes.push(format!(
                    "{k} = {v:?}: {e:#}, going on without a limit of the container's"
                ));
                None
            }
        },
        _ => None,
    };
    let filter = view
        .find(FILTER)
        .map(|(k, v)| mask(v).with_context(|| format!("{k} = {v:?}")))
        .transpose()?;
    let compress = choice(&view, COMPRESS, ["none", "zstd"])?;
    let early = choice(&view, RELEASE, ["complete", "early"])?;
    let upload = match view.find(UPLOAD) {
        None | Some((_, "true")) => true,
        Some((k, v)) => {
            // What leaves the node is never guessed, and no reason to go without cores.
            if v != "false" {
                notes.push(format!("{k} = {v:?}: expected true or false, taking it for false"));
            }
            false
        }
    };
    notes.extend(unknown(all));
    let limits = view
        .find(LIMITS)
        .map(|(k, v)| Limits::parse(v).with_context(|| format!("{k} = {v:?}")))
        .transpose()?
        .unwrap_or_default();
    Ok(Some(Wishes { key, pattern, limit, filter, compress, early, upload, limits, notes }))
}

/// The settings that a container may give in our own keys.
pub(crate) const SETTINGS: [&str; 8] =
    ["pattern", "limit", "filter", "compress", "release", "upload", "limits", "required"];

/// One line for each key of ours that names no setting: most likely it is misspelt, and the
/// container does not get what it asked for.
pub(crate) fn unknown(all: &Annotations) -> Vec<String> {
    let setting = |key: &str| {
        let (before, setting) = key.split_once("oci-coredump/")?;
        let ours = before.is_empty() || before.ends_with('.');
        (ours && !SETTINGS.contains(&setting)).then(|| setting.to_owned())
    };
    let line = |key: &String| {
        let setting = setting(key)?;
        let near = SETTINGS.iter().min_by_key(|known| distance(known, &setting));
        let hint = near.filter(|known| distance(known, &setting) <= 2);
        let hint = hint.map(|known| format!(" (did you mean `{known}`?)")).unwrap_or_default();
        Some(format!("{key}: there is no such setting{hint}, ignoring"))
    };
    all.keys().filter_map(line).take(8).collect()
}

/// Edit distance of two words: how many letters must be changed, inserted or deleted. 9 stands for
/// 9 or more where the lengths differ by more than 8.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 8 {
        return 9;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut last = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let new = (last + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            last = std::mem::replace(&mut row[j + 1], new);
        }
    }
    row[b.len()]
}

/// A value that must be one of two words, the first being the default. `true` for the second.
fn choice(view: &View<'_>, key: &str, words: [&str; 2]) -> Result<bool> {
    match view.find(key) {
        None => Ok(false),
        Some((k, v)) => {
            ensure!(words.contains(&v), "{k} = {v:?}: expected {} or {}", words[0], words[1]);
            Ok(v == words[1])
        }
    }
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
