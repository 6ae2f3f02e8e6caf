//! Row 14: a target that accepts no more data holds up no process. The test itself serves it over
//! FUSE, and does not answer.
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use support::bare::{self, Container, Victim};
use support::fuse::{Answer, Fuse};
use support::host::Host;
use support::processes::helpers;
use support::wait::becomes;

/// `limits.stall`, in seconds.
const STALL: u64 = 2;

/// Time beyond the limit: its last part, the second that a killed writer has, and a busy machine.
const SLACK: Duration = Duration::from_secs(8);

fn host(stall: u64) -> Host {
    Host::installed(&format!("[limits]\nstall = {stall}\n"))
}

fn victim(container: &Container, size: usize) -> Victim {
    container.victim(&bare::victim(), "random", size)
}

/// The process has its own exit status, as if its core had been written: it was not
/// killed because of its target.
fn assert_let_go(victim: &mut Victim, since: Instant, what: &str) {
    assert!(
        victim.ends_within(Duration::from_secs(STALL) + SLACK),
        "{what}: the crashed process is pinned"
    );
    assert!(
        since.elapsed() >= Duration::from_secs(STALL),
        "{what}: given up after {:?} only",
        since.elapsed()
    );
    let status = victim.status();
    assert_eq!(
        (status.signal(), status.core_dumped()),
        (Some(Signal::SIGABRT as i32), true),
        "{what}: {status:?}"
    );
}

fn assert_says_so(record: &Value, outcome: &str, what: &str) {
    assert_eq!(
        (&record["outcome"], &record["limit"]),
        (&outcome.into(), &format!("stall = {STALL}").into()),
        "{what}: {record:#}"
    );
    assert_eq!(
        record["size"],
        Value::Null,
        "{what}: nobody knows how much is in the file: {record:#}"
    );
}

fn assert_nobody_is_left(what: &str) {
    assert!(
        becomes(SLACK, || helpers().is_empty()),
        "{what}: {:?} are left although the target has answered",
        helpers()
    );
}

support::cases!(
    row_14_target_that_stops_answering_writes: pipe("pipe", 4, &[]),
    fast("fast", 24, &[]),
    zstd("zstd", 24, &[("oci-coredump/compress", "zstd")])
);

/// By `size` MiB of memory and the annotations: through the pipe, by the fast lane, compressed.
fn row_14_target_that_stops_answering_writes(way: &str, size: usize, annotations: &[(&str, &str)]) {
    let host = host(STALL);
    let target = Fuse::mount();
    target.on_write(1 << 20, Answer::Hold);
    let container = Container::new(way, target.path(), annotations);
    let mut victim = victim(&container, size);
    let since = Instant::now();
    victim.crash();
    assert_let_go(&mut victim, since, way);
    assert_says_so(&host.record(way), "truncated", way);
    assert!(target.wait_held(Duration::ZERO), "{way}: nothing was ever held");
    target.go_on();
    assert_nobody_is_left(way);
    // The writer was killed: nothing has been written since but what the target had in hand.
    // (The fast lane does not write from front to back.)
    let name = victim.core().file_name().unwrap().to_str().unwrap();
    let size = target
        .content(&format!("{name}{}", if way == "zstd" { ".zst" } else { "" }))
        .expect("there is no file")
        .len();
    assert!(way == "fast" || size <= (1 << 20) + (256 << 10), "{way}: {size} bytes, it went on");
}

#[test]
fn row_14_target_that_does_not_answer_for_a_new_file() {
    let host = host(STALL);
    let target = Fuse::mount();
    let container = Container::new("create", target.path(), &[]);
    target.hold_create();
    let mut victim = victim(&container, 4);
    let since = Instant::now();
    victim.crash();
    assert_let_go(&mut victim, since, "create");
    assert_says_so(&host.record("create"), "none", "create");
    drop(target);
    assert_nobody_is_left("create");
}

/// No single write takes longer than the limit, but all of them together do.
#[test]
fn a_slow_target_that_moves_gets_all() {
    let host = host(1);
    let target = Fuse::mount();
    target.on_write(0, Answer::Late(15));
    let container = Container::new("slow", target.path(), &[]);
    let mut victim = container.victim(&bare::victim(), "random", 1);
    let since = Instant::now();
    victim.crash();
    assert!(victim.ends_within(Duration::from_secs(60)));
    assert!(
        since.elapsed() > Duration::from_millis(2500),
        "the target was not slow: {:?}",
        since.elapsed()
    );
    let record = host.record("slow");
    assert_eq!(
        (&record["outcome"], &record["limit"]),
        (&"written".into(), &Value::Null),
        "{record:#}"
    );
    let core = target.content(&format!("core.{}", victim.pid())).unwrap();
    assert_eq!(record["size"], core.len(), "{record:#}");
    assert!(core.len() > 1 << 20);
}

/// 0 disables the limit: then only the target decides.
#[test]
fn no_limit_waits() {
    let host = host(0);
    let target = Fuse::mount();
    target.on_write(1 << 20, Answer::Hold);
    let container = Container::new("patient", target.path(), &[]);
    let mut victim = victim(&container, 4);
    victim.crash();
    assert!(target.wait_held(Duration::from_secs(20)));
    assert!(!victim.ends_within(Duration::from_secs(STALL + 1)), "given up without a limit");
    target.go_on();
    assert!(victim.ends_within(SLACK));
    assert_eq!(host.record("patient")["outcome"], "written");
}
