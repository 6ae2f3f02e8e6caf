//! Detects the engines of a host.

use super::Engine;
use std::path::Path;

/// What shows that an engine is there: its socket, or its program.
const SIGNS: [(Engine, &[&str]); 4] = [
    (
        Engine::Docker,
        &["/run/docker.sock", "/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd"],
    ),
    (
        Engine::Containerd,
        // The second is that of k3s and RKE2.
        &[
            "/run/containerd/containerd.sock",
            "/run/k3s/containerd/containerd.sock",
            "/usr/bin/containerd",
            "/usr/local/bin/containerd",
        ],
    ),
    (Engine::Podman, &["/usr/bin/podman", "/usr/local/bin/podman"]),
    (Engine::Crio, &["/run/crio/crio.sock", "/usr/bin/crio", "/usr/local/bin/crio"]),
];

/// The engines of this host.
pub(crate) fn detect() -> Vec<Engine> {
    among(|path| path.exists())
}

/// The engines of this host that serve a kubelet.
pub(crate) fn of_kubernetes() -> Vec<Engine> {
    detect().into_iter().filter(|e| matches!(e, Engine::Containerd | Engine::Crio)).collect()
}

fn among(exists: impl Fn(&Path) -> bool) -> Vec<Engine> {
    SIGNS
        .iter()
        .filter(|(_, signs)| signs.iter().any(|s| exists(Path::new(s))))
        .map(|(engine, _)| *engine)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs() {
        let with = |there: &[&str]| among(|p| there.iter().any(|t| p == Path::new(t)));
        assert_eq!(with(&[]), []);
        assert_eq!(
            with(&["/usr/bin/podman", "/run/crio/crio.sock"]),
            [Engine::Podman, Engine::Crio]
        );
        assert_eq!(
            with(&["/usr/sbin/dockerd", "/usr/bin/containerd", "/etc/crio"]),
            [Engine::Docker, Engine::Containerd]
        );
    }
}
