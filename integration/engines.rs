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
#[path = "engines/image.rs"]
mod image;
#[path = "engines/photo.rs"]
mod photo;
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

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};

use serde_json::Value;
use support::host::{BINARY, Host};

/// The machine with the product's files on it, and nothing set up.
fn host() -> Host {
    support::require::root();
    Host::installed("")
}

/// The installed product, which must succeed; what it says.
fn product(args: &[&str]) -> String {
    image::run(Command::new(BINARY).args(args))
}

/// What `doctor` says of an engine: verdicts and texts.
fn doctor(engine: &str, config: &std::path::Path) -> Vec<(String, String)> {
    let said = Command::new(BINARY)
        .args(["doctor", engine, "--json", "--config"])
        .arg(config)
        .output()
        .unwrap();
    let checks: Vec<Value> = serde_json::from_slice(&said.stdout).unwrap();
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    checks
        .iter()
        .filter(|c| c["check"] == engine)
        .map(|c| (text(c, "verdict"), text(c, "text")))
        .collect()
}

/// Panics unless it says just one thing of the engine, with this verdict and these words in it.
fn doctor_says(engine: &str, config: &std::path::Path, verdict: &str, words: &str) {
    let said = doctor(engine, config);
    assert!(
        matches!(said.as_slice(), [(v, text)] if v == verdict && text.contains(words)),
        "{engine}: {said:?}"
    );
}

/// The record of the container's only crash, whose core is whole and in its place.
fn core_of(host: &Host, container: &str) -> Value {
    let mut records = host.records_of(container);
    assert_eq!(
        records.len(),
        1,
        "records of {container}: {records:#?}; all: {:#?}",
        host.records()
    );
    let record = records.remove(0);
    assert_eq!(
        (&record["outcome"], &record["signal_name"], &record["comm"]),
        (&"written".into(), &"SIGSEGV".into(), &"crasher".into()),
        "{record}"
    );
    let core = std::fs::read(record["host_path"].as_str().unwrap()).unwrap();
    assert!(
        core.starts_with(b"\x7fELF") && core.len() as u64 == record["size"].as_u64().unwrap(),
        "{record}"
    );
    record
}

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

/// A process whose standard error is read; killed on drop.
struct Background {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
    seen: String,
}

impl Background {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        Self { child, lines, seen: String::new() }
    }

    /// Reads on until `text` has been said so many times.
    fn wait_for(&mut self, text: &str, times: usize) {
        while self.seen.matches(text).count() < times {
            assert_ne!(
                self.lines.read_line(&mut self.seen).unwrap(),
                0,
                "it has ended: {}",
                self.seen
            );
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
