//! The adjustment for a container that requests a pattern. Pure.

use super::messages::{
    Container, ContainerAdjustment, CreateContainerRequest, Hook, Hooks, OptionalInt, PodSandbox,
    Rlimit,
};
use crate::annotation::{self, Annotations};
use crate::config::Config;
use crate::container_identity::ContainerIdentity;
use crate::engine::spec;

const CORE: &str = "RLIMIT_CORE";

/// The adjustment; `None` for a container that requests nothing. `program`: the hook. `reach`: the
/// hard limit that runtimes of this engine have, in bytes.
pub(super) fn adjust(
    request: &CreateContainerRequest,
    config: &Config,
    program: &str,
    reach: u64,
) -> Option<ContainerAdjustment> {
    let (pod, container) = (request.pod.clone().unwrap_or_default(), request.container.as_ref()?);
    let names = names(&pod, container);
    // The annotations that the hook will see in config.json: those of the engine, our keys
    // of the pod, and the names.
    let mut all = pod.annotations.clone();
    all.extend(names.clone());
    all.extend(container.annotations.clone());
    let asks = spec::asks(&all, &ContainerIdentity::of("", &all), config)?;
    let selected = |key: &String| annotation::is_own(key) || config.select.contains_key(key);
    let annotations = pod
        .annotations
        .into_iter()
        .filter(|(k, _)| selected(k))
        .chain(names)
        .filter(|(k, _)| !container.annotations.contains_key(k))
        .collect();
    let there = container.rlimits.iter().find(|l| l.r#type == CORE).map(|l| (l.soft, l.hard));
    let limit = if asks.valid { spec::core_limit(asks.limit, there, reach) } else { None };
    Some(ContainerAdjustment {
        annotations,
        hooks: hooks(container.hooks.as_ref(), program),
        rlimits: limit
            .into_iter()
            .map(|(soft, hard)| Rlimit { r#type: CORE.into(), hard, soft })
            .collect(),
    })
}

/// The container's names in the annotations of containerd's CRI plugin, if the
/// engine has not set its own.
fn names(pod: &PodSandbox, container: &Container) -> Annotations {
    let image = container.image.as_ref().map_or("", |i| &i.name);
    [
        (
            "io.kubernetes.cri.container-name",
            "io.kubernetes.container.name",
            container.name.as_str(),
        ),
        ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name", &pod.name),
        ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace", &pod.namespace),
        ("io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid", &pod.uid),
        ("io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", image),
    ]
    .into_iter()
    .filter(|(key, other, value)| {
        !value.is_empty()
            && !container.annotations.contains_key(*key)
            && !container.annotations.contains_key(*other)
    })
    .map(|(key, _, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Our hooks, except those that a base specification or hooks.d has added already.
fn hooks(there: Option<&Hooks>, program: &str) -> Option<Hooks> {
    let there = there.cloned().unwrap_or_default();
    let ours = |list: &[Hook], stage: &str| -> Vec<Hook> {
        if list.iter().any(|h| h.path == program) {
            return Vec::new();
        }
        let args = ["oci-coredump", "hook", stage].map(str::to_owned).to_vec();
        vec![Hook {
            path: program.to_owned(),
            args,
            timeout: Some(OptionalInt { value: spec::HOOK_TIMEOUT as i64 }),
        }]
    };
    let [create, start, stop] = spec::STAGES;
    let new = Hooks {
        create_runtime: ours(&there.create_runtime, create),
        poststart: ours(&there.poststart, start),
        poststop: ours(&there.poststop, stop),
    };
    (new != Hooks::default()).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &[(&str, &str)]) -> Annotations {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn request(pod: &[(&str, &str)], container: Container) -> CreateContainerRequest {
        let pod = PodSandbox {
            name: "web-0".into(),
            uid: "u".into(),
            namespace: "shop".into(),
            annotations: of(pod),
        };
        CreateContainerRequest { pod: Some(pod), container: Some(container) }
    }

    fn adjusted(request: &CreateContainerRequest) -> Option<ContainerAdjustment> {
        adjust(request, &Config::default(), "/p", u64::MAX)
    }

    #[test]
    fn who_does_not_ask_gets_nothing() {
        assert_eq!(adjusted(&request(&[("x", "y")], Container::default())), None);
        assert_eq!(adjusted(&CreateContainerRequest::default()), None);
    }

    #[test]
    fn a_pod_asks_for_its_containers() {
        let pod = [("k8s.aliyun.com/eci-core-pattern", "/d/core"), ("other", "z")];
        let a = adjusted(&request(&pod, Container { name: "app".into(), ..Container::default() }))
            .unwrap();
        assert_eq!(a.annotations["k8s.aliyun.com/eci-core-pattern"], "/d/core");
        assert_eq!(a.annotations["io.kubernetes.cri.container-name"], "app");
        assert_eq!(a.annotations["io.kubernetes.cri.sandbox-namespace"], "shop");
        assert!(
            !a.annotations.contains_key("other")
                && !a.annotations.contains_key("io.kubernetes.cri.image-name")
        );
        assert_eq!(a.rlimits, [Rlimit { r#type: CORE.into(), hard: u64::MAX, soft: u64::MAX }]);
        let hooks = a.hooks.unwrap();
        assert_eq!(hooks.create_runtime[0].args, ["oci-coredump", "hook", "createRuntime"]);
        assert_eq!((hooks.poststart.len(), hooks.poststop.len()), (1, 1));
    }

    #[test]
    fn one_container_of_a_pod() {
        let pod = [("app.oci-coredump/pattern", "/d/core")];
        let named =
            |name: &str| request(&pod, Container { name: name.into(), ..Container::default() });
        assert!(adjusted(&named("app")).is_some());
        assert_eq!(adjusted(&named("sidecar")), None);
    }

    #[test]
    fn what_the_engine_says_stays() {
        let said =
            of(&[("io.kubernetes.container.name", "app"), ("oci-coredump/pattern", "/mine")]);
        let rlimits = vec![Rlimit { r#type: CORE.into(), hard: 9, soft: 0 }];
        let there = Hooks {
            create_runtime: vec![Hook { path: "/p".into(), ..Hook::default() }],
            ..Hooks::default()
        };
        let container = Container {
            name: "app".into(),
            annotations: said,
            rlimits,
            hooks: Some(there),
            ..Container::default()
        };
        let a = adjusted(&request(&[("oci-coredump/pattern", "/pods")], container)).unwrap();
        assert!(
            !a.annotations.contains_key("oci-coredump/pattern")
                && !a.annotations.contains_key("io.kubernetes.cri.container-name")
        );
        assert_eq!(a.rlimits, [Rlimit { r#type: CORE.into(), hard: 9, soft: 9 }]);
        assert_eq!(a.hooks.unwrap().create_runtime, []);
    }

    #[test]
    fn the_administrators_selection() {
        let config = Config::parse(
            "default_pattern = \"/d/core\"\n[select]\n\
             \"io.kubernetes.cri.sandbox-namespace\" = \"shop\"\n\"team\" = \"*\"",
        )
        .unwrap();
        let a = adjust(&request(&[("team", "a")], Container::default()), &config, "/p", 0).unwrap();
        assert_eq!((a.annotations["team"].as_str(), a.rlimits.len()), ("a", 0));
        assert_eq!(adjust(&request(&[], Container::default()), &config, "/p", 0), None);
    }
}
