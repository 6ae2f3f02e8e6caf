//! Configures containerd: an NRI plugin if it supports one; else, for its CRI plugin, a base
//! specification with our hooks, and annotations that are passed through.
//!
//! The merge rules differ between versions. Up to 1.7 a drop-in replaces the whole table of a
//! plugin, so the main file is edited. From 2.0 on (version 3) drop-ins are merged, if the main
//! file imports them. In both, the table of a runtime replaces that runtime's defaults, so ours
//! repeats the runtime's type.

use super::change::{self, Change, EngineChanges};
use super::options::{Interface, Options, Program};
use super::{nri, spec};
use crate::config;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, value};

/// Where containerd looks for NRI plugins by default.
const NRI_PLUGINS: &str = "/opt/nri/plugins";
const NRI_TABLE: &str = "io.containerd.nri.v1.nri";

/// File name of our drop-in.
const DROP_IN: &str = "oci-coredump.toml";

const RUNC: &str = "io.containerd.runc.v2";

/// The annotations that must reach the hook, as containerd's patterns, in which
/// `*` does not match a `/`.
const ANNOTATIONS: [&str; 7] = [
    "oci-coredump/*",
    "*.oci-coredump/*",
    "k8s.aliyun.com/eci-core-pattern",
    "alibabacloud.com/core-pattern",
    "system.cci.io/coredump",
    "bci.virtual-kubelet.io/core-pattern",
    "starlingx.io/core_*",
];
const LISTS: [&str; 2] = ["pod_annotations", "container_annotations"];
const BASE: &str = "base_runtime_spec";

/// The name of the plugin that runs pods.
fn cri(version: i64) -> &'static str {
    if version >= 3 { "io.containerd.cri.v1.runtime" } else { "io.containerd.grpc.v1.cri" }
}

/// Path of our base specification for a runtime.
fn base_path(runtime: &str) -> Result<PathBuf> {
    ensure!(
        runtime.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
        "runtime {runtime:?}: not a name for a file"
    );
    Ok(Path::new(config::PATH).with_file_name(format!("containerd-base-{runtime}.json")))
}

/// A runtime that gets a base specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Its name in the configuration.
    pub name: String,
    /// The base specification that the administrator configured for it before.
    pub base: Option<PathBuf>,
}

fn parse(text: &str) -> Result<DocumentMut> {
    text.parse::<DocumentMut>().map_err(|e| {
        let line = e.span().map_or(0, |s| {
            text.as_bytes()[..s.start.min(text.len())].iter().filter(|b| **b == b'\n').count()
        });
        anyhow::anyhow!("line {}: {}", line + 1, e.message())
    })
}

/// The version in the text of a configuration.
pub fn version(text: &str) -> Result<Option<i64>> {
    Ok(parse(text)?.get("version").and_then(Item::as_integer))
}

