//! Edits an engine's specification of a container, or of a process that joins one, so that it can
//! have a core. Pure: text in, text out.

use crate::annotation::{self, Annotations};
use crate::bytes::Limit;
use crate::config::Config;
use crate::container_identity::{self, ContainerIdentity};
use crate::limits;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The stages that the hook is added to.
pub(crate) const STAGES: [&str; 3] = ["createRuntime", "poststart", "poststop"];

/// Seconds that a runtime waits for the hook.
pub(crate) const HOOK_TIMEOUT: u64 = 10;

const CORE: &str = "RLIMIT_CORE";

/// The request of a container, as far as the specification needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asks {
    /// The RLIMIT_CORE that it requests, in bytes, `u64::MAX` for unlimited; `None`
    /// for any that allows a core.
    pub limit: Option<u64>,
    /// Whether the request is valid. An invalid one still gets the hook, which reports it and
    /// refuses the container if it insists.
    pub valid: bool,
}

/// The request in the annotations of a container, if there is one.
pub(crate) fn asks(
    annotations: &Annotations,
    identity: &ContainerIdentity,
    config: &Config,
) -> Option<Asks> {
    if annotation::is_sandbox(annotations) {
        return None;
    }
    let container = identity.names.container_name.as_deref();
    let default = config.default_for(&identity.selectable(annotations));
    match annotation::wishes(annotations, container, default) {
        Ok(wishes) => Some(Asks { limit: wishes?.limit.map(Limit::raw), valid: true }),
        Err(_) => Some(Asks { limit: None, valid: false }),
    }
}

/// The RLIMIT_CORE to set, soft and hard, where `there` is set now; `None` leaves it. Only the soft
/// limit is changed. The hard limit stays what is there, or `reach`, which the container would
/// inherit: a runtime may not be allowed to exceed that, and a container must not fail for want of
/// a core. (The hook, which can try, raises it where it may.)
pub(crate) fn core_limit(
    asked: Option<u64>,
    there: Option<(u64, u64)>,
    reach: u64,
) -> Option<(u64, u64)> {
    let soft = limits::soft_core_limit(asked.map(Limit::from_raw), there)?.raw();
    let new = (soft, there.map_or(reach, |(_, hard)| hard));
    (new.0 <= new.1 && new.1 <= reach && there != Some(new)).then_some(new)
}

/// Edits a bundle's config.json for a container that requests a pattern; `None` for other
/// containers and if nothing is missing. `bundle`: its directory, named by the container's ID, if
/// it is known.
///
/// # Errors
/// The text is not a config.json.
pub(crate) fn edit(
    text: &[u8],
    bundle: Option<&Path>,
    config: &Config,
    program: &Path,
    reach: u64,
) -> Result<Option<Vec<u8>>> {
    let all = annotation::of_config_json(text)?;
    let known =
        bundle.filter(|_| ContainerIdentity::matters(&all, config.default_pattern.is_some()));
    let identity = match known.and_then(|bundle| Some((bundle, container_identity::id_of(bundle)?)))
    {
        Some((bundle, id)) => ContainerIdentity::at(id, &all, text, bundle),
        None => ContainerIdentity::of("", &all),
    };
    let Some(asks) = asks(&all, &identity, config) else { return Ok(None) };
    let mut spec: Value = serde_json::from_slice(text).context("config.json")?;
    let hooked = add_hooks(object(&mut spec, "config.json")?, program)?;
    let limited = match spec.get_mut("process") {
        Some(process) if asks.valid && !process.is_null() => {
            set_core_limit(object(process, "process")?, asks.limit, reach)?
        }
        _ => false,
    };
    Ok((hooked || limited).then(|| spec.to_string().into_bytes()))
}

/// Edits a process that joins a container (`exec --process`), whose own soft limit is `limit`
/// bytes; `None` if nothing is missing.
///
/// # Errors
/// The text is not a process of a config.json.
pub(crate) fn edit_process(text: &[u8], limit: u64, reach: u64) -> Result<Option<Vec<u8>>> {
    let mut process: Value = serde_json::from_slice(text).context("process")?;
    // A soft limit that the engine set deliberately stays: only the engine knows which it is.
    let asked = (core_limit_of(object(&mut process, "process")?)?
        .is_none_or(|(soft, _)| soft == 0))
    .then_some(limit);
    let changed =
        asked.is_some() && set_core_limit(object(&mut process, "process")?, asked, reach)?;
    Ok(changed.then(|| process.to_string().into_bytes()))
}

/// Adds our hooks to the present ones, unless they are among them. Returns whether any was missing.
pub(crate) fn add_hooks(spec: &mut Map<String, Value>, program: &Path) -> Result<bool> {
    let program = program.to_str().context("the path of this program is not UTF-8")?;
    let hooks = object(spec.entry("hooks").or_insert(Value::Null), "hooks")?;
    let mut changed = false;
    for stage in STAGES {
        let list = list(hooks.entry(stage).or_insert(Value::Null), stage)?;
        if !list.iter().any(|h| h["path"] == program) {
            list.push(hook(program, stage));
            changed = true;
        }
    }
    Ok(changed)
}

