//! The engines, real daemons in scratch directories: install, run, crash, core in place, uninstall,
//! host as before. Needs root and the machine's `core_pattern`: run it with `--test-threads=1`.
#[path = "engines/by_hooks.rs"]
mod by_hooks;
#[path = "engines/by_wrapper.rs"]
mod by_wrapper;
#[path = "engines/containerd.rs"]
mod containerd;
#[path = "engines/docker.rs"]
mod docker;
#[path = "engines/podman_pods.rs"]
mod podman_pods;
#[path = "engines/pods.rs"]
mod pods;
#[path = "engines/rootless.rs"]
mod rootless;
#[path = "engines/rootless_attacks.rs"]
mod rootless_attacks;
#[path = "engines/suite.rs"]
mod suite;

use std::process::Command;

use support::host::Host;
use support::product::{core_of, product};

/// Gives a running container a pattern by the tool of its engine, crashes in it,
/// and takes the pattern back.
fn enabled(host: &Host, id: &str, name: &str, by: Command, crash: impl Fn()) {
    let words: Vec<&str> = std::iter::once(by.get_program())
        .chain(by.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    let said = product(&["enable", name, "--by", &words.join(" "), "--pattern", "/enabled/core"]);
    assert!(
        said.starts_with(&format!("container {id} has the core pattern /enabled/core\n")),
        "{said}"
    );
    crash();
    assert_eq!(
        core_of(host, id)["core_path"].as_str().unwrap().rsplit_once('.').unwrap().0,
        "/enabled/core"
    );
    product(&["disable", name]);
    crash();
    assert_eq!(host.records_of(id).len(), 1);
}
