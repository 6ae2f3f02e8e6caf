//! Configures Docker: adds a runtime to daemon.json, and makes it the default
//! if the default is not set.

use super::change::{self, Change, EngineChanges};
use super::options::{Options, Program};
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The runtime's name in daemon.json.
pub(crate) const NAME: &str = "oci-coredump";

fn parse(text: &str) -> Result<Map<String, Value>> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let value: Value = serde_json::from_str(text).context("no JSON")?;
    let Value::Object(map) = value else { anyhow::bail!("expected an object") };
    Ok(map)
}

fn print(map: Map<String, Value>) -> Result<String> {
    Ok(serde_json::to_string_pretty(&Value::Object(map))? + "\n")
}

/// Adds the runtime, and makes it the default unless one other than runc is. Returns the new text
/// and whether it is the default.
///
/// # Errors
/// The text is not a daemon.json.
pub(crate) fn add(text: &str, runtime: &str, default: bool) -> Result<(String, bool)> {
    let mut map = parse(text)?;
    let free =
        matches!(map.get("default-runtime").map(Value::as_str), None | Some(Some("runc" | NAME)));
    let runtimes = map
        .entry("runtimes")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .context("runtimes: expected an object")?;
    runtimes.insert(NAME.into(), json!({"path": runtime}));
    if free && default {
        map.insert("default-runtime".into(), NAME.into());
    }
    let is_default = map.get("default-runtime") == Some(&json!(NAME));
    Ok((print(map)?, is_default))
}

/// Removes what [`add`] added.
///
/// # Errors
/// The text is not a daemon.json.
pub(crate) fn remove(text: &str) -> Result<String> {
    let mut map = parse(text)?;
    if let Some(runtimes) = map.get_mut("runtimes").and_then(Value::as_object_mut) {
        runtimes.shift_remove(NAME);
        if runtimes.is_empty() {
            map.shift_remove("runtimes");
        }
    }
    if map.get("default-runtime") == Some(&json!(NAME)) {
        map.shift_remove("default-runtime");
    }
    print(map)
}

/// The path of our runtime and the name of the default runtime in a daemon.json.
///
/// # Errors
/// The text is not a daemon.json.
pub(crate) fn runtime(text: &str) -> Result<(Option<PathBuf>, Option<String>)> {
    let map = parse(text)?;
    let path = map.get("runtimes").and_then(|r| r[NAME]["path"].as_str()).map(PathBuf::from);
    Ok((path, map.get("default-runtime").and_then(Value::as_str).map(str::to_owned)))
}

/// Plans the changes of `install docker`.
pub(crate) fn plan(config: &Path, options: &Options, program: &Program) -> Result<EngineChanges> {
    let mut plan = EngineChanges::default();
    let link = program.runtime();
    match std::fs::canonicalize(&link) {
        Ok(there) => ensure!(there == program.path, "{} is another program", link.display()),
        Err(_) => {
            let name = program.path.file_name().context("this program has no name")?;
            plan.add(Change::Link { path: link.clone(), target: name.into() });
        }
    }
    let old = change::read(config)?.unwrap_or_default();
    let runtime = link.to_str().context("the path of this program is not UTF-8")?;
    let (new, default) =
        add(&old, runtime, !options.no_default).with_context(|| config.display().to_string())?;
    // A text with the same meaning keeps its form.
    if parse(&old)? != parse(&new)? {
        plan.add(Change::file(config, new)?);
    }
    plan.notes.push("`systemctl reload docker` (or SIGHUP to dockerd) makes it known".into());
    if !default {
        plan.notes.push(format!(
            "it is not the default runtime: start containers with `docker run --runtime {NAME}`"
        ));
    }
    Ok(plan)
}