/// One hook in the form of config.json.
fn hook(program: &str, stage: &str) -> Value {
    json!({"path": program, "args": ["oci-coredump", "hook", stage], "timeout": HOOK_TIMEOUT})
}

fn core_limit_of(process: &mut Map<String, Value>) -> Result<Option<(u64, u64)>> {
    let Some(limits) = process.get_mut("rlimits") else { return Ok(None) };
    let core = list(limits, "rlimits")?.iter().find(|l| l["type"] == CORE);
    let number = |l: &Value, key: &str| l[key].as_u64().unwrap_or(0);
    Ok(core.map(|l| (number(l, "soft"), number(l, "hard"))))
}

fn set_core_limit(
    process: &mut Map<String, Value>,
    asked: Option<u64>,
    reach: u64,
) -> Result<bool> {
    let Some((soft, hard)) = core_limit(asked, core_limit_of(process)?, reach) else {
        return Ok(false);
    };
    let limits = list(process.entry("rlimits").or_insert(Value::Null), "rlimits")?;
    limits.retain(|l| l["type"] != CORE);
    limits.push(json!({"type": CORE, "hard": hard, "soft": soft}));
    Ok(true)
}

/// The value as an object; `null` becomes an empty one.
fn object<'a>(value: &'a mut Value, what: &str) -> Result<&'a mut Map<String, Value>> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().with_context(|| format!("{what}: expected an object"))
}

/// The value as a list; `null` becomes an empty one.
fn list<'a>(value: &'a mut Value, what: &str) -> Result<&'a mut Vec<Value>> {
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().with_context(|| format!("{what}: expected a list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = u64::MAX;

    #[test]
    fn limits() {
        for (asked, there, reach, new) in [
            (None, None, MAX, Some((MAX, MAX))),
            (None, None, 100, None),
            (Some(50), None, 100, Some((50, 100))),
            (Some(0), None, MAX, Some((0, MAX))),
            (None, Some((0, 200)), 100, None),
            (None, Some((7, 9)), MAX, None),
            (Some(8), Some((7, 9)), MAX, Some((8, 9))),
            (Some(MAX), Some((7, 9)), MAX, Some((9, 9))),
            (None, Some((0, 9)), MAX, Some((9, 9))),
            (None, Some((0, 0)), MAX, None),
            (Some(0), Some((5, MAX)), MAX, Some((0, MAX))),
            (Some(9), Some((9, 9)), MAX, None),
        ] {
            assert_eq!(core_limit(asked, there, reach), new, "{asked:?} {there:?} {reach}");
        }
    }

    #[test]
    fn a_process_that_joins() {
        let edited = |text: &str| {
            edit_process(text.as_bytes(), MAX, MAX).unwrap().map(|t| String::from_utf8(t).unwrap())
        };
        assert_eq!(
            edited(r#"{"z":1,"args":["a"]}"#).unwrap(),
            format!(
                "{{\"z\":1,\"args\":[\"a\"],\
                 \"rlimits\":[{{\"type\":\"RLIMIT_CORE\",\"hard\":{MAX},\"soft\":{MAX}}}]}}"
            )
        );
        assert_eq!(edited(r#"{"rlimits":[{"type":"RLIMIT_CORE","hard":5,"soft":5}]}"#), None);
        assert_eq!(
            edited(r#"{"rlimits":[{"type":"RLIMIT_CORE","hard":5,"soft":0}]}"#).unwrap(),
            r#"{"rlimits":[{"type":"RLIMIT_CORE","hard":5,"soft":5}]}"#
        );
        assert!(edit_process(b"[]", MAX, MAX).is_err());
        assert!(edit_process(br#"{"rlimits":{}}"#, MAX, MAX).is_err());
    }

    #[test]
    fn who_asks() {
        let of = |list: &[(&str, &str)]| {
            list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Annotations>()
        };
        let c = Config::default();
        let asked =
            |list: &[(&str, &str)]| asks(&of(list), &ContainerIdentity::of("", &of(list)), &c);
        assert_eq!(asked(&[]), None);
        assert_eq!(
            asked(&[("oci-coredump/pattern", "/d/core")]),
            Some(Asks { limit: None, valid: true })
        );
        assert_eq!(
            asked(&[("oci-coredump/pattern", "/d/core"), ("oci-coredump/limit", "1K")]),
            Some(Asks { limit: Some(1024), valid: true })
        );
        assert_eq!(
            asked(&[("oci-coredump/pattern", "|sh")]),
            Some(Asks { limit: None, valid: false })
        );
        assert_eq!(
            asked(&[
                ("oci-coredump/pattern", "/d/core"),
                ("io.kubernetes.cri.container-type", "sandbox")
            ]),
            None
        );
    }
}
