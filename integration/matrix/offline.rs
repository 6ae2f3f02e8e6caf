//! Offline analysis, as ECI's documentation goes on: a second container mounts the volume,
//! lists the core and opens it.
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use support::bundle::Bundle;
use support::core_file;
use support::require;
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, Engine, crash, host, victim};

support::per_engine!(a_second_container_lists_the_core);

/// Innermost first: `main` called the second, which called the first.
const FRAMES: [&str; 3] = ["parse_length", "handle_request", "main"];

fn assert_backtrace(printed: &str) {
    // gdb shows the innermost frame once when it opens the core; the backtrace is what follows.
    let frames: Vec<_> = printed.lines().filter(|line| line.starts_with('#')).skip(1).collect();
    assert_eq!(frames.len(), FRAMES.len(), "{printed}");
    for (frame, function) in frames.iter().zip(FRAMES) {
        assert!(
            frame.contains(&format!("{function} (")),
            "{function} is not in {frame:?}: {printed}"
        );
        assert!(frame.contains("victim.c:"), "no line number in {frame:?}");
    }
    assert!(printed.contains("SIGSEGV"), "{printed}");
}

fn a_second_container_lists_the_core(engine: Engine) {
    let _host = host();
    if !require::programs(&["gdb"]) {
        return;
    }
    let volume = TempDir::new().unwrap();
    let volumes = [(volume.path(), "/pod/data/dump")];
    let first =
        engine.start("crashes", &[(ECI, "/pod/data/dump/core-eci")], &volumes, &["sleep", "1000"]);
    let (pid, _) = crash(|script| first.sh(script), "segv");
    first.remove();

    let second = engine.start("looks", &[], &volumes, &["sleep", "1000"]);
    let name = format!("core-eci.{pid}");
    assert_eq!(second.sh("ls /pod/data/dump"), format!("{name}\n"));
    second.remove();
    assert_backtrace(&core_file::backtrace(&victim(), &volume.path().join(&name)));
}

/// gdb itself runs in the second container: the host's, with the host's /usr, read-only.
#[test]
fn gdb_in_a_second_container() {
    let _host = host();
    if !require::programs(&["gdb"]) {
        return;
    }
    let runtime = Runtime::new(Kind::Runc);
    let volume = TempDir::new().unwrap();
    let mut crashing = support::scene::bundle();
    crashing.annotation(ECI, "/pod/data/dump/core-eci").bind(volume.path(), "/pod/data/dump");
    let container = runtime.start(&crashing, "crashes");
    let (pid, _) = crash(|script| container.sh(script), "segv");
    container.remove();

    let mut analysis = Bundle::new();
    support::scene::fill(analysis.rootfs());
    for directory in ["lib", "lib64"] {
        symlink(format!("usr/{directory}"), analysis.rootfs().host_path(&format!("/{directory}")))
            .unwrap();
    }
    let core = format!("/pod/data/dump/core-eci.{pid}");
    analysis
        .mount("bind", "/usr", "/usr", &["rbind", "ro"])
        .bind(volume.path(), "/pod/data/dump")
        .args(&[
            "/usr/bin/gdb",
            "--batch",
            "--nx",
            "-iex",
            "set debuginfod enabled off",
            "-ex",
            "bt",
            "/bin/victim",
            &core,
        ]);
    let output = runtime.run(&analysis, "looks");
    assert!(output.status.success(), "{output:?}");
    assert_backtrace(&String::from_utf8_lossy(&output.stdout));
    assert!(Path::new(&volume.path().join(format!("core-eci.{pid}"))).exists());
}
