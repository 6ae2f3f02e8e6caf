//! What podman and Docker keep in files of their own beside the bundle. The files are the engine's,
//! no container can write them.

use crate::annotation::Annotations;
use crate::sys::file;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes. podman's has about a KiB for each container.
const MAX: usize = 16 << 20;

/// What an engine keeps of a container.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The name that users know.
    pub name: Option<String>,
    /// The image, as it was named.
    pub image: Option<String>,
    /// Whether the container is removed when it ends.
    pub auto_remove: bool,
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let open = std::fs::File::open(path).ok()?;
    file::read_bounded(open, MAX, "").ok()
}

/// podman's bundle is `<storage>/<driver>-containers/<ID>/userdata`; the list of the storage's
/// containers is beside the containers' directories.
pub(super) fn podman(id: &str, bundle: &Path) -> Option<Kept> {
    #[derive(Deserialize)]
    struct Container {
        id: String,
        metadata: Option<String>,
    }
    /// The text in `metadata`.
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Metadata {
        image_name: Option<String>,
        name: Option<String>,
    }
    let own = bundle.parent().filter(|dir| dir.ends_with(id))?;
    let find = |list: &str| {
        let text = read(&own.with_file_name(list))?;
        let all: Vec<Container> = serde_json::from_slice(&text).ok()?;
        let metadata = all.into_iter().find(|c| c.id == id)?.metadata?;
        serde_json::from_str::<Metadata>(&metadata).ok()
    };
    // The second list is that of containers that are not to survive a reboot.
    let found = ["containers.json", "volatile-containers.json"].into_iter().find_map(find)?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    Some(Kept { name: given(found.name), image: given(found.image_name), auto_remove: false })
}

/// The pod and the name in it of a container that `podman kube play` has named `POD-NAME`: it
/// annotates what is in a pod with the sandbox, and the pod's name is the host name in it.
pub(super) fn in_podmans_pod(
    name: &str,
    all: &Annotations,
    config: &[u8],
) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Config {
        process: Process,
    }
    #[derive(Deserialize)]
    struct Process {
        env: Vec<String>,
    }
    all.get("io.kubernetes.cri-o.SandboxID")?;
    let config: Config = serde_json::from_slice(config).ok()?;
    let pod = config.process.env.iter().find_map(|e| e.strip_prefix("HOSTNAME="))?;
    let own = name.strip_prefix(pod)?.strip_prefix('-').filter(|own| !own.is_empty())?;
    Some((pod.to_owned(), own.to_owned()))
}

/// containerd's bundles are `<state>/io.containerd.runtime.v2.task/<namespace>/<ID>`.
pub(super) fn is_containerds(bundle: &Path) -> bool {
    let task = bundle.parent().and_then(Path::parent).and_then(Path::file_name);
    task.and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("io.containerd.runtime."))
}

/// Docker's containers are in the namespace `moby` of its containerd.
pub(super) fn is_dockers(id: &str, bundle: &Path) -> bool {
    is_containerds(bundle) && bundle.ends_with(Path::new("moby").join(id))
}

/// Docker keeps its containers in `<data root>/containers/<ID>`. The data root is where some of the
/// container's files in /etc are mounted from, else the usual one.
pub(super) fn docker(id: &str, config: &[u8]) -> Option<Kept> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Container {
        name: Option<String>,
        config: Option<Image>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Image {
        image: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Host {
        auto_remove: Option<bool>,
    }
    let dir = dockers_directory(id, config);
    let container: Container = serde_json::from_slice(&read(&dir.join("config.v2.json"))?).ok()?;
    let host = read(&dir.join("hostconfig.json"));
    let host = host.and_then(|text| serde_json::from_slice::<Host>(&text).ok());
    Some(Kept {
        name: container.name.map(|name| name.trim_start_matches('/').to_owned()),
        image: container.config.and_then(|config| config.image),
        auto_remove: host.and_then(|host| host.auto_remove) == Some(true),
    })
}

fn dockers_directory(id: &str, config: &[u8]) -> PathBuf {
    #[derive(Deserialize)]
    struct Config {
        mounts: Vec<Mount>,
    }
    #[derive(Deserialize)]
    struct Mount {
        destination: PathBuf,
        #[serde(default)]
        source: PathBuf,
    }
    let own = Path::new("containers").join(id);
    let mounts = serde_json::from_slice::<Config>(config).map_or(vec![], |config| config.mounts);
    mounts
        .iter()
        .filter(|mount| mount.destination.starts_with("/etc"))
        .find_map(|mount| mount.source.parent().filter(|dir| dir.ends_with(&own)))
        .map_or_else(|| Path::new("/var/lib/docker").join(&own), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_a_pod_of_podmans() {
        let sandbox = [("io.kubernetes.cri-o.SandboxID".to_owned(), "x".to_owned())].into();
        let config =
            |host: &str| format!("{{\"process\":{{\"env\":[\"A=b\",\"HOSTNAME={host}\"]}}}}");
        let of = |name: &str, host: &str| in_podmans_pod(name, &sandbox, config(host).as_bytes());
        let is = |pod: &str, own: &str| Some((pod.to_owned(), own.to_owned()));
        assert_eq!(of("shop-web", "shop"), is("shop", "web"));
        assert_eq!(of("a-b-web-1", "a-b"), is("a-b", "web-1"));
        assert_eq!(
            (of("shopweb", "shop"), of("shop-", "shop"), of("shop", "shop")),
            (None, None, None)
        );
        let alone = in_podmans_pod("shop-web", &Annotations::new(), config("shop").as_bytes());
        assert_eq!((alone, in_podmans_pod("shop-web", &sandbox, b"{}")), (None, None));
    }

    #[test]
    fn what_docker_keeps() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("containers/ab");
        std::fs::create_dir_all(&own).unwrap();
        let v2 = r#"{"Name":"/web","Config":{"Image":"nginx:1"},"State":{}}"#;
        std::fs::write(own.join("config.v2.json"), v2).unwrap();
        std::fs::write(own.join("hostconfig.json"), r#"{"AutoRemove":true}"#).unwrap();
        let config = format!(
            "{{\"mounts\":[{{\"destination\":\"/proc\"}},\
             {{\"destination\":\"/etc/hosts\",\"source\":\"{}/hosts\"}}]}}",
            own.display()
        );
        let kept = docker("ab", config.as_bytes()).unwrap();
        assert_eq!((kept.name.as_deref(), kept.image.as_deref()), (Some("web"), Some("nginx:1")));
        assert!(kept.auto_remove && docker("cd", config.as_bytes()).is_none());
        let task = "/run/x/io.containerd.runtime.v2.task";
        assert!(is_dockers("ab", Path::new(&format!("{task}/moby/ab"))));
        assert!(!is_dockers("ab", Path::new("/srv/moby/ab")));
        assert!(is_containerds(Path::new(&format!("{task}/k8s.io/ab"))));
    }
}
