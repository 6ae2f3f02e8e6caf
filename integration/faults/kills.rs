//! SIGKILL of the helper and of its writer.
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ring::{helpers, names};
use crate::scene;
use crate::support::bare::{self, Container};
use crate::support::between::{Between, wait_gone};
use crate::support::require;
use crate::witness::{BOUND, Calm, assert_told, forget, is_whole, record};

/// Killed when it makes any one system call for the n-th time, from before the first instruction of ours to after the last. A helper that has not come as far as the record leaves none: nobody else knows of the crash yet, and there is no file then either.
#[test]
fn killed_at_every_step() {
    if !require::programs(&["strace"]) {
        return;
    }
    let host = scene::host();
    let directory = TempDir::with_prefix("kills").unwrap();
    let container = Container::new("killed", directory.path(), &[]);
    let calm = Calm::new();
    let program = bare::compile("victim");
    let script = "case ${15} in *calm*) exec $helper \"$@\";; esac\n\
                  exec >/dev/null 2>&1\n\
                  exec timeout -k 1 15 strace -qq -f -o /dev/null -e inject=all:signal=KILL:when=$(cat ${0%/*}/n) $helper \"$@\"";
    let between = Between::new(&host, script);
    let (mut silent, mut short, mut whole, mut steps) = (Vec::new(), 0, 0, 0);
    for step in (1..=60).chain((63..400).step_by(3)) {
        steps += 1;
        let what = format!("killed at the {step}th call");
        fs::write(between.path().join("n"), step.to_string()).unwrap();
        let mut victim = container.victim(&program, "tiny", 0);
        victim.crash();
        if step % 20 == 0 {
            calm.crash(&host, &what);
        }
        assert!(victim.ends_within(BOUND), "{what}: the crashed process hangs");
        for pid in helpers() {
            wait_gone(pid, BOUND);
        }
        assert_told(&host, "killed", directory.path(), &what);
        let all_of_it = fs::read(victim.core()).is_ok_and(|core| is_whole(&core));
        match record(&host, "killed", victim.pid()) {
            None => {
                assert!(!victim.core().exists(), "{what}");
                silent.push(step);
            }
            Some(record) if record["outcome"] == "written" => {
                assert!(all_of_it, "{what}: {record:#}");
                whole += 1;
                if whole == 3 {
                    break;
                }
            }
            Some(record) => {
                assert_eq!(record["truncated"], true, "{what}: {record:#}");
                short += 1;
            }
        }
        forget(directory.path());
    }
    println!("{steps} kills: {} before the record ({:?} to {:?}), {short} in the middle, {whole} after the end", silent.len(), silent.first(), silent.last());
    assert!(whole > 0, "the sweep did not come to the end of a dump");
    assert!(short > 3, "the sweep missed the dump");
    // Once a step has left a record, every later one does.
    assert!(silent.windows(2).all(|w| w[1] == w[0] + 1) && silent.first() == Some(&1), "{silent:?}");
}

/// Killed at any moment of a large dump: the parent, or the writer with its threads.
#[test]
fn killed_at_any_moment_of_a_large_dump() {
    let host = scene::host();
    host.configure("allow_early_release = true\n");
    let calm = Calm::new();
    let program = bare::compile("victim");
    for (name, annotations) in [("plain", &[][..]), ("early", &[("oci-coredump/release", "early")]), ("zstd", &[("oci-coredump/compress", "zstd")])] {
        let directory = TempDir::with_prefix("large").unwrap();
        let container = Container::new(name, directory.path(), annotations);
        let mut hit = 0;
        for round in 0..12u64 {
            let what = format!("{name}, round {round}");
            let mut victim = container.victim(&program, "random", 24);
            victim.crash();
            let until = Instant::now() + BOUND;
            let both = loop {
                let mut found = helpers();
                if found.len() == 2 {
                    found.sort_unstable();
                    break found;
                }
                assert!(Instant::now() < until, "{what}: no writer was seen");
                std::thread::yield_now();
            };
            // Not an event: any moment is a good one, and they should differ.
            std::thread::sleep(Duration::from_micros(round * 1500));
            let pid = nix::unistd::Pid::from_raw(both[round as usize % 2]);
            hit += u32::from(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok());
            assert!(victim.ends_within(BOUND), "{what}: the crashed process hangs");
            for pid in both {
                wait_gone(pid, BOUND);
            }
            let Some(record) = record(&host, name, victim.pid()) else {
                // Killed before there was a record: then there is no file either.
                assert_eq!(names(directory.path()), ["not-empty"], "{what}: a file without a record");
                continue;
            };
            if name == "zstd" {
                let file = fs::exists(directory.path().join(format!("core.{}.zst", victim.pid()))).unwrap();
                assert!(record["truncated"] == true || record["outcome"] == "written" || !file, "{what}: {record:#}");
            } else {
                assert_told(&host, name, directory.path(), &what);
            }
            forget(directory.path());
            for entry in fs::read_dir(directory.path()).unwrap() {
                let path = entry.unwrap().path();
                if path != Path::new(directory.path()).join("not-empty") {
                    fs::remove_file(path).unwrap();
                }
            }
        }
        assert!(hit > 4, "{name}: {hit} of 12 were hit");
        calm.crash(&host, name);
    }
}
