//! The text of a configuration of containerd: what it says of runtimes and NRI, and edits of it.

use crate::config;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, value};

/// The table of its configuration for NRI.
pub(super) const NRI_TABLE: &str = "io.containerd.nri.v1.nri";

/// File name of our drop-in.
pub(super) const DROP_IN: &str = "oci-coredump.toml";

const RUNC: &str = "io.containerd.runc.v2";

/// The annotations that must reach the hook, as containerd's patterns, in which
/// `*` does not match a `/`.
pub(super) const ANNOTATIONS: [&str; 7] = [
    "oci-coredump/*",
    "*.oci-coredump/*",
    "k8s.aliyun.com/eci-core-pattern",
    "alibabacloud.com/core-pattern",
    "system.cci.io/coredump",
    "bci.virtual-kubelet.io/core-pattern",
    "starlingx.io/core_*",
];
pub(super) const LISTS: [&str; 2] = ["pod_annotations", "container_annotations"];
pub(super) const BASE: &str = "base_runtime_spec";

/// The name of the plugin that runs pods.
pub(super) fn cri(version: i64) -> &'static str {
    if version >= 3 { "io.containerd.cri.v1.runtime" } else { "io.containerd.grpc.v1.cri" }
}

/// Path of our base specification for a runtime.
pub(super) fn base_path(runtime: &str) -> Result<PathBuf> {
    ensure!(
        runtime.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
        "runtime {runtime:?}: not a name for a file"
    );
    Ok(Path::new(config::PATH).with_file_name(format!("containerd-base-{runtime}.json")))
}

/// A runtime that gets a base specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runtime {
    /// Its name in the configuration.
    pub name: String,
    /// The base specification that the administrator configured for it before.
    pub base: Option<PathBuf>,
}

pub(super) fn parse(text: &str) -> Result<DocumentMut> {
    text.parse::<DocumentMut>().map_err(|e| {
        let line = e.span().map_or(0, |s| {
            text.as_bytes()[..s.start.min(text.len())].iter().filter(|b| **b == b'\n').count()
        });
        anyhow::anyhow!("line {}: {}", line + 1, e.message())
    })
}

/// The version in the text of a configuration.
pub(crate) fn version(text: &str) -> Result<Option<i64>> {
    Ok(parse(text)?.get("version").and_then(Item::as_integer))
}

/// The table at a path below `item`, if it exists.
pub(super) fn find<'a>(doc: &'a DocumentMut, path: &[&str]) -> Option<&'a dyn TableLike> {
    path.iter().try_fold(doc.as_item(), |item, key| item.get(key)).and_then(Item::as_table_like)
}

/// The table at a path, made if it does not exist.
fn make<'a>(doc: &'a mut DocumentMut, path: &[&str]) -> Result<&'a mut dyn TableLike> {
    let mut table: &mut dyn TableLike = doc.as_table_mut();
    for (i, key) in path.iter().enumerate() {
        let item = table.entry(key).or_insert_with(|| {
            let mut new = Table::new();
            new.set_implicit(i + 1 < path.len());
            Item::Table(new)
        });
        table = item
            .as_table_like_mut()
            .with_context(|| format!("{}: expected a table", path[..=i].join(".")))?;
    }
    Ok(table)
}

/// The runtimes of a configuration that start native containers with runc's shim,
/// at least the default one.
pub(crate) fn runtimes(text: &str, version: i64) -> Result<Vec<Runtime>> {
    let doc = parse(text)?;
    let mut out = Vec::new();
    for (name, item) in find(&doc, &["plugins", cri(version), "containerd", "runtimes"])
        .iter()
        .flat_map(|t| t.iter())
    {
        let text = |key: &str| item.get(key).and_then(Item::as_str);
        if matches!(text("runtime_type"), None | Some(RUNC)) {
            let own = base_path(name)?;
            let base =
                text(BASE).filter(|b| !b.is_empty()).map(PathBuf::from).filter(|b| *b != own);
            out.push(Runtime { name: name.to_owned(), base });
        }
    }
    if out.is_empty() {
        out.push(Runtime { name: "runc".into(), base: None });
    }
    Ok(out)
}

/// Gives runtimes our base specification, and passes the annotations through to them. `from`: the
/// text with their present lists, if that is another file.
///
/// # Errors
/// The text is not a configuration of containerd.
pub(crate) fn add(text: &str, from: &str, version: i64, runtimes: &[Runtime]) -> Result<String> {
    let mut doc = parse(text)?;
    let other = parse(from)?;
    if doc.get("version").is_none() {
        doc.insert("version", value(version));
    }
    for runtime in runtimes {
        let path = ["plugins", cri(version), "containerd", "runtimes", &runtime.name];
        let table = make(&mut doc, &path)?;
        if table.get("runtime_type").is_none() {
            table.insert("runtime_type", value(RUNC));
        }
        table.insert(BASE, value(base_path(&runtime.name)?.to_str().context("not UTF-8")?));
        for list in LISTS {
            if let (None, Some(theirs)) =
                (table.get(list), find(&other, &path).and_then(|t| t.get(list)))
            {
                table.insert(list, theirs.clone());
            }
            let array = table
                .entry(list)
                .or_insert(value(Array::new()))
                .as_array_mut()
                .with_context(|| format!("{list}: expected a list"))?;
            for pattern in ANNOTATIONS {
                if !array.iter().any(|v| v.as_str() == Some(pattern)) {
                    array.push(pattern);
                }
            }
        }
    }
    Ok(doc.to_string())
}

