//! Configures containerd: an NRI plugin if it supports one; else, for its CRI plugin, a base
//! specification with our hooks, and annotations that are passed through.
//!
//! The merge rules differ between versions. Up to 1.7 a drop-in replaces the whole table of a
//! plugin, so the main file is edited. From 2.0 on (version 3) drop-ins are merged, if the main
//! file imports them. In both, the table of a runtime replaces that runtime's defaults, so ours
//! repeats the runtime's type.

mod document;
mod in_use;
mod programs;

pub(crate) use document::{add, enable_nri, import, remove, runtimes, version};
pub(crate) use in_use::seen;

use super::change::{self, Change, EngineChanges};
use super::options::{Interface, Options, Program};
use super::{nri, spec};
use anyhow::{Context, Result, bail, ensure};
use document::{DROP_IN, NRI_TABLE, base_path, find, parse};
use programs::{ask, release};
use std::path::{Path, PathBuf};
use toml_edit::Item;

/// Plans the changes of `install containerd`.
pub(crate) fn plan(file: &Path, options: &Options, program: &Program) -> Result<EngineChanges> {
    let text = change::read(file)?;
    let old = text.as_deref().unwrap_or_default();
    let in_file = || file.display().to_string();
    let said = version(old).with_context(in_file)?;
    let release = release_of(file, options, said)?;
    if said == Some(1) || (text.is_some() && said.is_none() && release.0 < 2) {
        bail!(
            "{} is of version 1: `containerd config migrate` makes a newer one of it",
            file.display()
        );
    }
    let nri_by_default = release.0 >= 2;
    let has_nri = release >= (1, 7)
        && (nri_by_default || enable_nri(old, false).with_context(in_file)?.is_none());
    match options.way.unwrap_or(if has_nri { Interface::Nri } else { Interface::Spec }) {
        Interface::Nri => plugin(file, old, release, program),
        Interface::Spec => {
            // containerd 2 also reads files of version 2, with the names of version 2.
            let version = said.unwrap_or(if release.0 >= 2 { 3 } else { 2 });
            specification(file, old, version, release, program)
        }
    }
}

/// The release of containerd. The program at the usual path reads the file at the usual path; for
/// another file the version in it, `said`, counts.
fn release_of(file: &Path, options: &Options, said: Option<i64>) -> Result<(u64, u64)> {
    let ask_program = || ask("containerd", &["--version"]).ok().and_then(|t| release(&t));
    let program_says = if options.config.is_none() { ask_program() } else { None };
    match (program_says, said) {
        (Some(release), _) => Ok(release),
        (None, Some(3)) => Ok((2, 0)),
        (None, Some(_)) => Ok((1, 7)),
        (None, None) => bail!(
            "which containerd is it? neither `containerd --version` nor {} says so; give --config",
            file.display()
        ),
    }
}

/// By an NRI plugin, which containerd starts.
fn plugin(file: &Path, old: &str, release: (u64, u64), program: &Program) -> Result<EngineChanges> {
    ensure!(
        release >= (1, 7),
        "containerd {}.{} has no NRI plugins (1.7 has)",
        release.0,
        release.1
    );
    let mut plan = EngineChanges::default();
    let enabled = enable_nri(old, release.0 >= 2).with_context(|| file.display().to_string())?;
    if let Some(new) = enabled {
        plan.add(Change::file(file, new)?);
    }
    let directory = find(&parse(old)?, &["plugins", NRI_TABLE])
        .and_then(|t| t.get("plugin_path"))
        .and_then(Item::as_str)
        .map(PathBuf::from);
    let path = directory
        .unwrap_or_else(|| nri::PLUGINS.into())
        .join(format!("{}-oci-coredump", nri::INDEX));
    plan.add(Change::Link { path, target: program.path.clone() });
    plan.notes
        .push("`systemctl restart containerd` starts the plugin; running containers go on".into());
    Ok(plan)
}

/// By a base specification for each runtime. `version`: of the configuration file.
fn specification(
    file: &Path,
    old: &str,
    version: i64,
    release: (u64, u64),
    program: &Program,
) -> Result<EngineChanges> {
    let in_file = || file.display().to_string();
    let mut plan = EngineChanges::default();
    let runtimes = runtimes(old, version).with_context(in_file)?;
    for runtime in &runtimes {
        let (base, of_admin) = match &runtime.base {
            Some(path) => (
                std::fs::read_to_string(path)
                    .with_context(|| format!("read {}", path.display()))?,
                true,
            ),
            None => (ask("ctr", &["oci", "spec"])?, false),
        };
        let base = base_spec(&base, of_admin, &program.path)?;
        plan.add(Change::file(&base_path(&runtime.name)?, base)?);
    }
    if version >= 3 {
        let directory = file.with_file_name("conf.d");
        let pattern = format!("{}/*.toml", directory.display());
        let by_default = release >= (2, 2) && directory == Path::new("/etc/containerd/conf.d");
        if let Some(new) = import(old, &pattern, by_default).with_context(in_file)? {
            plan.add(Change::file(file, new)?);
        }
        let note = "# Written by `oci-coredump install`, removed by `oci-coredump uninstall`.\n";
        let drop_in = add(note, old, version, &runtimes)?;
        plan.add(Change::file(&directory.join(DROP_IN), drop_in)?);
    } else {
        let new = add(old, "", version, &runtimes).with_context(in_file)?;
        plan.add(Change::file(file, new)?);
    }
    plan.notes
        .push("`systemctl restart containerd` makes it known; running containers go on".into());
    Ok(plan)
}

/// Makes a base specification with our hooks from a complete one. containerd's own default sets an
/// RLIMIT_NOFILE of 1024, which its CRI plugin does not give to pods: for that one `of_admin` is
/// false, and its limits are removed.
///
/// # Errors
/// The text is not a config.json.
pub(crate) fn base_spec(text: &str, of_admin: bool, program: &Path) -> Result<String> {
    let mut spec: serde_json::Value = serde_json::from_str(text).context("base specification")?;
    let map = spec.as_object_mut().context("base specification: expected an object")?;
    if let (false, Some(process)) =
        (of_admin, map.get_mut("process").and_then(|p| p.as_object_mut()))
    {
        process.shift_remove("rlimits");
    }
    spec::add_hooks(map, program)?;
    Ok(serde_json::to_string_pretty(&spec)? + "\n")
}
