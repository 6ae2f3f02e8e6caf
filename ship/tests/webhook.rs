//! The webhook: once for each crash, signed, and not more than some in a minute.

#[allow(dead_code)]
mod support;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use support::Fixture;

/// The headers and the body of a request.
type Request = (Vec<String>, Vec<u8>);

/// Takes requests, and answers each with `status`.
fn listen(status: u16) -> (u16, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (send, receive) = channel();
    support::http::serve(listener, move |request| {
        let _ = send.send((request.head.clone(), request.body.clone()));
        (status, String::new())
    });
    (port, receive)
}

fn configure(fixture: &Fixture, port: u16, more: &str) {
    std::fs::write(fixture.path("key"), "secret\n").unwrap();
    fixture.configure(&format!(
        "url = \"file://{}\"\n[upload.webhook]\nurl = \"http://127.0.0.1:{port}/hook\"\n\
         secret_file = {:?}\n{more}",
        fixture.path("out").display(),
        fixture.path("key")
    ));
}

#[test]
fn once_and_signed() {
    let fixture = Fixture::new(1);
    let (port, requests) = listen(200);
    configure(&fixture, port, "");
    fixture.all();
    fixture.all();
    let (head, body) = requests.try_recv().unwrap();
    assert!(requests.try_recv().is_err(), "told twice");
    let told: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&told["pod"], &told["signal"]), (&json!("shop-0"), &json!("SIGABRT")));
    assert!(told["report"].as_str().unwrap().ends_with("/report.html"));
    let signature =
        head.iter().find_map(|l| l.strip_prefix("x-oci-coredump-signature-256: sha256="));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"secret").unwrap();
    mac.update(&body);
    let own: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(signature, Some(own.as_str()));
}

/// One that fails is not told twice either: whether it has understood is not known.
#[test]
fn at_most_once() {
    let fixture = Fixture::new(1);
    let (port, requests) = listen(500);
    configure(&fixture, port, "");
    let out = fixture.all();
    assert!(support::stderr(&out).contains("the webhook was not told"));
    fixture.all();
    assert_eq!(requests.try_iter().count(), 1);
}

#[test]
fn a_loop_of_crashes() {
    let fixture = Fixture::new(1);
    std::fs::remove_file(&fixture.core).unwrap();
    let (port, requests) = listen(200);
    configure(&fixture, port, "per_minute = 3\n");
    for n in 0..8 {
        let time = format!("2026-03-10T10:31:0{n}Z");
        let id = format!("20260310T10310{n}Z-4711-4f3c9a1b2d5e");
        fixture.add(&id, json!({"time": time, "outcome": "none"}));
    }
    fixture.all();
    assert_eq!(requests.try_iter().count(), 3);
}