/// The table at a path below `item`, if it exists.
fn find<'a>(doc: &'a DocumentMut, path: &[&str]) -> Option<&'a dyn TableLike> {
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
pub fn runtimes(text: &str, version: i64) -> Result<Vec<Runtime>> {
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
pub fn add(text: &str, from: &str, version: i64, runtimes: &[Runtime]) -> Result<String> {
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
pub fn import(text: &str, pattern: &str, by_default: bool) -> Result<Option<String>> {
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
pub fn enable_nri(text: &str, by_default: bool) -> Result<Option<String>> {
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
pub fn remove(text: &str, before: Option<&str>) -> Result<String> {
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

/// Makes a base specification with our hooks from a complete one. containerd's own default sets an
/// RLIMIT_NOFILE of 1024, which its CRI plugin does not give to pods: for that one `of_admin` is
/// false, and its limits are removed.
///
/// # Errors
/// The text is not a config.json.
pub fn base_spec(text: &str, of_admin: bool, program: &Path) -> Result<String> {
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

/// Runs one of containerd's programs, by its fixed paths, and returns its output.
fn ask(program: &str, args: &[&str]) -> Result<String> {
    let paths = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"]
        .map(|d| Path::new(d).join(program));
    let path = paths
        .iter()
        .find(|p| p.is_file())
        .with_context(|| format!("no {program} in /usr/bin or /usr/local/bin"))?;
    let output = std::process::Command::new(path)
        .args(args)
        .output()
        .with_context(|| format!("run {}", path.display()))?;
    ensure!(
        output.status.success(),
        "{} {}: {}",
        path.display(),
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} {}: not UTF-8", path.display(), args.join(" ")))
}

/// Major and minor number in the output of `containerd --version`.
pub fn release(text: &str) -> Option<(u64, u64)> {
    text.split_whitespace().find_map(|word| {
        let mut numbers = word.trim_start_matches('v').split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    })
}

/// What a configuration contains that concerns us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimesInUse {
    /// Whether NRI is enabled.
    pub nri: bool,
    /// Where containerd looks for NRI plugins.
    pub plugins: PathBuf,
    /// The runtimes of its CRI plugin.
    pub runtimes: Vec<CriRuntime>,
}

/// A runtime of the CRI plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CriRuntime {
    /// Its name.
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
pub fn seen(file: &Path, text: &str, usual: bool) -> Result<RuntimesInUse> {
    let doc = parse(text).with_context(|| file.display().to_string())?;
    let said = doc.get("version").and_then(Item::as_integer);
    let program_says = || ask("containerd", &["--version"]).ok().and_then(|t| release(&t));
    let nri_by_default =
        usual.then(program_says).flatten().map_or(said.is_some_and(|v| v >= 3), |r| r.0 >= 2);
    let plugins = find(&doc, &["plugins", NRI_TABLE])
        .and_then(|t| t.get("plugin_path"))
        .and_then(Item::as_str)
        .unwrap_or(NRI_PLUGINS);
    let mut seen = RuntimesInUse {
        nri: enable_nri(text, nri_by_default)?.is_none(),
        plugins: plugins.into(),
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

/// Plans the changes of `install containerd`.
pub fn plan(file: &Path, options: &Options, program: &Program) -> Result<EngineChanges> {
    let text = change::read(file)?;
    let old = text.as_deref().unwrap_or_default();
    let in_file = || file.display().to_string();
    let said = version(old).with_context(in_file)?;
    // The program at the usual path reads the file at the usual path; for another file
    // the version in it counts.
    let program_says = options
        .config
        .is_none()
        .then(|| ask("containerd", &["--version"]).ok().and_then(|t| release(&t)))
        .flatten();
    let release = match (program_says, said) {
        (Some(release), _) => release,
        (None, Some(3)) => (2, 0),
        (None, Some(_)) => (1, 7),
        (None, None) => bail!(
            "which containerd is it? neither `containerd --version` nor {} says so; give --config",
            file.display()
        ),
    };
    if said == Some(1) || (text.is_some() && said.is_none() && release.0 < 2) {
        bail!(
            "{} is of version 1: `containerd config migrate` makes a newer one of it",
            file.display()
        );
    }
    // containerd 2 also reads files of version 2, with the names of version 2.
    let version = said.unwrap_or(if release.0 >= 2 { 3 } else { 2 });
    let nri_by_default = release.0 >= 2;
    let has_nri = release >= (1, 7)
        && (nri_by_default || enable_nri(old, false).with_context(in_file)?.is_none());
    let mut plan = EngineChanges::default();
    match options.way.unwrap_or(if has_nri { Interface::Nri } else { Interface::Spec }) {
        Interface::Nri => {
            ensure!(
                release >= (1, 7),
                "containerd {}.{} has no NRI plugins (1.7 has)",
                release.0,
                release.1
            );
            if let Some(new) = enable_nri(old, nri_by_default).with_context(in_file)? {
                plan.add(Change::file(file, new)?);
            }
            let directory = find(&parse(old)?, &["plugins", NRI_TABLE])
                .and_then(|t| t.get("plugin_path"))
                .and_then(Item::as_str)
                .map(PathBuf::from);
            let path = directory
                .unwrap_or_else(|| NRI_PLUGINS.into())
                .join(format!("{}-oci-coredump", nri::INDEX));
            plan.add(Change::Link { path, target: program.path.clone() });
            plan.notes.push(
                "`systemctl restart containerd` starts the plugin; running containers go on".into(),
            );
        }
        Interface::Spec => {
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
                plan.add(Change::file(
                    &base_path(&runtime.name)?,
                    base_spec(&base, of_admin, &program.path)?,
                )?);
            }
            if version >= 3 {
                let directory = file.with_file_name("conf.d");
                let pattern = format!("{}/*.toml", directory.display());
                if let Some(new) = import(
                    old,
                    &pattern,
                    release >= (2, 2) && directory == Path::new("/etc/containerd/conf.d"),
                )
                .with_context(in_file)?
                {
                    plan.add(Change::file(file, new)?);
                }
                let note =
                    "# Written by `oci-coredump install`, removed by `oci-coredump uninstall`.\n";
                plan.add(Change::file(
                    &directory.join(DROP_IN),
                    add(note, old, version, &runtimes)?,
                )?);
            } else {
                plan.add(Change::file(
                    file,
                    add(old, "", version, &runtimes).with_context(in_file)?,
                )?);
            }
            plan.notes.push(
                "`systemctl restart containerd` makes it known; running containers go on".into(),
            );
        }
    }
    Ok(plan)
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

    #[test]
    fn releases() {
        assert_eq!(
            release("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3"),
            Some((1, 6))
        );
        assert_eq!(
            release("containerd github.com/containerd/containerd/v2 2.1.9+unknown "),
            Some((2, 1))
        );
        assert_eq!(release("containerd containerd.io v2.0.0-rc.1 207ad"), Some((2, 0)));
        assert_eq!(release("containerd"), None);
    }
}
