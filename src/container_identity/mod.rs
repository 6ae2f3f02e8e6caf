//! Who a container is, as its engine tells it: by the annotations of config.json, by the engine's
//! own files beside the bundle, and for podman by the command line of conmon(8).
//!
//! In: annotations, config.json, the bundle's path. Out: a [`ContainerIdentity`]. Never asks an
//! engine: a hook that does waits for the engine, which waits for the hook.

mod conmon;
mod files;

use crate::annotation::{self, Annotations};
use crate::record::Names;
use serde::Deserialize;
use std::path::Path;

/// The container's names, and what else only its engine knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerIdentity {
    /// The names. The container's is that within its pod, if it is in one.
    pub names: Names,
    /// `containerd`, `cri-o`, `docker` or `podman`.
    pub engine: Option<&'static str>,
    /// Whether the engine removes the container, and its anonymous volumes, when it ends (`--rm`).
    pub auto_remove: bool,
}

/// The container's ID, after which engines name the bundle's directory; podman and CRI-O have a
/// directory `userdata` in it.
pub(crate) fn id_of(bundle: &Path) -> Option<&str> {
    let dir = if bundle.ends_with("userdata") { bundle.parent()? } else { bundle };
    dir.file_name()?.to_str()
}

/// The words of `[select]` that stand for what every engine calls otherwise.
const WORDS: [&str; 5] = ["namespace", "pod", "container", "image", "engine"];

