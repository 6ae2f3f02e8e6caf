//! Records, states, servers and configurations as they should not be: what can be uploaded is, the
//! rest is said in one line, and nothing hangs or takes the machine's memory.

#[allow(dead_code)]
mod support;

use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::servers::s3s;
use support::wait::{becomes, wait_for};
use support::{Fixture, ID, stderr, succeed};

/// No step takes this long.
const DEADLINE: Duration = Duration::from_secs(120);

const DIR: &str = "prod/shop-0/web";

fn to_directory(fixture: &Fixture, name: &str) -> String {
    format!("url = \"file://{}\"", fixture.path(name).display())
}

/// Ended on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is known without the core is uploaded, at the first try of `--once`.
#[test]
fn a_core_that_cannot_be_read() {
    let fixture = Fixture::new(1);
    fixture.configure(&to_directory(&fixture, "out"));
    for (content, why) in [(&b""[..], "it is empty"), (b"no core", "it is not an ELF file")] {
        std::fs::write(&fixture.core, content).unwrap();
        let out = fixture.all();
        assert!(stderr(&out).contains(why), "{}", stderr(&out));
        let dir = fixture.path(&format!("out/{DIR}/{ID}"));
        assert!(dir.join("record.json").exists() && dir.join("report.html").exists());
        assert!(!dir.join("coredump.tar.zst").exists());
        std::fs::remove_dir_all(fixture.path("out")).unwrap();
        std::fs::remove_dir_all(fixture.path("state")).unwrap();
    }
}

/// A server whose error never ends. The memory that it takes is bounded, and so is the message.
#[test]
fn an_error_without_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                while stream.write_all(&[b'x'; 64 << 10]).is_ok() {}
            });
        }
    });
    let fixture = Fixture::new(1);
    fixture.configure(&format!(
        "url = \"s3://cores/x\"\nallow_http = true\nendpoint = \"http://127.0.0.1:{port}\""
    ));
    let mut child = fixture.ship(&["run", "--once"]);
    let mut child = Running(child.stderr(Stdio::piped()).spawn().unwrap());
    let mut most = 0;
    wait_for("its end", DEADLINE, || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.0.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0u64);
        most = most.max(kib);
        child.0.try_wait().unwrap().is_some()
    });
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(most <= 64 << 10, "{most} KiB");
    assert!(said.contains("400") && said.lines().all(|line| line.len() < 2000), "{said}");
}

/// What would have to be waited for, or is somebody else's, is left; the others are uploaded.
#[test]
fn files_that_are_no_records() {
    let fixture = Fixture::new(1);
    fixture.configure(&to_directory(&fixture, "out"));
    let records = fixture.path("store/records");
    let fifo = |path: std::path::PathBuf| succeed(Command::new("mkfifo").arg(path));
    fifo(records.join("20260310T103001Z-1-000000000000.jsonl"));
    std::os::unix::fs::symlink("/dev/zero", records.join("20260310T103002Z-1-000000000000.jsonl"))
        .unwrap();
    let linked = "20260310T103004Z-4711-4f3c9a1b2d5e";
    let elsewhere = fixture.path("elsewhere.jsonl");
    fixture.add(linked, json!({"time": "2026-03-10T10:30:04Z"}));
    std::fs::rename(records.join(format!("{linked}.jsonl")), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, records.join(format!("{linked}.jsonl"))).unwrap();
    let planted = "20260310T103003Z-4711-4f3c9a1b2d5e";
    fixture.add(planted, json!({"time": "2026-03-10T10:30:03Z"}));
    let path = records.join(format!("{planted}.jsonl"));
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    std::fs::create_dir(fixture.path("state")).unwrap();
    fifo(fixture.path(&format!("state/{ID}.parts")));
    let mut child = Running(fixture.ship(&["run", "--once"]).spawn().unwrap());
    let ended = || child.0.try_wait().unwrap();
    let status = wait_for("its end", DEADLINE, ended);
    assert!(status.success());
    assert!(fixture.path(&format!("out/{DIR}/{ID}/record.json")).exists());
    for (id, what) in [(planted, "somebody else's record"), (linked, "a link")] {
        assert!(!fixture.path(&format!("out/{DIR}/{id}")).exists(), "{what}");
    }
}

