//! A container's request to the hook, checked.

use super::config_json::{self, Bundle};
use super::state::State;
use crate::annotation::{self, Annotations, BrokenRules, Wishes};
use crate::config::Config;
use crate::container_identity::ContainerIdentity;
use crate::record::Names;
use crate::sys::file;
use anyhow::{Context, Result};

/// A valid request of one container.
#[derive(Debug)]
pub(super) struct Request {
    /// The settings that the container asks for.
    pub wishes: Wishes,
    pub names: Names,
    /// Its engine, if known.
    pub engine: Option<&'static str>,
    /// Whether the engine removes it, and its anonymous volumes, when it ends.
    pub auto_remove: bool,
    /// The parts of its config.json that the hook needs.
    pub bundle: Bundle,
}

/// The result of reading a bundle.
#[derive(Debug)]
pub(super) enum Asked {
    /// No pattern was requested, or it is a pod's sandbox.
    Nothing {
        /// Which, and what was requested for other containers of the pod.
        why: String,
    },
    /// The request breaks a rule.
    Refused {
        names: Names,
        /// Whether the container must not start without its core pattern.
        required: bool,
        /// The rules that are broken.
        why: BrokenRules,
    },
    /// The container asks for a pattern, and all of its values are valid.
    Request {
        request: Box<Request>,
        /// Whether the container must not start without its core pattern.
        required: bool,
    },
}

/// Reads `<bundle>/config.json`; for a container that requests nothing, only its annotations.
///
/// # Errors
/// config.json is missing, too large or not JSON.
pub(super) fn read(state: &State, config: &Config) -> Result<Asked> {
    let path = state.bundle.join("config.json");
    let open = std::fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let text = file::read_bounded(open, config_json::MAX, &path.display().to_string())?;
    let annotations = annotation::of_config_json(&text)?;
    if annotation::is_sandbox(&annotations) {
        return Ok(Asked::Nothing { why: "it is the sandbox of a pod".into() });
    }
    let identity = match ContainerIdentity::matters(&annotations, config.default_pattern.is_some())
    {
        true => ContainerIdentity::at(&state.id, &annotations, &text, &state.bundle),
        false => ContainerIdentity::of(&state.id, &annotations),
    };
    let container = identity.names.container_name.as_deref();
    let required = annotation::required(&annotations, container);
    let default = config.default_for(&identity.selectable(&annotations));
    let Some(wishes) = annotation::wishes(&annotations, container, default).transpose() else {
        for line in annotation::unknown(&annotations) {
            log::warn!("container {}: {line}", state.id);
        }
        if required {
            let why = anyhow::anyhow!(
                "oci-coredump/required is set, but no annotation asks for a pattern"
            );
            return Ok(Asked::Refused { names: identity.names, required, why: why.into() });
        }
        return Ok(Asked::Nothing { why: for_others(&annotations, container) });
    };
    let engine = identity.engine;
    let ContainerIdentity { names, auto_remove, .. } = identity;
    let wishes = match wishes {
        Ok(wishes) => wishes,
        Err(why) => return Ok(Asked::Refused { names, required, why }),
    };
    let request = Request { wishes, names, engine, auto_remove, bundle: Bundle::parse(&text)? };
    Ok(Asked::Request { request: Box::new(request), required })
}

/// That nothing is requested, and which keys are for containers of another name.
fn for_others(all: &Annotations, container: Option<&str>) -> String {
    let others: Vec<&str> =
        all.keys().filter(|k| k.contains(".oci-coredump/")).map(String::as_str).collect();
    if others.is_empty() {
        return "the container asks for nothing".into();
    }
    let called =
        container.map_or("has no name that is known".into(), |n| format!("is called {n:?}"));
    format!("the container asks for nothing: it {called}, not as in {}", others.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who insists on cores and says no pattern has made a mistake.
    #[test]
    fn required_without_a_pattern() {
        let dir = tempfile::tempdir().unwrap();
        let of = |annotations: &str| {
            let text = format!("{{\"annotations\": {{{annotations}}}}}");
            std::fs::write(dir.path().join("config.json"), text).unwrap();
            let bundle = dir.path().to_owned();
            let state = State { id: "one".into(), bundle, ..State::default() };
            read(&state, &Config::default()).unwrap()
        };
        let required = "\"oci-coredump/required\": \"true\"";
        assert!(matches!(of(required), Asked::Refused { required: true, .. }));
        let misspelt = format!("{required}, \"oci-coredump/patern\": \"/core\"");
        assert!(matches!(of(&misspelt), Asked::Refused { required: true, .. }));
        assert!(matches!(of("\"a\": \"b\""), Asked::Nothing { .. }));
        assert!(matches!(of("\"oci-coredump/required\": \"false\""), Asked::Nothing { .. }));
    }

    /// `podman kube play`: the bundle as podman lays it out, and what it keeps of its containers.
    #[test]
    fn one_container_of_a_pod_of_podmans() {
        let storage = tempfile::tempdir().unwrap();
        let all = storage.path().join("overlay-containers");
        let bundle = all.join("c1/userdata");
        std::fs::create_dir_all(&bundle).unwrap();
        let list = r#"[{"id":"c0"},{"id":"c1","names":["shop-web"],"metadata":
            "{\"image-name\":\"localhost/web:1\",\"name\":\"shop-web\"}"}]"#;
        std::fs::write(all.join("containers.json"), list).unwrap();
        let config = r#"{"process":{"env":["HOSTNAME=shop"]},"annotations":{
            "io.container.manager":"libpod","io.kubernetes.cri-o.SandboxID":"x",
            "web.oci-coredump/pattern":"/web/core","api.oci-coredump/pattern":"/api/core"}}"#;
        std::fs::write(bundle.join("config.json"), config).unwrap();
        let state = State { id: "c1".into(), bundle, ..State::default() };
        let Asked::Request { request, .. } = read(&state, &Config::default()).unwrap() else {
            panic!("it asks for nothing")
        };
        assert_eq!(request.wishes.key, "web.oci-coredump/pattern");
        let names = request.names;
        assert_eq!(
            (names.container_name.as_deref(), names.pod_name.as_deref(), names.image.as_deref()),
            (Some("web"), Some("shop"), Some("localhost/web:1"))
        );
    }
}
