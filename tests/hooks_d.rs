//! The file for podman and CRI-O, by the rules that both document: oci-hooks(5), schema 1.0.0, and
//! crio.conf(5). No CRI-O can be had for these tests (`make conformance` builds one); podman, which
//! reads the same format by the same package, starts containers with this very file in
//! `integration/matrix`.
use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

/// The stages of the runtime specification. A stage that CRI-O does not know keeps it from
/// starting: podman's `precreate` is one.
const STAGES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The errors of a hook file.
fn errors(file: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let empty = Map::new();
    let object = |key: &str| file[key].as_object().unwrap_or(&empty);
    let known = |what: &str, keys: &Map<String, Value>, allowed: &[&str]| -> Vec<String> {
        keys.keys()
            .filter(|k| !allowed.contains(&k.as_str()))
            .map(|k| format!("{what}: unknown key {k}"))
            .collect()
    };
    errors.extend(known(
        "file",
        file.as_object().unwrap_or(&empty),
        &["version", "hook", "when", "stages"],
    ));
    errors.extend(known("hook", object("hook"), &["path", "args", "env", "timeout"]));
    errors.extend(known(
        "when",
        object("when"),
        &["always", "annotations", "commands", "hasBindMounts", "or"],
    ));
    let mut need = |holds: bool, what: &str| {
        if !holds {
            errors.push(what.to_owned());
        }
    };
    need(file["version"] == "1.0.0", "version");
    need(
        file["hook"]["path"].as_str().is_some_and(|p| Path::new(p).is_absolute()),
        "hook.path is absolute",
    );
    need(
        file["hook"]["args"].as_array().is_none_or(|a| a.iter().all(Value::is_string)),
        "hook.args are strings",
    );
    need(
        file["hook"]["timeout"].as_u64().is_some_and(|t| t > 0),
        "hook.timeout: without one a hook may hang for ever",
    );
    need(!object("when").is_empty(), "when: a hook without a condition is never injected");
    let stages: Vec<&str> =
        file["stages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    need(
        !stages.is_empty() && stages.iter().all(|s| STAGES.contains(s)),
        "stages are those of the runtime specification",
    );
    errors
}

#[test]
fn the_file_of_hooks_d() {
    let text =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks.d/oci-coredump.json"))
            .unwrap();
    let file: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(errors(&file), Vec::<String>::new());
    // For every container: which one asks is the program's to decide, by annotations that
    // CRI-O would not match (its own `io.kubernetes.cri-o.*` among them, crio.conf(5))
    // and by the default pattern.
    assert_eq!(file["when"], serde_json::json!({ "always": true }));
    let stages: BTreeSet<&str> =
        file["stages"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(stages, BTreeSet::from(["createRuntime", "poststart", "poststop"]));

    // The rules do refuse mistakes.
    for (pointer, value) in [
        ("/version", "2.0.0".into()),
        ("/stages", serde_json::json!(["precreate"])),
        ("/stages", serde_json::json!([])),
        ("/when", serde_json::json!({})),
        ("/when", serde_json::json!({ "annotation": {} })),
        ("/hook/path", "oci-coredump".into()),
        ("/hook/timeout", 0.into()),
    ] {
        let mut broken = file.clone();
        *broken.pointer_mut(pointer).unwrap() = value;
        assert!(!errors(&broken).is_empty(), "{pointer}");
    }
}
