//! The event of a pod: what the API server gets, by the published schema, once and not too often.
//! No API server runs here: the test's own server takes what comes, by TLS. A real one does in
//! integration/conformance/cluster_pods.rs.

#[allow(dead_code)]
mod support;

use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use support::http::serve;
use support::tls::{Authority, front};
use support::{Fixture, ID, stderr};

const TOKEN: &str = "eyJhbGciOi.of-the-test";

/// An API server that answers each request with `status`: its port, and what it gets.
fn api(fixture: &Fixture, status: u16) -> (u16, Receiver<(Vec<String>, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (send, receive) = channel();
    serve(listener, move |request| {
        let body = serde_json::from_slice(&request.body).unwrap_or_default();
        let _ = send.send((request.head.clone(), body));
        (status, "{}".into())
    });
    let ours = Authority::new();
    std::fs::create_dir_all(fixture.path("account")).unwrap();
    std::fs::write(fixture.path("account/ca.crt"), &ours.pem).unwrap();
    std::fs::write(fixture.path("account/token"), TOKEN).unwrap();
    (front(ours.sign("127.0.0.1", true), port), receive)
}

fn run(fixture: &Fixture, port: u16) -> Command {
    let mut command = fixture.ship(&["run", "--once", "--node", "n1"]);
    command
        .env("OCI_COREDUMP_SERVICE_ACCOUNT", fixture.path("account"))
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", port.to_string());
    command
}

fn configure(fixture: &Fixture) {
    let out = fixture.path("out");
    fixture.configure(&format!("url = \"file://{}\"\nevent = true\n", out.display()));
}

/// What Kubernetes' published schemas say of the event; `None` where they are not there.
fn objections(event: &Value) -> Option<String> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let tools = home.join(".cache/oci-coredump-test/python");
    if !tools.join("kubernetes_validate").is_dir() {
        support::require::skip("kubernetes-validate is not installed");
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../integration/deploy/validate.py");
    let mut python = Command::new("python3")
        .args(["-B", script, "1.27", "1.37"])
        .env("PYTHONPATH", tools)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(event.to_string().as_bytes()).unwrap();
    let out = python.wait_with_output().unwrap();
    Some(if out.status.success() { String::new() } else { stderr(&out) })
}

#[test]
fn once_and_by_the_schema() {
    let fixture = Fixture::new(1);
    let (port, requests) = api(&fixture, 201);
    configure(&fixture);
    let uid = "0f3c8a1e-6f0b-4c6b-9f64-9d4c52d0a5f1";
    fixture.add(ID, json!({"pod_uid": uid}));
    support::succeed(&mut run(&fixture, port));
    support::succeed(&mut run(&fixture, port));
    let (head, event) = requests.try_recv().unwrap();
    assert!(requests.try_recv().is_err(), "told twice");
    assert_eq!(head[0], "POST /api/v1/namespaces/prod/events HTTP/1.1");
    assert!(head.contains(&format!("authorization: Bearer {TOKEN}")), "{head:?}");
    assert_eq!(event["involvedObject"]["name"], "shop-0");
    assert_eq!(event["involvedObject"]["uid"], uid);
    assert_eq!(event["involvedObject"]["fieldPath"], "spec.containers{web}");
    assert!(event["message"].as_str().unwrap().contains("SIGABRT of process 12"));
    let Some(said) = objections(&event) else { return };
    assert_eq!(said, "");
    // The schemas do refuse what is wrong.
    let mut wrong = event.clone();
    wrong["involvedObject"] = json!("shop-0");
    assert_ne!(objections(&wrong).unwrap(), "");
    wrong = event;
    wrong["kount"] = json!(1);
    assert_ne!(objections(&wrong).unwrap(), "");
}

/// One that is there already, and a service account that may not: no second try.
#[test]
fn refused() {
    for (status, words) in [(409, ""), (403, "no event was made: HTTP status client error (403")] {
        let fixture = Fixture::new(1);
        let (port, requests) = api(&fixture, status);
        configure(&fixture);
        let said = stderr(&support::succeed(&mut run(&fixture, port)));
        assert!(said.contains(words) && said.contains("no event") != words.is_empty(), "{said}");
        assert!(!said.contains(TOKEN), "{said}");
        support::succeed(&mut run(&fixture, port));
        assert_eq!(requests.try_iter().count(), 1, "{status}");
    }
}

/// An API server with another certificate than the service account's gets nothing.
#[test]
fn not_of_this_cluster() {
    let fixture = Fixture::new(1);
    let (port, requests) = api(&fixture, 201);
    std::fs::write(fixture.path("account/ca.crt"), Authority::new().pem).unwrap();
    configure(&fixture);
    let said = stderr(&support::succeed(&mut run(&fixture, port)));
    assert!(said.contains("no event was made") && said.contains("UnknownIssuer"), "{said}");
    assert_eq!(requests.try_iter().count(), 0);
}

#[test]
fn a_loop_of_crashes() {
    let fixture = Fixture::new(1);
    std::fs::remove_file(&fixture.core).unwrap();
    let (port, requests) = api(&fixture, 201);
    configure(&fixture);
    for n in 10..40 {
        let time = format!("2026-03-10T10:31:{n}Z");
        let id = format!("20260310T1031{n}Z-4711-4f3c9a1b2d5e");
        fixture.add(&id, json!({"time": time, "outcome": "none"}));
    }
    let start = std::time::Instant::now();
    support::succeed(&mut run(&fixture, port));
    // Twenty in a minute, and what the time that it took allows.
    let most = 20 * (1 + start.elapsed().as_secs() as usize / 60);
    let told = requests.try_iter().count();
    assert!((20..=most).contains(&told), "{told}");
}
