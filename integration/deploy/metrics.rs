//! deploy/metrics: Prometheus takes the alert rules, the dashboard's expressions and the metrics.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::require;
use tempfile::TempDir;

/// What promtool says to `promtool check WHAT FILE`, or to its standard input.
fn promtool(what: &str, file: Option<&Path>, input: &[u8]) -> std::process::Output {
    let mut tool = Command::new("promtool");
    tool.args(["check", what]).args(file).stdin(Stdio::piped());
    let mut tool = tool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tool.stdin.take().unwrap().write_all(input).unwrap();
    tool.wait_with_output().unwrap()
}

/// The alert rules, the expressions of the dashboard, and the metrics themselves are what
/// Prometheus takes, and name metrics that there are.
#[test]
fn rules_and_dashboard() {
    if !require::programs(&["promtool"]) {
        return;
    }
    let deploy = support::program::repository().join("deploy/metrics");
    let rules = deploy.join("alerts.yml");
    let checked = promtool("rules", Some(&rules), b"");
    assert!(checked.status.success(), "{checked:?}");

    let dashboard = fs::read(deploy.join("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_slice(&dashboard).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter();
    let targets = targets.flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<String> = targets
        .map(|target| target["expr"].as_str().unwrap())
        .map(|query| query.replace("$__rate_interval", "5m").replace("$__range", "1d"))
        .collect();
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("queries.yml");
    let query = |query: &String| serde_json::json!({"record": "a:b", "expr": query});
    let all = queries.iter().map(query).collect::<Vec<_>>();
    let group = serde_json::json!({"groups": [{"name": "dashboard", "rules": all}]});
    fs::write(&file, group.to_string()).unwrap();
    let checked = promtool("rules", Some(&file), b"");
    assert!(checked.status.success(), "{checked:?}");

    fs::create_dir(scratch.path().join("records")).unwrap();
    let program = Command::new(support::program::program())
        .args(["metrics", "--store"])
        .arg(scratch.path())
        .output()
        .unwrap();
    let checked = promtool("metrics", None, &program.stdout);
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    let text = String::from_utf8(program.stdout).unwrap();
    let rules = fs::read_to_string(&rules).unwrap();
    for name in queries.iter().map(String::as_str).chain([rules.as_str()]).flat_map(names) {
        let family = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(text.contains(&format!("# TYPE {family} ")), "{family}: {text}");
    }
}

/// The names of our metrics in a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("oci_coredump_"))
}
