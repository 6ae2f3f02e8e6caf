//! Where on the host a container's volume is, beyond what config.json says: the kubelet mounts a
//! part of a volume (`subPath`) at a path of its own, which goes with the pod, and engines mount
//! from there.

use crate::sys::file;
use crate::sys::proc::{MountPoint, Proc, mount_points};
use anyhow::Result;
use std::path::{Component, Path, PathBuf};

/// The directory below a pod's in which the kubelet mounts parts of volumes.
const SUBPATHS: &str = "volume-subpaths";

/// Whether a directory of the host is a volume of a pod's, below the kubelet's
/// `pods/<UID>/volumes`.
pub(super) fn is_of_pod(source: &str) -> bool {
    let parts: Vec<_> = Path::new(source).iter().collect();
    parts.windows(3).any(|three| three[0] == "pods" && three[2] == "volumes")
}

/// Where the directory is on the volume itself, if `source` is a part that the kubelet has mounted:
/// a path that is still there when the pod has gone. Best called by a child, since the volume may
/// not answer.
pub(super) fn on_itself(source: &Path) -> Result<Option<PathBuf>> {
    if !is_part(source) {
        return Ok(None);
    }
    let host = mount_points(&Proc::open(std::process::id() as i32)?.read("mountinfo")?);
    let id = file::open_dir(source).and_then(file::stat)?.id;
    let is_it =
        |path: &PathBuf| file::open_dir(path).and_then(file::stat).is_ok_and(|stat| stat.id == id);
    Ok(lasting(source, &host).into_iter().find(is_it))
}

fn is_part(path: &Path) -> bool {
    path.components().any(|part| part == Component::Normal(SUBPATHS.as_ref()))
}

/// The paths of the host that may lead to the same directory, those first that are no pod's.
fn lasting(source: &Path, host: &[MountPoint]) -> Vec<PathBuf> {
    let covers = |m: &&MountPoint| source.starts_with(&m.target);
    // Of mounts over each other the last one is seen.
    let Some(at) = host.iter().filter(covers).max_by_key(|m| m.target.components().count()) else {
        return Vec::new();
    };
    let rest = source.strip_prefix(&at.target).unwrap_or(Path::new(""));
    let wanted = MountPoint { root: join(&at.root, rest), ..at.clone() };
    let mut all = sources(&wanted, host);
    all.retain(|path| !is_part(path));
    all.sort_by_key(|path| path.iter().any(|part| part == "pods"));
    all
}

/// Where on the host the directory of a mount can be, the most likely path first.
pub(super) fn sources(wanted: &MountPoint, host: &[MountPoint]) -> Vec<PathBuf> {
    let mut all: Vec<_> = host
        .iter()
        .filter(|h| h.device == wanted.device)
        .filter_map(|h| Some((h, wanted.root.strip_prefix(&h.root).ok()?)))
        .collect();
    all.sort_by_key(|(h, _)| std::cmp::Reverse(h.root.components().count()));
    all.into_iter().map(|(h, rest)| join(&h.target, rest)).collect()
}

fn join(at: &Path, rest: &Path) -> PathBuf {
    if rest == Path::new("") { at.to_owned() } else { at.join(rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(device: &str, root: &str, target: &str) -> MountPoint {
        MountPoint {
            device: device.into(),
            root: root.into(),
            target: target.into(),
            read_only: false,
        }
    }

    fn texts(all: Vec<PathBuf>) -> Vec<String> {
        all.iter().map(|p| p.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn where_a_mount_comes_from() {
        let host =
            [point("8:1", "/", "/"), point("8:2", "/", "/srv"), point("8:1", "/data/x", "/mnt/x")];
        let of = |device: &str, root: &str| texts(sources(&point(device, root, "/dump"), &host));
        assert_eq!(of("8:1", "/data/x/y"), ["/mnt/x/y", "/data/x/y"]);
        assert_eq!(of("8:2", "/"), ["/srv"]);
        assert_eq!(of("0:77", "/"), Vec::<String>::new());
    }

    #[test]
    fn parts_of_volumes() {
        let pod = "/var/lib/kubelet/pods/u";
        let part = format!("{pod}/volume-subpaths/data/app/0");
        let host = |device: &str, root: &str| {
            [
                point("8:1", "/", "/"),
                point("8:9", "/", &format!("{pod}/volumes/kubernetes.io~csi/pv/mount")),
                point("8:9", "/", "/var/lib/kubelet/plugins/csi/globalmount"),
                point(device, root, &part),
            ]
        };
        let of = |device: &str, root: &str| texts(lasting(Path::new(&part), &host(device, root)));
        assert_eq!(of("8:1", "/srv/data/a"), ["/srv/data/a"]);
        assert_eq!(
            of("8:9", "/a"),
            [
                "/var/lib/kubelet/plugins/csi/globalmount/a".to_owned(),
                format!("{pod}/volumes/kubernetes.io~csi/pv/mount/a")
            ]
        );
        assert!(is_of_pod(&format!("{pod}/volumes/x")) && !is_of_pod(&format!("{pod}/etc-hosts")));
    }
}
