//! Connections that are cut, servers that fail or are away, and a program that is killed at any
//! moment: nothing is lost, nothing is there twice, and nothing half.

#[allow(dead_code)]
mod support;

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::proxy::{Fault, Proxy};
use support::servers::s3s;
use support::{Fixture, ID, sha256, stderr};

const OBJECT: &str = "prod/shop-0/web/20260310T103000Z-4711-4f3c9a1b2d5e/coredump.tar.zst";

#[test]
fn connections_that_are_cut_and_servers_that_fail() {
    let fixture = Fixture::new(20);
    let Some(server) = s3s(&fixture) else { return };
    let bundle = fixture.bundle();
    type Faults = Box<dyn Fn(usize) -> Fault + Send + Sync>;
    let first = |count: usize, fault: Fault| -> Faults {
        Box::new(move |n| if n < count { fault } else { Fault::None })
    };
    let mut cases: Vec<(String, Faults)> = vec![
        ("500".into(), first(3, Fault::Status(500))),
        (
            "503".into(),
            Box::new(|n| if n % 2 == 0 { Fault::Status(503) } else { Fault::Cut(20 << 20) }),
        ),
        ("403".into(), first(1, Fault::Status(403))),
        ("deaf".into(), first(1, Fault::Deaf)),
        ("slow".into(), Box::new(|_| Fault::Slow(2))),
    ];
    // In the middle of each part, and of what comes before and after them.
    for part in 0..=bundle.len() as u64 >> 23 {
        cases.push((format!("cut {part}"), first(2, Fault::Cut((part << 23) + (1 << 20)))));
    }
    cases.push(("cut at once".into(), first(3, Fault::Cut(0))));
    for (name, fault) in cases {
        let proxy = Proxy::new(server.port, fault);
        let _ = std::fs::remove_dir_all(fixture.path("state"));
        let _ = std::fs::remove_file(server.object(OBJECT));
        fixture.configure(&server.settings(proxy.port));
        // What the library does not mend itself the next try does.
        let mut out = fixture.once();
        for _ in 0..4 {
            if !out.status.success() {
                out = fixture.once();
            }
        }
        assert!(out.status.success(), "{name}: {}", stderr(&out));
        assert!(std::fs::read(server.object(OBJECT)).unwrap() == bundle, "{name}");
        assert_eq!(server.objects().len(), 3, "{name}: {:?}", server.objects());
    }
}

