//! A container's request to the hook, checked.

use super::bundle::{self, Bundle};
use super::conmon;
use super::state::State;
use crate::annotation::{self, Annotations, Wishes};
use crate::config::Config;
use crate::record::Names;
use crate::sys::file;
use anyhow::{Context, Result};

/// A valid request of one container.
#[derive(Debug)]
pub(super) struct Request {
    /// The settings that the container asks for.
    pub wishes: Wishes,
    pub names: Names,
    /// The parts of its config.json that the hook needs.
    pub bundle: Bundle,
}

/// The result of reading a bundle.
#[derive(Debug)]
pub(super) enum Asked {
    /// No pattern was requested, or it is a pod's sandbox.
    Nothing,
    /// The request breaks a rule.
    Refused {
        names: Names,
        /// Whether the container must not start without its core pattern.
        required: bool,
        /// The rule that is broken.
        why: anyhow::Error,
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
    let text = file::read_bounded(open, bundle::MAX, &path.display().to_string())?;
    let annotations = bundle::annotations(&text)?;
    if annotation::is_sandbox(&annotations) {
        return Ok(Asked::Nothing);
    }
    let mut names = names(&state.id, &annotations);
    let container = names.container_name.as_deref();
    let required = annotation::required(&annotations, container);
    let Some(wishes) =
        annotation::wishes(&annotations, container, config.default_for(&annotations)).transpose()
    else {
        for line in annotation::unknown(&annotations) {
            log::warn!("container {}: {line}", state.id);
        }
        if required {
            let why = anyhow::anyhow!(
                "oci-coredump/required is set, but no annotation asks for a pattern"
            );
            return Ok(Asked::Refused { names: names.bounded(), required, why });
        }
        return Ok(Asked::Nothing);
    };
    if names.container_name.is_none() {
        names.container_name = conmon::name(&state.id, &annotations);
    }
    let names = names.bounded();
    let wishes = match wishes {
        Ok(wishes) => wishes,
        Err(why) => return Ok(Asked::Refused { names, required, why }),
    };
    let request = Request { wishes, names, bundle: Bundle::parse(&text)? };
    Ok(Asked::Request { request: Box::new(request), required })
}

/// The names that containerd's CRI plugin and CRI-O give. On CRI-O a pod's own annotations are
/// mixed with those of the engine, and could look like containerd's.
fn names(id: &str, annotations: &Annotations) -> Names {
    let by_crio = annotations.get("io.container.manager").is_some_and(|m| m == "cri-o");
    let first = |mut keys: [&str; 2]| {
        if by_crio {
            keys.reverse();
        }
        keys.iter().find_map(|k| annotations.get(*k)).cloned()
    };
    Names {
        container_id: id.to_owned(),
        container_name: annotation::container_name(annotations).map(str::to_owned),
        pod_name: first(["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
        pod_namespace: first([
            "io.kubernetes.cri.sandbox-namespace",
            "io.kubernetes.pod.namespace",
        ]),
        image: first(["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"]),
    }
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
        assert!(matches!(of("\"a\": \"b\""), Asked::Nothing));
        assert!(matches!(of("\"oci-coredump/required\": \"false\""), Asked::Nothing));
    }

    #[test]
    fn names_of_both_dialects() {
        let of = |list: &[(&str, &str)]| {
            list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Annotations>()
        };
        let n = names(
            "c1",
            &of(&[
                ("io.kubernetes.cri.container-name", "app"),
                ("io.kubernetes.pod.name", "web-0"),
            ]),
        );
        assert_eq!(
            (n.container_name.as_deref(), n.pod_name.as_deref(), n.image),
            (Some("app"), Some("web-0"), None)
        );
    }
}
