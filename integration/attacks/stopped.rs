//! A user can stop every process that acts with that user's rights. Root waits for such processes a
//! bounded time, and for a bounded number of them.
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use support::bare::{self, Container};
use support::crasher::{compile, crasher};
use support::fuse::{Answer, Fuse};
use support::host::Host;
use support::processes::helpers;
use support::require;
use support::scene::{self, product};
use support::user::{self, User};
use support::wait::becomes;

/// The sum of all waits of a helper: ten seconds for a copy, `stall` and its last part, ten for one
/// that is stopped without such a limit, and time for a busy machine.
const ALL: Duration = Duration::from_secs(60);

/// `stopper.c` as a user.
struct Stopper {
    child: Child,
    input: Option<ChildStdin>,
    stopped: usize,
    /// Most helpers at a time while it worked.
    peak: usize,
}

/// Where the processes run: outside of a user namespace of the user's, or in one
/// that the user registered.
enum Where<'a> {
    Host,
    Registered(&'a Path),
}

impl Stopper {
    /// Runs it up to its last crash.
    fn run(user: &User, times: usize, soft: i64, place: Where<'_>, cwd: &Path) -> Self {
        let program = user.program(&compile("stopper", include_str!("stopper.c"), &[]));
        let mut command = match place {
            Where::Host => user.command(program.to_str().unwrap()),
            Where::Registered(_) => {
                let mut command = user.command("unshare");
                command.args(["--user", "--map-root-user", "--mount"]).arg(program);
                command
            }
        };
        command.args([times.to_string(), soft.to_string()]);
        if let Where::Registered(store) = place {
            let registry = user.directory(&user.run_dir().join("oci-coredump"));
            for name in ["containers", "index"] {
                user.directory(&registry.join(name));
            }
            command.arg(registry).arg(store);
        }
        command.current_dir(cwd).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let over = AtomicBool::new(false);
        let (line, peak) = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| {
                let mut peak = 0;
                while !over.load(Ordering::SeqCst) {
                    peak = peak.max(helpers().len());
                    // It takes samples and waits for nothing.
                    std::thread::sleep(Duration::from_millis(20));
                }
                peak
            });
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).unwrap();
            over.store(true, Ordering::SeqCst);
            (line, sampler.join().unwrap())
        });
        let stopped = line.trim().strip_prefix("stopped ").and_then(|n| n.parse().ok());
        let stopped = stopped.unwrap_or_else(|| panic!("the stopper said {line:?}"));
        Self { child, input, stopped, peak }
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Waits until no process of the program is left.
fn wait_for_no_helper(time: Duration) {
    assert!(becomes(time, || helpers().is_empty()), "pinned: {:?}", states());
}

/// Waits until at most `most` dispatchers and writers are left.
fn wait_for_helpers(most: usize, time: Duration) {
    assert!(becomes(time, || helpers().len() <= most), "pinned: {:?}", states());
}

/// PID, state and parent of the dispatcher's processes.
fn states() -> Vec<String> {
    let stat = |pid: i32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let short = |text: String| text.split(' ').take(4).collect::<Vec<_>>().join(" ");
    helpers().into_iter().map(|pid| short(stat(pid))).collect()
}

fn prepared(limits: &str, pattern: &str) -> Option<(Host, User, TempDir)> {
    if !require::programs(&user::PROGRAMS) || !require::programs(&["unshare"]) {
        return None;
    }
    let host = scene::host();
    host.configure(&format!("[limits]\n{limits}\n"));
    host.set("kernel/core_pattern", pattern);
    assert!(product(&["install"]).status().unwrap().success());
    let scratch = TempDir::with_prefix("stopped").unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    Some((host, User::make("ocd-test-s"), scratch))
}

fn store(user: &User, scratch: &TempDir) -> PathBuf {
    user.directory(&scratch.path().join("store"))
}

/// A container of root's gets its core in the meantime.
fn assert_another_gets_its_core(host: &Host) {
    let cores = TempDir::with_prefix_in("other", "/var/tmp").unwrap();
    let container = Container::new("other", cores.path(), &[]);
    let mut victim = container.victim(&bare::victim(), "tiny", 0);
    victim.crash();
    assert!(victim.ends_within(ALL), "another container's crash is pinned");
    let record = host.records_of("other").pop().expect("another container's crash has no record");
    assert_eq!(record["outcome"], "written", "{record:#}");
}

/// The user requests no cores: the process that is stopped is the child that writes the
/// user's copy of the record.
#[test]
fn row_28_the_copy_of_a_record_is_stopped() {
    let Some((host, user, scratch)) = prepared("", "core") else { return };
    let store = store(&user, &scratch);
    let stopper = Stopper::run(&user, 150, 0, Where::Registered(&store), scratch.path());
    assert!(stopper.stopped > 0, "nothing was ever stopped");
    // Four slots of the user, each with a helper and its child, and those that come and go.
    assert!(stopper.peak <= 4 * 2 + 24, "{} helpers at a time", stopper.peak);
    assert_another_gets_its_core(&host);
    wait_for_no_helper(ALL);
    println!("stopped {}, at most {} helpers", stopper.stopped, stopper.peak);
}

