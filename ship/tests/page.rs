//! report.html in a real browser: what a container chose is text, no script runs, and nothing is
//! asked of anybody.

#[allow(dead_code)]
mod support;

use serde_json::json;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::servers::require;
use support::{Fixture, ID};

/// Runs the browser on a page.
fn browse(fixture: &Fixture, page: &Path, args: &[&str]) -> Option<Output> {
    let program = require("chromium")?;
    let profile = tempfile::tempdir_in(fixture.dir.path()).unwrap();
    let mut command = Command::new(program);
    command
        // The test may run as root, whom the browser's own sandbox refuses.
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(args)
        .arg(format!("file://{}", page.display()));
    Some(support::succeed(command.env("HOME", profile.path())))
}

/// Counts who comes.
fn listen() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let own = count.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            own.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 64]);
        }
    });
    (port, count)
}

/// The page of a crash with names that would like to be more.
fn report(fixture: &Fixture, port: u16) -> PathBuf {
    let from = format!("http://127.0.0.1:{port}");
    let bad = format!(
        "</title></style></dd><script>document.title='pwned'</script><img src={from}/a \
         onerror=\"document.title='pwned'\"><link rel=stylesheet href={from}/b><iframe \
         src={from}/c></iframe><a href=\"javascript:alert(1)\">x</a>\u{202e}"
    );
    let pod = format!("shop-0{bad}");
    fixture.add(ID, json!({"comm": bad, "pod_name": pod, "reason": bad}));
    for n in 0..5 {
        let id = format!("2026030{}T103000Z-4711-4f3c9a1b2d5e", n + 1);
        let time = format!("2026-03-0{}T10:30:00Z", n + 1);
        fixture.add(&id, json!({"time": time, "outcome": "none", "comm": bad, "pod_name": pod}));
    }
    let file = fixture.path("report.html");
    fixture.helper("report", &["-o", file.to_str().unwrap(), &format!("record={ID}")]);
    file
}

#[test]
fn nothing_runs_and_nobody_is_asked() {
    let fixture = Fixture::new(1);
    let (port, count) = listen();
    let page = report(&fixture, port);
    let wait = ["--virtual-time-budget=3000", "--dump-dom"];
    let Some(out) = browse(&fixture, &page, &wait) else { return };
    let dom = String::from_utf8(out.stdout).unwrap();
    for tag in ["<script", "<img", "<link", "<iframe", "<a "] {
        assert!(!dom.contains(tag), "{tag}: {dom}");
    }
    assert_eq!(dom.matches("<title>").count(), 1);
    assert!(dom.contains("&lt;script&gt;document.title='pwned'"), "{dom}");
    assert!(dom.contains("<details open=\"\">") && dom.contains("<code>main</code>"), "{dom}");
    assert_eq!(count.load(Ordering::SeqCst), 0, "somebody was asked");

    // The browser does run and ask where a page lets it: the same text as HTML.
    let open = fixture.path("open.html");
    let text = format!(
        "<title>x</title><img src=http://127.0.0.1:{port}/a><script>document.title='pwned'</script>"
    );
    std::fs::write(&open, text).unwrap();
    let out = browse(&fixture, &open, &wait).unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains("<title>pwned</title>"));
    assert_ne!(count.load(Ordering::SeqCst), 0);
    // And where the page's own policy stands, but not its escaping, it does neither.
    count.store(0, Ordering::SeqCst);
    let policy = std::fs::read_to_string(&page).unwrap();
    let policy = policy.lines().find(|line| line.contains("Content-Security-Policy")).unwrap();
    let with = std::fs::read_to_string(&open).unwrap();
    std::fs::write(&open, format!("<meta charset=utf-8>{policy}{with}")).unwrap();
    let out = browse(&fixture, &open, &wait).unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains("<title>x</title>"));
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

/// Screenshots for who looks at them: OCI_COREDUMP_SCREENSHOTS names a directory. Otherwise that
/// they are pictures, and light and dark are not the same.
#[test]
fn light_and_dark_narrow_and_wide() {
    let fixture = Fixture::new(1);
    let page = report(&fixture, 1);
    let kept = std::env::var_os("OCI_COREDUMP_SCREENSHOTS").map(PathBuf::from);
    let dir = kept.unwrap_or_else(|| fixture.path("screenshots"));
    std::fs::create_dir_all(&dir).unwrap();
    let mut pictures = Vec::new();
    for (name, size, scheme) in [
        ("light-wide", "1280,1600", 1),
        ("dark-wide", "1280,1600", 0),
        ("light-narrow", "380,1600", 1),
        ("dark-narrow", "380,1600", 0),
    ] {
        let file = dir.join(format!("{name}.png"));
        let args = [
            &format!("--window-size={size}"),
            &format!("--blink-settings=preferredColorScheme={scheme}"),
            &format!("--screenshot={}", file.display()),
        ];
        let Some(_) = browse(&fixture, &page, &args.map(|arg| arg.as_str())) else { return };
        let picture = std::fs::read(&file).unwrap();
        assert!(picture.starts_with(b"\x89PNG") && !pictures.contains(&picture), "{name}");
        pictures.push(picture);
    }
}
