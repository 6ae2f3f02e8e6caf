//! Detects the engines of a host.

use super::Engine;
use std::path::Path;

/// What shows that an engine is there: its program in one of [`DIRECTORIES`], or its socket.
const SIGNS: [(Engine, &str, &[&str]); 4] = [
    (Engine::Docker, "dockerd", &["/run/docker.sock"]),
    (
        Engine::Containerd,
        "containerd",
        // The second is that of k3s and RKE2.
        &["/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock"],
    ),
    (Engine::Podman, "podman", &[]),
    (Engine::Crio, "crio", &["/run/crio/crio.sock"]),
];

const DIRECTORIES: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// The engines of this host.
pub(crate) fn detect() -> Vec<Engine> {
    among(|path| path.exists())
}

/// Whether the engine is on this host, or at least a configuration of it.
pub(crate) fn is_there(engine: Engine) -> bool {
    detect().contains(&engine) || engine != Engine::Podman && engine.config().exists()
}

/// The engines of this host that serve a kubelet.
pub(crate) fn of_kubernetes() -> Vec<Engine> {
    detect().into_iter().filter(|e| matches!(e, Engine::Containerd | Engine::Crio)).collect()
}

fn among(exists: impl Fn(&Path) -> bool) -> Vec<Engine> {
    let is_there = |program: &str, sockets: &[&str]| {
        DIRECTORIES.iter().any(|dir| exists(&Path::new(dir).join(program)))
            || sockets.iter().any(|socket| exists(Path::new(socket)))
    };
    let found = SIGNS.iter().filter(|(_, program, sockets)| is_there(program, sockets));
    found.map(|(engine, ..)| *engine).collect()
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