/// What the configuration says now counts, and one that cannot be read stops all uploads.
#[test]
fn a_configuration_that_changes() {
    let fixture = Fixture::new(1);
    fixture.configure(&to_directory(&fixture, "one"));
    let mut child = fixture.ship(&["run"]);
    let mut child = Running(child.stderr(Stdio::piped()).spawn().unwrap());
    let mut said = std::io::BufReader::new(child.0.stderr.take().unwrap());
    let lines = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let all = lines.clone();
    std::thread::spawn(move || {
        let mut line = String::new();
        while std::io::BufRead::read_line(&mut said, &mut line).is_ok_and(|n| n > 0) {
            all.lock().unwrap().push_str(&line);
            line.clear();
        }
    });
    let second = "20260310T103001Z-4711-4f3c9a1b2d5e";
    let third = "20260310T103002Z-4711-4f3c9a1b2d5e";
    let at = |place: &str, id: &str| fixture.path(&format!("{place}/{DIR}/{id}/record.json"));
    wait_for("the first", DEADLINE, || at("one", ID).exists());
    fixture.configure(&to_directory(&fixture, "two"));
    wait_for("that it is read", DEADLINE, || lines.lock().unwrap().contains("again"));
    fixture.add(second, json!({"time": "2026-03-10T10:30:01Z"}));
    wait_for("the second", DEADLINE, || at("two", second).exists());
    assert!(!at("one", second).exists() && !at("two", ID).exists());
    fixture.configure(&format!("{}\nurll = \"x\"", to_directory(&fixture, "two")));
    wait_for("its mistake", DEADLINE, || lines.lock().unwrap().contains("urll"));
    fixture.add(third, json!({"time": "2026-03-10T10:30:02Z"}));
    assert!(!becomes(Duration::from_secs(8), || at("two", third).exists()));
    fixture.configure(&to_directory(&fixture, "three"));
    wait_for("the third", DEADLINE, || at("three", third).exists());
    succeed(Command::new("kill").args(["-HUP", &child.0.id().to_string()]));
    succeed(Command::new("kill").args(["-TERM", &child.0.id().to_string()]));
    assert!(wait_for("its end", DEADLINE, || child.0.try_wait().unwrap()).success());
}

/// `cat` hands on nothing whose hash it cannot compare, and a directory may have a dot in its name.
#[test]
fn a_bundle_without_its_record() {
    let fixture = Fixture::new(1);
    let Some(server) = s3s(&fixture) else { return };
    fixture.configure(&server.settings(server.port));
    let dotted = "20260310T103001Z-4711-my.app";
    fixture.add(
        dotted,
        json!({"time": "2026-03-10T10:30:01Z", "container_id": "my.app", "count": null}),
    );
    fixture.all();
    let dir = format!("s3://cores/node/{DIR}/{dotted}");
    assert!(!succeed(&mut fixture.ship(&["cat", &dir])).stdout.is_empty());
    let record = server.object(&format!("{DIR}/{dotted}/record.json"));
    std::fs::remove_file(record).unwrap();
    let out = fixture.ship(&["cat", &dir]).output().unwrap();
    assert!(!out.status.success() && out.stdout.is_empty());
    assert!(stderr(&out).contains("no record.json"), "{}", stderr(&out));
}

/// `check` says what `run` would find: files that are missing, and what a storage needs.
#[test]
fn check_finds_what_run_would() {
    let fixture = Fixture::new(1);
    for (text, says) in [
        ("url = \"s3://b\"\nca_file = \"/nowhere\"", "ca_file /nowhere"),
        ("url = \"s3://b\"\ncredentials_file = \"/nowhere\"", "/nowhere"),
        ("url = \"oss://b\"", "region"),
        ("url = \"az://b\"", "account"),
        ("url = \"s3://b\"\n[upload.webhook]\nurl = \"https://x\"\nsecret_file = \"/n\"", "/n"),
    ] {
        fixture.configure(text);
        let out = fixture.ship(&["check"]).output().unwrap();
        let said = stderr(&out);
        assert!(!out.status.success() && said.to_lowercase().contains(says), "{text}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    fixture.configure("url = \"s3://b\"\nregion = \"eu-central-1\"");
    succeed(&mut fixture.ship(&["check"]));
}
