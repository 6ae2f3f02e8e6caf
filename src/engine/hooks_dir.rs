//! The `hooks_dir` setting that podman and CRI-O share, which lists the directories with hooks.d
//! files, and the file that is placed there.

use super::change::{self, Change, EngineChanges};
use super::options::Program;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use toml_edit::{Array, DocumentMut, Value};

/// The directory that both read by default.
pub(super) const STANDARD: &str = "/usr/share/containers/oci/hooks.d";

/// File name of our hook.
pub(super) const FILE: &str = "oci-coredump.json";
/// End of the name of our drop-in.
const OURS: &str = "oci-coredump.conf";

/// The list in force, given the files that set it, of which the last one counts.
/// `None`: the engine's default.
///
/// # Errors
/// A file is not TOML.
pub(super) fn in_force(
    files: &[(PathBuf, String)],
    tables: &[&str],
) -> Result<Option<Vec<String>>> {
    let list = last(files, tables, "hooks_dir")?;
    Ok(list
        .as_ref()
        .and_then(|value| value.as_array())
        .map(|list| list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()))
}

/// The value of a setting, given the files that set it, of which the last one counts.
///
/// # Errors
/// A file is not TOML.
pub(super) fn last(
    files: &[(PathBuf, String)],
    tables: &[&str],
    key: &str,
) -> Result<Option<Value>> {
    let mut found = None;
    for (path, text) in files {
        let doc: DocumentMut = text.parse().with_context(|| path.display().to_string())?;
        let mut item = doc.as_item();
        for table in tables {
            item = item.get(table).unwrap_or(&toml_edit::Item::None);
        }
        found = item.get(key).and_then(|i| i.as_value()).cloned().or(found);
    }
    Ok(found)
}

/// The text of a drop-in that adds [`STANDARD`] to the list in force; `None` if it is in the list.
pub(super) fn drop_in(in_force: Option<Vec<String>>, table: &str) -> Option<String> {
    let mut list = in_force?;
    if list.iter().any(|dir| Path::new(dir) == Path::new(STANDARD)) {
        return None;
    }
    list.push(STANDARD.to_owned());
    let list: Array = list.into_iter().collect();
    Some(format!(
        "# Written by `oci-coredump install`, removed by `oci-coredump uninstall`.\n[{table}]\n\
         hooks_dir = {list}\n"
    ))
}

/// The files of a configuration with its drop-ins, in the order in which
/// they are read, without ours.
pub(super) fn files(main: &[&Path], drop_ins: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut files = all_files(main, drop_ins)?;
    files.retain(|(path, _)| {
        !path.file_name().unwrap_or_default().to_string_lossy().ends_with(OURS)
    });
    Ok(files)
}

/// The same, with ours.
pub(super) fn all_files(main: &[&Path], drop_ins: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut paths: Vec<PathBuf> = main.iter().map(|p| (*p).to_owned()).collect();
    let mut more: Vec<PathBuf> = match std::fs::read_dir(drop_ins) {
        Ok(entries) => entries
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.to_string_lossy().ends_with(".conf"))
            .collect(),
        Err(_) => Vec::new(),
    };
    more.sort();
    paths.append(&mut more);
    let mut out = Vec::new();
    for path in paths {
        if let Some(text) = change::read(&path)? {
            out.push((path, text));
        }
    }
    Ok(out)
}

/// The path of our drop-in. It sorts after every other one that sets the list,
/// since the last one counts.
pub(super) fn own_file(
    drop_ins: &Path,
    first_choice: &str,
    files: &[(PathBuf, String)],
    tables: &[&str],
) -> Result<PathBuf> {
    let mut name = first_choice.to_owned();
    for (path, text) in files.iter().filter(|(p, _)| p.parent() == Some(drop_ins)) {
        let theirs = path.file_name().unwrap_or_default().to_string_lossy();
        if in_force(&[(path.clone(), text.clone())], tables)?.is_some() && *theirs > *name {
            name = format!("{theirs}-{OURS}");
        }
    }
    Ok(drop_ins.join(name))
}

/// Adds the hooks.d file to the standard directory, unless `make install` has put one there
/// that starts this program.
pub(super) fn add_hook_file(plan: &mut EngineChanges, program: &Program) -> Result<()> {
    let path = Path::new(STANDARD).join(FILE);
    let program = program.text()?;
    let text = include_str!("../../hooks.d/oci-coredump.json")
        .replace("\"/usr/libexec/oci/hooks.d/oci-coredump\"", &serde_json::to_string(program)?);
    let starts_us = |text: &String| {
        serde_json::from_str::<serde_json::Value>(text).is_ok_and(|v| v["hook"]["path"] == program)
    };
    if !change::read(&path)?.as_ref().is_some_and(starts_us) {
        plan.add(Change::file(&path, text)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Vec<(PathBuf, String)> {
        texts.iter().map(|t| (PathBuf::from("f"), (*t).to_owned())).collect()
    }

    #[test]
    fn the_last_file_wins_and_the_list_is_whole() {
        let files = of(&[
            "[crio.runtime]\nhooks_dir = [\"/a\"]\n",
            "[crio.runtime]\nhooks_dir = ['/b', '/c']",
            "[crio]\nx = 1",
        ]);
        assert_eq!(
            in_force(&files, &["crio", "runtime"]).unwrap(),
            Some(vec!["/b".into(), "/c".into()])
        );
        assert_eq!(in_force(&of(&["[engine]\nx = 1"]), &["engine"]).unwrap(), None);
        assert!(in_force(&of(&["="]), &["engine"]).is_err());
        assert_eq!(drop_in(None, "engine"), None);
        assert_eq!(drop_in(Some(vec![format!("{STANDARD}/")]), "engine"), None);
        let text = drop_in(Some(vec!["/b".into()]), "crio.runtime").unwrap();
        assert_eq!(
            in_force(&of(&[&text]), &["crio", "runtime"]).unwrap(),
            Some(vec!["/b".into(), STANDARD.into()])
        );
    }
}
