//! TLS with real certificates, right and wrong, and proxies.

#[allow(dead_code)]
mod support;

use std::process::{Command, Output};
use support::servers::{Server, s3s, tinyproxy};
use support::tls::{Authority, front};
use support::{Fixture, stderr};

/// The settings for a server behind TLS on another port.
fn settings(fixture: &Fixture, port: u16, authority: Option<&Authority>) {
    let mut text = format!("url = \"s3://cores/node\"\nendpoint = \"https://localhost:{port}\"\n");
    if let Some(authority) = authority {
        std::fs::write(fixture.path("ca.pem"), &authority.pem).unwrap();
        text += &format!("ca_file = {:?}\n", fixture.path("ca.pem"));
    }
    fixture.configure(&text);
}

fn refused(out: &Output, server: &Server, words: &[&str]) {
    let said = stderr(out);
    let line = said.lines().find(|line| line.contains("not uploaded")).unwrap_or(&said);
    for word in words {
        assert!(!out.status.success() && line.contains(word), "{word}: {said}");
    }
    assert!(server.objects().is_empty());
}

#[test]
fn certificates() {
    let fixture = Fixture::new(1);
    let Some(server) = s3s(&fixture) else { return };
    let (ours, theirs) = (Authority::new(), Authority::new());
    let good = || front(ours.sign("localhost", true), server.port);

    settings(&fixture, good(), None);
    refused(&fixture.once(), &server, &["UnknownIssuer"]);
    settings(&fixture, good(), Some(&theirs));
    refused(&fixture.once(), &server, &["UnknownIssuer"]);
    settings(&fixture, front(ours.sign("elsewhere", true), server.port), Some(&ours));
    refused(&fixture.once(), &server, &["not valid for name \"localhost\"", "\"elsewhere\""]);
    settings(&fixture, front(ours.sign("localhost", false), server.port), Some(&ours));
    refused(&fixture.once(), &server, &["expired"]);
    // No TLS at all, where it is asked for.
    settings(&fixture, server.port, Some(&ours));
    refused(&fixture.once(), &server, &["not uploaded"]);
    // A file that has none.
    std::fs::write(fixture.path("ca.pem"), "nothing\n").unwrap();
    let said = stderr(&fixture.once());
    assert!(said.contains("ca.pem") && said.contains("no certificate in it"), "{said}");

    settings(&fixture, good(), Some(&ours));
    fixture.all();
    assert_eq!(server.objects().len(), 3);

    // The host's own certificates, by the variable that OpenSSL's users know too.
    std::fs::remove_dir_all(fixture.path("s3/cores/node")).unwrap();
    std::fs::remove_dir_all(fixture.path("state")).unwrap();
    settings(&fixture, good(), Some(&ours));
    let bundle = fixture.path("ca.pem");
    settings(&fixture, good(), None);
    support::succeed(fixture.ship(&["run", "--once"]).env("SSL_CERT_FILE", bundle));
    assert_eq!(server.objects().len(), 3);
}

/// A real proxy: HTTP is asked of it, TLS goes through it by CONNECT, and what NO_PROXY names does
/// neither.
#[test]
fn proxies() {
    let fixture = Fixture::new(20);
    let Some(server) = s3s(&fixture) else { return };
    let Some(proxy) = tinyproxy(&fixture) else { return };
    let ours = Authority::new();
    let port = front(ours.sign("localhost", true), server.port);
    let plain = server.settings(server.port).replace("127.0.0.1", "localhost");
    let log = || std::fs::read_to_string(fixture.path("proxy.log")).unwrap_or_default();
    let again = || {
        let _ = std::fs::remove_dir_all(fixture.path("s3/cores/node"));
        let _ = std::fs::remove_dir_all(fixture.path("state"));
        std::fs::write(fixture.path("proxy.log"), "").unwrap();
    };
    let run = |variables: &[(&str, String)]| {
        let mut command: Command = fixture.ship(&["run", "--once"]);
        support::succeed(command.envs(variables.iter().map(|(k, v)| (*k, v.as_str()))));
        assert_eq!(server.objects().len(), 3);
    };
    let url = format!("http://127.0.0.1:{}", proxy.port);

    again();
    settings(&fixture, port, Some(&ours));
    run(&[("HTTPS_PROXY", url.clone())]);
    assert!(log().contains(&format!("CONNECT localhost:{port} HTTP/1.1")), "{}", log());

    again();
    fixture.configure(&plain);
    run(&[("HTTP_PROXY", url.clone())]);
    let to = format!("PUT http://localhost:{}/cores/node/", server.port);
    assert!(log().contains(&to), "{}", log());

    again();
    run(&[("HTTP_PROXY", url.clone()), ("NO_PROXY", "example.org,localhost".into())]);
    assert!(!log().contains("localhost"), "{}", log());

    // One that is away is said so, in a line without its password.
    again();
    let dead = "http://user:hunter2@127.0.0.1:1".to_owned();
    let out = fixture.ship(&["run", "--once"]).env("HTTP_PROXY", dead).output().unwrap();
    let said = stderr(&out);
    assert!(!out.status.success() && said.contains("not uploaded"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