/// A bucket that is away costs time only: the program itself goes on when it is back.
#[test]
fn a_server_that_was_away() {
    let fixture = Fixture::new(1);
    let Some(mut server) = s3s(&fixture) else { return };
    server.end();
    fixture.configure(&server.settings(server.port));
    let mut child = fixture.ship(&["run"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("trying again"), "{line}");
    server.start_again();
    let line = lines.find(|line| !line.as_ref().unwrap().contains("trying again"));
    assert!(line.unwrap().unwrap().contains("uploaded to s3://cores/node/"));
    assert!(std::fs::read(server.object(OBJECT)).unwrap() == fixture.bundle());
    // It ends when it is told to.
    let pid = child.id().to_string();
    support::succeed(std::process::Command::new("kill").arg(&pid));
    assert!(child.wait().unwrap().success());
}

/// Killed again and again, a bit later each time. Parts that are there are not sent again.
#[test]
fn killed_at_any_moment() {
    let fixture = Fixture::new(30);
    let Some(server) = s3s(&fixture) else { return };
    let bundle = fixture.bundle();
    let proxy = Proxy::new(server.port, |_| Fault::Slow(1));
    fixture.configure(&server.settings(proxy.port));
    let mut kills = 0;
    let mut wait = Duration::from_millis(20);
    loop {
        let mut child = fixture.ship(&["run", "--once"]).spawn().unwrap();
        let start = Instant::now();
        let mut ended = None;
        while ended.is_none() && start.elapsed() < wait {
            ended = child.try_wait().unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        match ended {
            Some(status) if status.success() => break,
            Some(status) => panic!("after {kills} kills: {status}"),
            None => {}
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(kills < 200, "it never ends");
        // Whole, or not there.
        if let Ok(there) = std::fs::read(server.object(OBJECT)) {
            assert!(there == bundle, "half a bundle after {wait:?}");
        }
        wait = wait.mul_f64(1.3) + Duration::from_millis(20);
    }
    assert!(kills > 5, "only {kills} kills");
    assert!(std::fs::read(server.object(OBJECT)).unwrap() == bundle);
    assert_eq!(fixture.state()["uploaded"]["sha256"], sha256(&bundle));
    assert_eq!(server.objects().len(), 3, "{:?}", server.objects());
    let sent = proxy.sent.load(Ordering::SeqCst);
    assert!(sent < 3 * bundle.len() as u64, "{sent} bytes for {} in {kills} kills", bundle.len());
}

/// The answer to the last request is lost: the object is there, and the next process sees that.
#[test]
fn complete_but_not_told() {
    let fixture = Fixture::new(20);
    let Some(server) = s3s(&fixture) else { return };
    fixture.configure(&server.settings(server.port));
    fixture.all();
    let object = server.object(OBJECT);
    let before = object.metadata().unwrap().modified().unwrap();
    // As a process leaves it that was killed right after the last request.
    let mut state = fixture.state();
    let uploaded = state["uploaded"].take();
    state.as_object_mut().unwrap().remove("uploaded");
    state["content"] = serde_json::json!({"size": uploaded["size"], "sha256": uploaded["sha256"]});
    std::fs::write(fixture.path(&format!("state/{ID}.json")), state.to_string()).unwrap();
    fixture.all();
    assert_eq!(fixture.state()["uploaded"]["url"], uploaded["url"]);
    assert_eq!(object.metadata().unwrap().modified().unwrap(), before, "it was sent again");
}

/// A core that becomes another one, or goes, while its upload is interrupted.
#[test]
fn another_content_than_before() {
    let fixture = Fixture::new(40);
    let Some(server) = s3s(&fixture) else { return };
    let proxy = Proxy::new(server.port, |_| Fault::Slow(20));
    fixture.configure(&server.settings(proxy.port));
    fixture.kill_after_a_part(fixture.ship(&["run", "--once"]));
    fixture.configure(&server.settings(server.port));
    // Other bytes in the record, which is in the bundle before the core.
    fixture.add(ID, serde_json::json!({"reason": "another one"}));
    let first = fixture.once();
    assert!(!first.status.success() && stderr(&first).contains("another one than before"));
    fixture.all();
    assert!(std::fs::read(server.object(OBJECT)).unwrap() == fixture.bundle());
}

/// A server whose clock is another one refuses every request, and says so.
#[test]
fn clocks_that_differ() {
    let fixture = Fixture::new(1);
    let Some(mut server) = support::servers::s3s_of_tomorrow(&fixture) else { return };
    fixture.configure(&server.settings(server.port));
    let out = fixture.once();
    assert!(!out.status.success() && stderr(&out).contains("RequestTimeTooSkewed"), "{out:?}");
    assert!(server.objects().is_empty());
    server.end();
    server.start_again();
    fixture.all();
    assert_eq!(server.objects().len(), 3);
}

/// Killed right before each of the calls by which something becomes lasting: the next process ends
/// what it has begun, and only that.
#[test]
fn killed_at_each_step() {
    let fixture = Fixture::new(10);
    let Some(server) = s3s(&fixture) else { return };
    let Some(strace) = support::servers::require("strace") else { return };
    let bundle = fixture.bundle();
    fixture.configure(&server.settings(server.port));
    for (calls, most) in [("fsync", 60), ("connect", 20)] {
        let mut step = 1;
        loop {
            let _ = std::fs::remove_dir_all(fixture.path("state"));
            let _ = std::fs::remove_dir_all(fixture.path("s3/cores/node"));
            let inner = fixture.ship(&["run", "--once"]);
            let mut command = Command::new(&strace);
            command.args(["--quiet=all", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
            command.args(["-e", &format!("inject={calls}:signal=KILL:when={step}")]);
            command.arg(inner.get_program()).args(inner.get_args()).env_clear();
            command.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))));
            let out = command.output().unwrap();
            if out.status.success() {
                break;
            }
            let object = std::fs::read(server.object(OBJECT)).ok();
            assert!(object.is_none_or(|there| there == bundle), "half a bundle at {calls} {step}");
            fixture.all();
            assert!(std::fs::read(server.object(OBJECT)).unwrap() == bundle, "{calls} {step}");
            assert_eq!(server.objects().len(), 3, "{calls} {step}: {:?}", server.objects());
            assert_eq!(fixture.state()["uploaded"]["sha256"], sha256(&bundle));
            step += 1;
            assert!(step < most, "{calls}: it never ends");
        }
        assert!(step > 1, "no {calls} in it");
    }
}

/// A full disk, of the state or of the directory that is uploaded to: nothing half, and it goes on
/// when there is room.
#[test]
fn disks_that_are_full() {
    if !support::inside::is_inside("disks_that_are_full", &[]) {
        return;
    }
    let fixture = Fixture::new(20);
    for (name, size) in [("state", "4k"), ("out", "10m")] {
        for dir in ["state", "out"] {
            let _ = std::fs::remove_dir_all(fixture.path(dir));
            std::fs::create_dir(fixture.path(dir)).unwrap();
        }
        let full = fixture.path(name);
        let mut mount = Command::new("mount");
        let options = format!("size={size}");
        support::succeed(mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&full));
        if name == "state" {
            std::fs::write(full.join("other"), [0; 4096]).unwrap();
        }
        let out = fixture.path("out");
        fixture.configure(&format!("url = \"file://{}\"\n", out.display()));
        let said = stderr(&fixture.once());
        assert!(said.contains("No space left on device"), "{name}: {said}");
        let object = out.join(OBJECT);
        assert!(!object.exists());
        let more = ["-o", "remount,size=100m"];
        support::succeed(Command::new("mount").args(more).arg(&full));
        fixture.all();
        assert!(std::fs::read(&object).unwrap() == fixture.bundle(), "{name}");
        assert_eq!(std::fs::read_dir(object.parent().unwrap()).unwrap().count(), 3, "{name}");
        support::succeed(Command::new("umount").arg(&full));
    }
}

/// Two processes do not upload the same.
#[test]
fn one_at_a_time() {
    let fixture = Fixture::new(1);
    fixture.configure(&format!("url = \"file://{}\"\n", fixture.path("out").display()));
    fixture.all();
    let start = || fixture.ship(&["run"]).stderr(Stdio::null()).spawn().unwrap();
    let mut first = start();
    let since = Instant::now();
    let refused = loop {
        let out = fixture.once();
        if !out.status.success() {
            break stderr(&out);
        }
        // It came second itself, and was refused.
        if first.try_wait().unwrap().is_some() {
            first = start();
        }
        assert!(since.elapsed() < Duration::from_secs(300));
    };
    assert!(refused.contains("another oci-coredump-ship"), "{refused}");
    first.kill().unwrap();
    first.wait().unwrap();
}
