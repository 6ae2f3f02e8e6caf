//! The installed product, and what came of a crash.
use std::process::Command;

use serde_json::Value;

use crate::host::{BINARY, Host};
use crate::image::run;

/// The machine with the product's files on it, and nothing set up.
pub fn host() -> Host {
    crate::require::root();
    Host::installed("")
}

/// The installed product, which must succeed; what it says.
pub fn product(args: &[&str]) -> String {
    run(Command::new(BINARY).args(args))
}

/// What `doctor` says of an engine: verdicts and texts.
pub fn doctor(engine: &str, config: &std::path::Path) -> Vec<(String, String)> {
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
pub fn doctor_says(engine: &str, config: &std::path::Path, verdict: &str, words: &str) {
    let said = doctor(engine, config);
    assert!(
        matches!(said.as_slice(), [(v, text)] if v == verdict && text.contains(words)),
        "{engine}: {said:?}"
    );
}

/// The record of the container's only crash, whose core is whole and in its place.
pub fn core_of(host: &Host, container: &str) -> Value {
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
