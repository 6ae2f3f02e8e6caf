//! Configures CRI-O, which reads hooks.d by itself. If the administrator has set other directories,
//! a drop-in adds the standard one.
//!
//! A value in a later drop-in replaces the earlier ones, even if it is a list (crio.conf.d(5)), so
//! ours repeats the list in force.

use super::change::{Change, EngineChanges};
use super::hooks_dir;
use super::nri::{self, NriInUse};
use super::options::Program;
use anyhow::Result;
use std::path::{Path, PathBuf};
use toml_edit::Value;

const TABLE: &str = "crio.runtime";
pub(super) const TABLES: [&str; 2] = ["crio", "runtime"];

/// Plans the changes of `install crio`.
pub(crate) fn plan(config: &Path, program: &Program) -> Result<EngineChanges> {
    let mut plan = EngineChanges::default();
    let drop_ins = config.with_file_name("crio.conf.d");
    // CRI-O makes and watches its directories when it starts. One that was removed since, by
    // `uninstall`, is made anew here, and not watched.
    let is_watched = Path::new(hooks_dir::STANDARD).is_dir();
    hooks_dir::add_hook_file(&mut plan, program)?;
    let files = hooks_dir::files(&[config], &drop_ins)?;
    let in_force = hooks_dir::in_force(&files, &TABLES)?;
    let ours = hooks_dir::own_file(&drop_ins, "99-oci-coredump.conf", &files, &TABLES)?;
    let drop_in = hooks_dir::drop_in(in_force, TABLE);
    if !is_watched || drop_in.is_some() {
        plan.notes.push(
            "`systemctl restart crio` makes the directory known; running containers go on".into(),
        );
    }
    if let Some(text) = drop_in {
        plan.add(Change::file(&ours, text)?);
    }
    Ok(plan)
}

/// What its files say of NRI.
///
/// # Errors
/// A file is not TOML.
pub(super) fn nri(files: &[(PathBuf, String)]) -> Result<NriInUse> {
    let setting = |key: &str| hooks_dir::last(files, &["crio", "nri"], key);
    let path = |key: &str, default: &str| -> Result<PathBuf> {
        let value = setting(key)?;
        Ok(value.as_ref().and_then(Value::as_str).unwrap_or(default).into())
    };
    Ok(NriInUse {
        is_on: setting("enable_nri")?.as_ref().and_then(Value::as_bool).unwrap_or(true),
        plugins: path("nri_plugin_dir", nri::PLUGINS)?,
        socket: path("nri_listen", nri::SOCKET)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list in force for a configuration directory: crio.conf(5), then crio.conf.d(5) in
    /// lexical order, each value replacing the earlier one.
    fn hooks_dirs(config: &Path) -> Option<Vec<String>> {
        let mut paths = vec![config.to_owned()];
        let mut drop_ins: Vec<_> = std::fs::read_dir(config.with_file_name("crio.conf.d"))
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().path())
            .collect();
        drop_ins.sort();
        paths.extend(drop_ins);
        let mut dirs = None;
        for path in paths {
            let table: toml::Table =
                std::fs::read_to_string(path).unwrap_or_default().parse().unwrap();
            if let Some(list) = table
                .get("crio")
                .and_then(|t| t.get("runtime")?.get("hooks_dir"))
                .and_then(toml::Value::as_array)
            {
                dirs = Some(list.iter().map(|d| d.as_str().unwrap().to_owned()).collect());
            }
        }
        dirs
    }

    #[test]
    fn crio_reads_the_standard_directory_afterwards() {
        let program = Program { path: "/usr/libexec/oci/hooks.d/oci-coredump".into() };
        let set =
            |dirs: &str| format!("[crio.runtime]\nlog_level = \"info\"\nhooks_dir = [{dirs}]\n");
        for (name, files, expected) in [
            ("nothing is said: the default directory", vec![], None),
            (
                "another setting only",
                vec![("crio.conf", "[crio.runtime]\nlog_level = \"info\"\n".to_owned())],
                None,
            ),
            (
                "in the main file",
                vec![("crio.conf", set("'/a'"))],
                Some(vec!["/a", hooks_dir::STANDARD]),
            ),
            (
                "already there",
                vec![("crio.conf", set("'/usr/share/containers/oci/hooks.d/', '/a'"))],
                Some(vec!["/usr/share/containers/oci/hooks.d/", "/a"]),
            ),
            (
                "a drop-in counts, not the main file",
                vec![("crio.conf", set("'/a'")), ("crio.conf.d/10-b.conf", set("'/b'"))],
                Some(vec!["/b", hooks_dir::STANDARD]),
            ),
            (
                "one that is read after our first choice",
                vec![("crio.conf.d/zz.conf", set("'/z'"))],
                Some(vec!["/z", hooks_dir::STANDARD]),
            ),
            (
                "one that empties the list",
                vec![("crio.conf.d/99-z.conf", set(""))],
                Some(vec![hooks_dir::STANDARD]),
            ),
        ] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::create_dir(directory.path().join("crio.conf.d")).unwrap();
            for (file, text) in files {
                std::fs::write(directory.path().join(file), text).unwrap();
            }
            let config = directory.path().join("crio.conf");
            let drop_in = |plan: &EngineChanges| {
                plan.changes.iter().find_map(|c| match c {
                    Change::File { path, after, .. } if path.starts_with(directory.path()) => {
                        Some((path.clone(), after.clone()))
                    }
                    _ => None,
                })
            };
            if let Some((path, text)) = drop_in(&super::plan(&config, &program).unwrap()) {
                std::fs::write(path, text).unwrap();
            }
            let expected =
                expected.map(|dirs| dirs.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(hooks_dirs(&config), expected, "{name}");
            // A second time changes nothing.
            if let Some((path, text)) = drop_in(&super::plan(&config, &program).unwrap()) {
                assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{name}");
            }
        }
    }
}
