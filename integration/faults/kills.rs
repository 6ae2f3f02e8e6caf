//! SIGKILL of the helper and of its writer.
use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::witness::{BOUND, Calm, assert_told, forget, is_whole, record};
use support::bare::{self, Container};
use support::between::Between;
use support::crasher::compile;
use support::fixture::names;
use support::processes::helpers;
use support::processes::wait_gone;
use support::scene;
use support::wait::{becomes, wait_for};

/// Number of calls between two kills of the sweep. With `OCI_COREDUMP_SWEEP=1` every call is
/// one, which takes minutes.
const STRIDE: usize = 5;

/// The helper, and each process that it starts, is killed at the entry of each of its system calls
/// in turn, from before our first instruction to after the last. The other processes continue. A
/// helper that has not come as far as the record leaves none: no other process knows of the crash
/// yet, and there is no file then either.
#[test]
fn killed_at_every_step() {
    let stride =
        std::env::var("OCI_COREDUMP_SWEEP").ok().and_then(|n| n.parse().ok()).unwrap_or(STRIDE);
    let host = scene::host();
    let directory = TempDir::with_prefix("kills").unwrap();
    let container = Container::new("killed", directory.path(), &[]);
    let calm = Calm::new();
    let program = bare::victim();
    let sweep = compile("sweep", include_str!("sweep.c"), &[]);
    let script = format!(
        "case ${{16}} in *calm*) exec $helper \"$@\";; esac\n\
         exec >/dev/null 2>&1\n\
         exec {} $(cat ${{0%/*}}/at) ${{0%/*}}/report $helper \"$@\"",
        sweep.display()
    );
    let between = Between::new(&host, &script);
    let report = between.path().join("report");
    // One crash, in which the process `who` is killed at its `at`-th call, or nobody where that is
    // 0: its PID, what was killed, and how many calls each process made.
    let crash = |who: usize, at: usize, what: &str| {
        fs::write(between.path().join("at"), format!("{who} {at}")).unwrap();
        let mut victim = container.victim(&program, "tiny", 0);
        victim.crash();
        assert!(victim.ends_within(BOUND), "{what}: the crashed process hangs");
        assert!(
            becomes(BOUND, || report.exists()),
            "{what}: the helper is still there: {:?}",
            helpers()
        );
        let text = fs::read_to_string(&report).unwrap();
        fs::remove_file(&report).unwrap();
        let numbers: Vec<usize> =
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let (killed, calls) = if text.starts_with("killed") {
            (Some(numbers[0]), numbers[1..].to_vec())
        } else {
            (None, numbers)
        };
        (victim, killed, calls)
    };
    // The first crash creates what is created only once.
    let (_, _, calls) = (crash(0, 0, "nobody"), forget(directory.path()), crash(0, 0, "nobody").2);
    assert!(calls.len() >= 2, "the writer is not seen: {calls:?}");
    let mut total = 0;
    for (who, count) in calls.into_iter().enumerate() {
        let (mut steps, mut silent, mut short, mut whole) = (0, Vec::new(), 0, 0);
        let (mut beyond, mut missed) = (0, 0);
        // Runs differ in the number of calls, so this continues until the process ends before the
        // call.
        for at in (1..).step_by(stride) {
            let what = format!("process {who} killed at its call {at}");
            forget(directory.path());
            let (victim, killed, made) = crash(who, at, &what);
            if killed.is_none() {
                beyond += usize::from(at > made.get(who).copied().unwrap_or(0));
                missed += usize::from(beyond == 0);
                assert!(missed < 20, "{what}: nobody was killed, calls made: {made:?}");
                if beyond == 3 {
                    break;
                }
                continue;
            }
            steps += 1;
            if steps % 20 == 0 {
                calm.crash(&host, &what);
            }
            let what = format!("{what} (number {}; calls made: {made:?})", killed.unwrap());
            assert_told(&host, "killed", directory.path(), &what);
            let all_of_it = fs::read(victim.core()).is_ok_and(|core| is_whole(&core));
            match record(&host, "killed", victim.pid()) {
                None => {
                    assert_eq!(who, 0, "{what}: no record");
                    assert!(!victim.core().exists(), "{what}: a file without a record");
                    silent.push(at);
                }
                Some(record) if record["outcome"] == "written" => {
                    assert!(all_of_it, "{what}: {record:#}");
                    whole += 1;
                }
                Some(record) => {
                    assert_eq!(record["truncated"], true, "{what}: {record:#}");
                    // The process that listens to the writer writes the last line.
                    assert!(who == 0 || record["outcome"] != "started", "{what}: {record:#}");
                    assert!(who < 2, "{what}: its end changed the core: {record:#}");
                    short += 1;
                }
            }
        }
        println!(
            "process {who}: killed at {steps} of {count} calls: {} before the record, {short} in \
             the middle, {whole} when the core was whole",
            silent.len()
        );
        assert!(steps >= count / stride / 2, "process {who}: {steps} kills, {count} calls");
        assert!(who > 1 || short > 0, "the sweep of process {who} missed the dump");
        // Once a step has left a record, every later one does.
        assert!(
            silent.windows(2).all(|w| w[1] == w[0] + stride)
                && silent.first().is_none_or(|first| *first == 1),
            "{silent:?}"
        );
        total += steps;
    }
    println!("{total} kills");
    calm.crash(&host, "after the sweep");
}

support::cases!(
    killed_at_any_moment_of_a_large_dump: plain("plain", &[]),
    early("early", &[("oci-coredump/release", "early")]),
    zstd("zstd", &[("oci-coredump/compress", "zstd")])
);

/// Killed at any moment of a large dump: the parent, or the writer with its threads.
fn killed_at_any_moment_of_a_large_dump(name: &str, annotations: &[(&str, &str)]) {
    let host = scene::host();
    host.configure("allow_early_release = true\n");
    let calm = Calm::new();
    let program = bare::victim();
    let directory = TempDir::with_prefix("large").unwrap();
    let container = Container::new(name, directory.path(), annotations);
    let (mut hit, mut missed) = (0, 0);
    // A busy machine may look at the processes too late: such a round hits nobody, and the next
    // dump takes longer.
    for round in 0..100u64 {
        if hit == 12 {
            break;
        }
        let what = format!("{name}, round {round}");
        let mut victim = container.victim(&program, "random", 24 << missed.min(4));
        victim.crash();
        missed += 1;
        // The helper and the writer, or nobody where the crash has been handled already.
        let both = wait_for(&format!("{what}: a helper and a writer"), BOUND, || {
            let over = victim.ends_within(Duration::ZERO);
            let mut found = helpers();
            found.sort_unstable();
            (found.len() == 2 || over && found.is_empty()).then_some(found)
        });
        if !both.is_empty() {
            // There is no event: any moment will do, and they should differ.
            std::thread::sleep(Duration::from_micros(round % 12 * 1500));
            let pid = nix::unistd::Pid::from_raw(both[round as usize % 2]);
            let killed = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            if killed.is_ok() {
                (hit, missed) = (hit + 1, missed - 1);
            }
        }
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
            let file =
                fs::exists(directory.path().join(format!("core.{}.zst", victim.pid()))).unwrap();
            assert!(
                record["truncated"] == true || record["outcome"] == "written" || !file,
                "{what}: {record:#}"
            );
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
    assert_eq!(hit, 12, "{name}: processes that were killed");
    calm.crash(&host, name);
}