impl ContainerIdentity {
    /// What the annotations tell.
    pub(crate) fn of(id: &str, all: &Annotations) -> Self {
        let get = |key: &str| all.get(key).cloned();
        let manager = all.get("io.container.manager").map(String::as_str);
        let engine = match manager {
            Some("cri-o") => Some("cri-o"),
            Some("libpod") => Some("podman"),
            _ if all.keys().any(|k| k.starts_with("io.kubernetes.cri.")) => Some("containerd"),
            _ if all.contains_key("nerdctl/name") => Some("containerd"),
            _ => None,
        };
        // On CRI-O a pod's own annotations are mixed with those of the engine, and could look like
        // containerd's: the engine's own come first.
        let crio = if engine == Some("cri-o") { Crio::of(all) } else { Crio::default() };
        let first = |own: Option<String>, mut keys: [&str; 2]| {
            if engine == Some("cri-o") {
                keys.reverse();
            }
            own.or_else(|| keys.iter().find_map(|key| get(key)))
        };
        let names = Names {
            container_id: id.to_owned(),
            container_name: first(
                crio.container,
                ["io.kubernetes.cri.container-name", "io.kubernetes.container.name"],
            )
            .or_else(|| get("nerdctl/name")),
            pod_name: first(crio.pod, ["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
            pod_namespace: first(
                crio.namespace,
                ["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"],
            ),
            image: first(None, ["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"]),
        };
        let auto_remove = all
            .get("io.podman.annotations.autoremove")
            .is_some_and(|v| v.eq_ignore_ascii_case("true"));
        ContainerIdentity { names, engine, auto_remove }
    }

    /// The same, and what the engine's own files tell. `config`: the text of config.json in
    /// `bundle`.
    pub(crate) fn at(id: &str, all: &Annotations, config: &[u8], bundle: &Path) -> Self {
        let mut found = ContainerIdentity::of(id, all);
        match found.engine {
            Some("podman") => {
                let kept = files::podman(id, bundle).unwrap_or_default();
                let name = conmon::name(id).or(kept.name);
                found.names.image = found.names.image.or(kept.image);
                let in_pod =
                    name.as_deref().and_then(|name| files::in_podmans_pod(name, all, config));
                match in_pod {
                    Some((pod, own)) => {
                        (found.names.pod_name, found.names.container_name) = (Some(pod), Some(own));
                    }
                    None => found.names.container_name = found.names.container_name.or(name),
                }
            }
            None if files::is_dockers(id, bundle) => {
                found.engine = Some("docker");
                if let Some(kept) = files::docker(id, config) {
                    found.names.container_name = kept.name;
                    found.names.image = kept.image;
                    found.auto_remove = kept.auto_remove;
                }
            }
            None if files::is_containerds(bundle) => found.engine = Some("containerd"),
            _ => {}
        }
        found.names = found.names.bounded();
        found
    }

    /// Whether anything could come of knowing more than the annotations tell: a container that
    /// requests nothing is not looked at.
    pub(crate) fn matters(all: &Annotations, has_default: bool) -> bool {
        has_default || all.keys().any(|key| annotation::is_own(key))
    }

    /// The annotations with the [`WORDS`], for `[select]`. An annotation of such a name does not
    /// count: anybody may have set it.
    pub(crate) fn selectable(&self, all: &Annotations) -> Annotations {
        let names = &self.names;
        let engine = self.engine.map(str::to_owned);
        let values =
            [&names.pod_namespace, &names.pod_name, &names.container_name, &names.image, &engine];
        let mut all = all.clone();
        for (word, value) in WORDS.into_iter().zip(values) {
            all.remove(word);
            all.extend(value.clone().map(|value| (word.to_owned(), value)));
        }
        all
    }
}

/// CRI-O's own annotations of a container. They hold the names that the client of the CRI gave,
/// which need not be a kubelet with its labels.
#[derive(Debug, Default)]
struct Crio {
    container: Option<String>,
    pod: Option<String>,
    namespace: Option<String>,
}

impl Crio {
    fn of(all: &Annotations) -> Self {
        #[derive(Deserialize)]
        struct Metadata {
            name: Option<String>,
        }
        let metadata = all.get("io.kubernetes.cri-o.Metadata");
        let container = metadata
            .and_then(|text| serde_json::from_str::<Metadata>(text).ok()?.name)
            .filter(|name| !name.is_empty());
        // k8s_POD_NAMESPACE_UID_ATTEMPT; with an underscore in a name it cannot be taken apart.
        let sandbox = all.get("io.kubernetes.cri-o.SandboxName");
        let parts: Vec<&str> = sandbox.map_or(vec![], |name| name.split('_').collect());
        let (pod, namespace) = match parts.as_slice() {
            ["k8s", pod, namespace, _, _] => {
                (Some((*pod).to_owned()), Some((*namespace).to_owned()))
            }
            _ => (None, None),
        };
        Crio { container, pod, namespace }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &[(&str, &str)]) -> Annotations {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn names_of_both_dialects() {
        let n = ContainerIdentity::of(
            "c1",
            &of(&[
                ("io.kubernetes.cri.container-name", "app"),
                ("io.kubernetes.pod.name", "web-0"),
            ]),
        );
        assert_eq!(
            (n.names.container_name.as_deref(), n.names.pod_name.as_deref(), n.names.image),
            (Some("app"), Some("web-0"), None)
        );
        assert_eq!(n.engine, Some("containerd"));
    }

    /// A pod of crictl's on CRI-O: no label of a kubelet, and an annotation that looks like
    /// containerd's.
    #[test]
    fn cri_o_without_a_kubelet() {
        let all = of(&[
            ("io.container.manager", "cri-o"),
            ("io.kubernetes.cri.container-name", "forged"),
            ("io.kubernetes.cri-o.Metadata", "{\"name\":\"app\",\"attempt\":2}"),
            ("io.kubernetes.cri-o.SandboxName", "k8s_web-0_shop_uid_0"),
            ("io.kubernetes.cri-o.ImageName", "registry/app:1"),
        ]);
        let found = ContainerIdentity::of("c", &all);
        let names = &found.names;
        let all_names =
            [&names.pod_namespace, &names.pod_name, &names.container_name, &names.image];
        assert_eq!(
            all_names.map(|name| name.as_deref().unwrap_or_default()),
            ["shop", "web-0", "app", "registry/app:1"]
        );
        for broken in ["", "[]", "{\"name\":7}", "{\"name\":\"\"}"] {
            let all = of(&[
                ("io.container.manager", "cri-o"),
                ("io.kubernetes.cri-o.Metadata", broken),
                ("io.kubernetes.container.name", "labelled"),
                ("io.kubernetes.cri-o.SandboxName", "k8s_a_b"),
            ]);
            let names = ContainerIdentity::of("c", &all).names;
            assert_eq!(names.container_name.as_deref(), Some("labelled"), "{broken}");
            assert_eq!(names.pod_name, None);
        }
    }

    #[test]
    fn words_of_select() {
        let all = of(&[
            ("io.kubernetes.cri.sandbox-namespace", "shop"),
            ("image", "forged"),
            ("team", "a"),
        ]);
        let can = ContainerIdentity::of("c", &all).selectable(&all);
        assert_eq!((can["namespace"].as_str(), can["engine"].as_str()), ("shop", "containerd"));
        assert_eq!((can.get("image"), can["team"].as_str()), (None, "a"));
    }
}