/// The process that is stopped is the writer of the core.
#[test]
fn row_28_the_writer_is_stopped() {
    let Some((host, user, scratch)) = prepared("stall = 2\nconcurrent = 6", "core") else { return };
    let store = store(&user, &scratch);
    let stopper = Stopper::run(&user, 100, -1, Where::Registered(&store), scratch.path());
    assert!(stopper.stopped > 0, "nothing was ever stopped");
    // Slots, each with a helper and its child, and helpers whose process was
    // killed while they waited.
    assert!(stopper.peak <= 6 * 2 + 4 * 2 + 40, "{} helpers at a time", stopper.peak);
    assert_another_gets_its_core(&host);
    wait_for_no_helper(ALL);
    println!("stopped {}, at most {} helpers", stopper.stopped, stopper.peak);
}

/// Without a limit for slow targets and without one for dumps, a user's dumps are still bounded.
#[test]
fn row_28_the_writer_is_stopped_where_nothing_is_limited() {
    let Some((host, user, scratch)) = prepared("stall = 0\nconcurrent = 0", "core") else {
        return;
    };
    let store = store(&user, &scratch);
    let stopper = Stopper::run(&user, 20, -1, Where::Registered(&store), scratch.path());
    assert!(stopper.stopped > 0, "nothing was ever stopped");
    assert_another_gets_its_core(&host);
    wait_for_no_helper(ALL);
}

/// The writer of the host's own file pattern acts as the user too.
#[test]
fn row_28_the_writer_of_the_hosts_own_pattern_is_stopped() {
    let Some((host, user, scratch)) = prepared("stall = 2\nconcurrent = 6", "core.%p") else {
        return;
    };
    let stopper = Stopper::run(&user, 100, -1, Where::Host, scratch.path());
    assert!(stopper.stopped > 0, "nothing was ever stopped");
    assert!(stopper.peak <= 6 * 2 + 40, "{} helpers at a time", stopper.peak);
    assert_another_gets_its_core(&host);
    wait_for_no_helper(ALL);
    println!("stopped {}, at most {} helpers", stopper.stopped, stopper.peak);
}

/// The user's target does not answer, so that not even SIGKILL ends the writers: they keep their
/// slots, and there are never more writers than slots.
#[test]
fn row_29_writers_that_cannot_be_killed_keep_the_hosts_slots() {
    let target = Fuse::mount();
    let pattern = format!("{}/core.%p", target.path().display());
    let Some((host, user, scratch)) = prepared("stall = 1\nconcurrent = 2\nwait = 1", &pattern)
    else {
        return;
    };
    // Whatever fails, no process may wait for the target any more when the host is restored.
    let _last = scopeguard(|| target.go_on());
    target.on_write(0, Answer::Hold);
    let crasher = user.program(crasher());
    let script = format!("ulimit -c unlimited; exec {} null", crasher.display());
    let crash = || {
        let mut command = user.command("sh");
        command.args(["-c", &script]).current_dir(scratch.path()).spawn().unwrap()
    };
    let mut children = vec![crash()];
    assert!(target.wait_held(ALL), "nothing was ever held: {:?}", states());
    children.extend((0..11).map(|_| crash()));
    let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
    assert!(
        becomes(ALL, || children.iter_mut().all(ended)),
        "a crashed process is pinned: {:?}",
        states()
    );
    assert_another_gets_its_core(&host);
    wait_for_helpers(2, ALL);
    target.go_on();
    wait_for_no_helper(ALL);
}

/// Runs a function at the end of the scope.
fn scopeguard<F: Fn()>(last: F) -> impl Drop {
    struct Last<F: Fn()>(F);
    impl<F: Fn()> Drop for Last<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Last(last)
}

/// A container kills its processes while they wait for a slot: no helper goes on waiting for them.
#[test]
fn row_29_processes_that_are_killed_while_their_helpers_wait() {
    let host = scene::host();
    host.configure("[limits]\nstall = 120\nconcurrent = 1\nwait = 120\n");
    let target = Fuse::mount();
    target.on_write(0, Answer::Hold);
    let container = Container::new("impatient", target.path(), &[]);
    let victim = || container.victim(&bare::victim(), "tiny", 0);
    let mut first = victim();
    first.crash();
    assert!(target.wait_held(ALL));
    let mut others: Vec<_> = (0..40).map(|_| victim()).collect();
    others.iter_mut().for_each(|victim| victim.crash());
    let all = becomes(ALL, || helpers().len() >= 2 + others.len());
    assert!(all, "{} helpers only", helpers().len());
    others.iter_mut().for_each(|victim| victim.kill());
    wait_for_helpers(2, Duration::from_secs(30));
    target.go_on();
    assert!(first.ends_within(ALL));
    wait_for_no_helper(ALL);
}
