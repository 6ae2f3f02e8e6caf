//! How many system calls a crash and a hook take.
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::bare::Container;
use support::host::BINARY;
use support::wait::wait_for;

use crate::Bench;
use crate::scene::{Method, sample};

impl Bench {
    /// System calls are the same on every run, unlike times.
    pub fn calls(&self, container: &Container) {
        // The first crash also makes directories, and applies the rules of the vacuum.
        self.patterns.choose(&self.host, Method::Ours, container.directory());
        sample(container.victim(&self.victim, "tiny", 0), Method::Ours);
        // core_pattern is short, so are these.
        let (tracer, file) = (Path::new("/dev/shm/s"), Path::new("/dev/shm/t"));
        let _ = std::fs::remove_file(tracer);
        std::os::unix::fs::symlink("/usr/bin/strace", tracer).unwrap();
        let pattern = self.patterns.ours.replacen(
            '|',
            &format!("|{} -fo{} ", tracer.display(), file.display()),
            1,
        );
        self.host.set("kernel/core_pattern", &pattern);
        sample(container.victim(&self.victim, "tiny", 0), Method::Ours);
        // The helper goes on when the process has gone.
        wait_for("the whole trace", Duration::from_secs(60), || is_whole(file));
        std::fs::remove_file(tracer).unwrap();
        println!("{:<44} {:>7}", "system calls of a tiny crash, to the end", count(file));
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(
            bundle.path().join("config.json"),
            r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"}}"#,
        )
        .unwrap();
        let state = serde_json::json!({
            "id": "x", "status": "creating", "pid": std::process::id(), "bundle": bundle.path(),
        })
        .to_string();
        let mut hook = Command::new("strace")
            .arg("-fo")
            .arg(file)
            .args([BINARY, "hook", "createRuntime"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("strace");
        std::io::Write::write_all(&mut hook.stdin.take().unwrap(), state.as_bytes()).unwrap();
        assert!(hook.wait().unwrap().success());
        println!("{:<44} {:>7}", "system calls of an un-annotated hook", count(file));
        std::fs::remove_file(file).unwrap();
    }
}

fn count(trace: &Path) -> usize {
    let text = std::fs::read_to_string(trace).unwrap();
    text.lines()
        .filter(|l| {
            l.contains('(') && !l.contains("resumed>") && !l.contains("---") && !l.contains("+++")
        })
        .count()
}

/// Whether all the processes of a trace have ended.
fn is_whole(trace: &Path) -> bool {
    let text = std::fs::read_to_string(trace).unwrap();
    let processes = |word: &str| {
        text.lines()
            .filter(|l| l.contains(word))
            .filter_map(|l| l.split_whitespace().next())
            .collect::<BTreeSet<_>>()
    };
    !text.is_empty() && processes("") == processes("+++")
}