/// Makes the main file import the drop-ins of a directory; `None` if it does already.
pub(crate) fn import(text: &str, pattern: &str, by_default: bool) -> Result<Option<String>> {
    let mut doc = parse(text)?;
    if doc.get("imports").is_none() {
        if by_default {
            return Ok(None);
        }
        doc.insert("imports", value(Array::new()));
    }
    let list = doc["imports"].as_array_mut().context("imports: expected a list")?;
    if list.iter().any(|v| v.as_str() == Some(pattern)) {
        return Ok(None);
    }
    list.push(pattern);
    if doc.get("version").is_none() {
        doc.insert("version", value(3));
    }
    Ok(Some(doc.to_string()))
}

/// Enables NRI; `None` if it is enabled. `by_default`: whether it is enabled when nothing is set.
pub(crate) fn enable_nri(text: &str, by_default: bool) -> Result<Option<String>> {
    let mut doc = parse(text)?;
    let said =
        find(&doc, &["plugins", NRI_TABLE]).and_then(|t| t.get("disable")).and_then(Item::as_bool);
    if !said.unwrap_or(!by_default) {
        return Ok(None);
    }
    make(&mut doc, &["plugins", NRI_TABLE])?.insert("disable", value(false));
    Ok(Some(doc.to_string()))
}

/// Removes what [`add`] and [`enable_nri`] added. Where `before` had
/// another value, that is put back.
///
/// # Errors
/// The text is not a configuration of containerd.
pub(crate) fn remove(text: &str, before: Option<&str>) -> Result<String> {
    let mut doc = parse(text)?;
    let old = parse(before.unwrap_or_default())?;
    for version in [2, 3] {
        let Some(all) = find(&doc, &["plugins", cri(version), "containerd", "runtimes"]) else {
            continue;
        };
        let names: Vec<String> = all.iter().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let path = ["plugins", cri(version), "containerd", "runtimes", &name];
            let had = find(&old, &path);
            let table = make(&mut doc, &path)?;
            if table.get(BASE).and_then(Item::as_str).map(Path::new)
                == base_path(&name).ok().as_deref()
            {
                match had.and_then(|t| t.get(BASE)) {
                    Some(base) => drop(table.insert(BASE, base.clone())),
                    None => drop(table.remove(BASE)),
                }
            }
            for key in LISTS {
                let theirs = had.and_then(|t| t.get(key)).and_then(Item::as_array);
                let keep = |v: &toml_edit::Value| {
                    theirs.is_some_and(|t| t.iter().any(|o| o.as_str() == v.as_str()))
                };
                let Some(list) = table.get_mut(key).and_then(Item::as_array_mut) else { continue };
                list.retain(|v| !v.as_str().is_some_and(|s| ANNOTATIONS.contains(&s)) || keep(v));
                if list.is_empty() && theirs.is_none() {
                    table.remove(key);
                }
            }
            // A table that only we added.
            if had.is_none()
                && table.len() == 1
                && table.get("runtime_type").and_then(Item::as_str) == Some(RUNC)
            {
                make(&mut doc, &path[..4])?.remove(&name);
            }
        }
    }
    let disabled = find(&old, &["plugins", NRI_TABLE]).and_then(|t| t.get("disable")).cloned();
    if let (Some(disabled), true) = (disabled, find(&doc, &["plugins", NRI_TABLE]).is_some()) {
        make(&mut doc, &["plugins", NRI_TABLE])?.insert("disable", disabled);
    }
    Ok(doc.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patterns_let_every_key_through() {
        // Go's path.Match, as far as these patterns need it.
        let matches = |pattern: &str, key: &str| {
            let (p, k): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), key.split('/').collect());
            p.len() == k.len()
                && p.iter().zip(&k).all(|(p, k)| match p.split_once('*') {
                    Some((start, end)) => {
                        k.len() >= start.len() + end.len()
                            && k.starts_with(start)
                            && k.ends_with(end)
                    }
                    None => p == k,
                })
        };
        for key in crate::annotation::FOREIGN.into_iter().chain([
            "oci-coredump/pattern",
            "oci-coredump/new",
            "app.oci-coredump/pattern",
        ]) {
            assert!(ANNOTATIONS.iter().any(|p| matches(p, key)), "{key}");
        }
        assert!(!ANNOTATIONS.iter().any(|p| matches(p, "kubernetes.io/config.source")));
    }
}
