//! What a configuration of containerd, with its drop-ins, says now.

use super::document::{
    ANNOTATIONS, BASE, DROP_IN, LISTS, NRI_TABLE, base_path, cri, enable_nri, find, parse,
};
use super::programs::{ask, release};
use crate::engine::change;
use crate::engine::nri::{self, NriInUse};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use toml_edit::Item;

/// What a configuration contains that concerns us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuntimesInUse {
    pub nri: NriInUse,
    /// The runtimes of its CRI plugin.
    pub runtimes: Vec<CriRuntime>,
}

/// A runtime of the CRI plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CriRuntime {
    pub name: String,
    /// Its base specification, if it is ours.
    pub base: Option<PathBuf>,
    /// Our annotations that one of its lists does not pass through.
    pub missing: Vec<&'static str>,
}

/// Reads a configuration with its drop-ins. `usual`: whether the program at the usual path reads
/// it.
///
/// # Errors
/// The text is not a configuration of containerd.
pub(crate) fn seen(file: &Path, text: &str, usual: bool) -> Result<RuntimesInUse> {
    let doc = parse(text).with_context(|| file.display().to_string())?;
    let said = doc.get("version").and_then(Item::as_integer);
    let program_says = || ask("containerd", &["--version"]).ok().and_then(|t| release(&t));
    let nri_by_default =
        usual.then(program_says).flatten().map_or(said.is_some_and(|v| v >= 3), |r| r.0 >= 2);
    let path = |key: &str, default: &str| -> PathBuf {
        let table = find(&doc, &["plugins", NRI_TABLE]);
        table.and_then(|t| t.get(key)).and_then(Item::as_str).unwrap_or(default).into()
    };
    let mut seen = RuntimesInUse {
        nri: NriInUse {
            is_on: enable_nri(text, nri_by_default)?.is_none(),
            plugins: path("plugin_path", nri::PLUGINS),
            socket: path("socket_path", nri::SOCKET),
        },
        runtimes: Vec::new(),
    };
    let drop_in = file.with_file_name("conf.d").join(DROP_IN);
    let texts = [Some(text.to_owned()), change::read(&drop_in)?];
    for text in texts.iter().flatten() {
        let doc = parse(text)?;
        for version in [2, 3] {
            for (name, item) in find(&doc, &["plugins", cri(version), "containerd", "runtimes"])
                .iter()
                .flat_map(|t| t.iter())
            {
                let own = base_path(name)?;
                let base =
                    item.get(BASE).and_then(Item::as_str).map(PathBuf::from).filter(|b| *b == own);
                let has = |list: &str, key: &str| {
                    item.get(list)
                        .and_then(Item::as_array)
                        .is_some_and(|a| a.iter().any(|v| v.as_str() == Some(key)))
                };
                let missing = ANNOTATIONS
                    .into_iter()
                    .filter(|key| !LISTS.iter().all(|list| has(list, key)))
                    .collect();
                seen.runtimes.push(CriRuntime { name: name.to_owned(), base, missing });
            }
        }
    }
    Ok(seen)
}
