//! Everything crashes at once.
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::witness::{Calm, is_whole};
use support::bare::Container;
use support::crasher::compile;
use support::fuse::{Answer, Fuse};
use support::host::{RUN, locked};
use support::processes::helpers;
use support::runtime::{Kind, Runtime};
use support::scene;

const CONTAINERS: usize = 20;

/// `limits.host_concurrent`, and the first dumps of each container, the calm one's too.
const MOST: usize = 256 + 4 * (CONTAINERS + 1);

/// How long the last core may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// A field of /proc/PID/status or /proc/meminfo, in KiB.
fn kib(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok()
        })
        .unwrap_or(0)
}

fn available() -> u64 {
    kib(&fs::read_to_string("/proc/meminfo").unwrap(), "MemAvailable")
}

/// Number of dumps in progress: the slots that are locked.
fn slots() -> usize {
    let locked = locked();
    let directories = fs::read_dir(Path::new(RUN).join("limits"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name() != ".host");
    let slots =
        directories.flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten().flatten());
    slots.filter(|slot| slot.metadata().is_ok_and(|meta| locked.contains(&meta.ino()))).count()
}

#[derive(Debug, Default)]
struct Peak {
    helpers: usize,
    slots: usize,
    anonymous: u64,
    taken: u64,
}

impl Peak {
    fn look(&mut self, before: u64) {
        let now = helpers();
        let anonymous = now
            .iter()
            .map(|pid| {
                kib(
                    &fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(),
                    "RssAnon",
                )
            })
            .sum();
        self.helpers = self.helpers.max(now.len());
        self.slots = self.slots.max(slots());
        self.anonymous = self.anonymous.max(anonymous);
        self.taken = self.taken.max(before.saturating_sub(available()));
    }
}

impl std::fmt::Display for Peak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { helpers, slots, anonymous, taken } = self;
        write!(
            f,
            "at most {helpers} helper processes, {slots} dumps had a slot, {anonymous} KiB of \
             their own memory together, {taken} KiB less available"
        )
    }
}

/// A container with processes that crash when `reader` comes to its end.
struct Storm<P> {
    name: String,
    place: P,
    child: Child,
    output: BufReader<ChildStdout>,
    _container: Container,
}

impl<P> Storm<P> {
    fn new(
        i: usize,
        place: P,
        directory: impl Fn(&P) -> &Path,
        each: usize,
        reader: &PipeReader,
    ) -> Self {
        let name = format!("storm-{i:02}");
        let container = Container::new(&name, directory(&place), &[]);
        let mut command = container.command();
        command
            .arg(compile("storm", include_str!("storm.c"), &[]))
            .args([&each.to_string(), "256"]);
        let mut child =
            command.stdin(reader.try_clone().unwrap()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        output.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        Self { name, place, child, output, _container: container }
    }

    /// Waits until all have ended.
    fn end(&mut self, each: usize) {
        let mut said = String::new();
        self.output.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success());
        assert_eq!(
            said,
            format!("ended {each} {each}\n"),
            "{}: the kernel did not hand over every crash",
            self.name
        );
    }
}

/// How many crash.
fn all() -> usize {
    std::env::var("OCI_COREDUMP_STORM").ok().and_then(|n| n.parse().ok()).unwrap_or(1000)
}

/// The same onto a target that takes nothing for a while: all dumps that may
/// run do, and all others wait.
#[test]
fn a_thousand_processes_onto_a_target_that_does_not_answer() {
    let all = all();
    let each = all / CONTAINERS;
    let host = scene::host();
    host.configure("[limits]\nstall = 120\nwait = 60\n");
    let target = Fuse::mount();
    let calm = Calm::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut storms: Vec<_> =
        (0..CONTAINERS).map(|i| Storm::new(i, target.path(), |path| path, each, &reader)).collect();
    drop(reader);
    target.on_write(0, Answer::Hold);
    let (before, begun) = (available(), Instant::now());
    drop(writer);
    let (mut peak, mut last, mut since) = (Peak::default(), 0, Instant::now());
    // Until nothing has happened for a while, and well before these limits.
    while since.elapsed() < Duration::from_millis(1500) && begun.elapsed() < Duration::from_secs(20)
    {
        peak.look(before);
        if peak.helpers > last {
            (last, since) = (peak.helpers, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20)); // It takes samples and waits for nothing.
    }
    let at = Instant::now();
    calm.crash(&host, "in the storm");
    println!(
        "storm onto a target that does not answer: {peak}; another container's core took {:.0?}",
        at.elapsed()
    );
    target.go_on();
    storms.iter_mut().for_each(|storm| storm.end(each));
    let mut written = 0;
    for Storm { name, .. } in &storms {
        let records = host.records_of(name);
        assert_eq!(records.len(), each, "{name}: a crash has no record");
        written += records.iter().filter(|record| record["outcome"] == "written").count();
        assert!(
            records
                .iter()
                .all(|record| record["outcome"] == "written" || record["limit"].is_string()),
            "{records:#?}"
        );
    }
    println!(
        "storm onto a target that does not answer: {written} of {all} cores, {:.1?}",
        begun.elapsed()
    );
    assert!(peak.slots >= 4 * CONTAINERS, "the storm did not come: {peak:?}");
    assert!(peak.slots <= MOST * 5 / 4, "{peak:?}");
    // Every dump that had a slot has its core; of the others, those that did not wait too long.
    assert!(written >= peak.slots, "{written}: {peak:?}");
}

/// A thousand processes of twenty containers, or as many as the environment says. Each core is
/// complete, or its record names the limit that refused it. A container that is not involved gets
/// its core meanwhile, and others start.
#[test]
fn a_thousand_processes_at_once() {
    let all = all();
    let each = all / CONTAINERS;
    let host = scene::host();
    let calm = Calm::new();
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, _volume) = support::fixture::bundle();
    // How long a start takes is to be seen; ten seconds, which the other tests give their hooks, is
    // what an engine might call too long.
    for hook in bundle.config["hooks"]
        .as_object_mut()
        .unwrap()
        .values_mut()
        .flat_map(|stage| stage.as_array_mut().unwrap())
    {
        hook["timeout"] = 120.into();
    }
    let start = |id: &str| {
        let begun = Instant::now();
        let container = runtime.start(&bundle, id);
        let took = begun.elapsed();
        container.remove();
        took
    };
    let mut quiet: Vec<_> = (0..5).map(|i| start(&format!("quiet-{i}"))).collect();
    quiet.sort_unstable();

    let (reader, writer) = std::io::pipe().unwrap();
    let mut storms: Vec<_> = (0..CONTAINERS)
        .map(|i| {
            Storm::new(
                i,
                TempDir::with_prefix("storm").unwrap(),
                |directory| directory.path(),
                each,
                &reader,
            )
        })
        .collect();
    drop(reader);

    let before = available();
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let (peak, mut during, calms, took) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = Peak::default();
            while !over.load(Ordering::SeqCst) {
                peak.look(before);
                // It takes samples and waits for nothing.
                std::thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        let starter = scope.spawn(|| {
            let mut times = Vec::new();
            while !over.load(Ordering::SeqCst) {
                times.push(start(&format!("during-{}", times.len())));
            }
            times
        });
        drop(writer);
        let mut calms = Vec::new();
        for _ in 0..3 {
            let at = Instant::now();
            calm.crash(&host, "in the storm");
            calms.push(at.elapsed());
        }
        storms.iter_mut().for_each(|storm| storm.end(each));
        let took = begun.elapsed();
        assert!(took < PATIENCE, "{took:?}");
        over.store(true, Ordering::SeqCst);
        (sampler.join().unwrap(), starter.join().unwrap(), calms, took)
    });
    during.sort_unstable();

    let (mut written, mut refused) = (0, std::collections::BTreeMap::<String, usize>::new());
    for Storm { name, place, .. } in &storms {
        let records = host.records_of(name);
        assert_eq!(records.len(), each, "{name}: a crash has no record");
        for record in records {
            if record["outcome"] == "written" {
                let core = place.path().join(format!("core.{}", record["pid"]));
                assert!(is_whole(&fs::read(&core).unwrap()), "{core:?} is not whole: {record:#}");
                written += 1;
            } else {
                let limit =
                    record["limit"].as_str().unwrap_or_else(|| panic!("no limit: {record:#}"));
                *refused.entry(limit.to_owned()).or_default() += 1;
            }
        }
    }
    println!(
        "storm: {all} processes of {CONTAINERS} containers in {took:.1?}: {written} cores, \
         refused: {refused:?}"
    );
    println!("storm: {peak}");
    println!(
        "storm: start of a container: {:.0?} before, median {:.0?}, worst {:.0?} of {} during",
        quiet[2],
        during[during.len() / 2],
        during[during.len() - 1],
        during.len()
    );
    println!("storm: another container's cores took {calms:.0?}");
    assert_eq!(written + refused.values().sum::<usize>(), all);
    // Some are counted that have just found out that the slot is not theirs.
    assert!(peak.slots <= MOST * 5 / 4, "{peak:?}");
    // A helper and its writer need about a megabyte each while they work: bounded by what crashes,
    // never by the size of a core.
    assert!(peak.anonymous < all as u64 * 4 * 1024, "{peak:?}");
    assert!(*during.last().unwrap() < PATIENCE, "{during:?}");
}

/// A thousand of the host's own, which go to an earlier handler that the kernel would
/// run two at a time: no more of it run through us, the others are skipped, and a
/// container's core comes meanwhile.
#[test]
fn a_thousand_crashes_of_the_hosts_own() {
    const AT_ONCE: usize = 2;
    let all = all();
    let host = scene::host();
    let directory = TempDir::with_prefix("handler").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let script = directory.path().join("handler");
    // Its begin and its end, in their order.
    let text = "#!/bin/sh\necho b >>\"${0%/*}/handled\"\ncat >/dev/null\nsleep 0.2\n\
                echo e >>\"${0%/*}/handled\"\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    host.set("kernel/core_pattern", &format!("|{} %P", script.display()));
    host.set("kernel/core_pipe_limit", &AT_ONCE.to_string());
    let calm = Calm::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut storm = Command::new(compile("storm", include_str!("storm.c"), &[]))
        .args([&all.to_string(), "256"])
        .stdin(reader)
        .stdout(Stdio::piped())
        .current_dir(directory.path())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(storm.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let (before, begun, over) = (available(), Instant::now(), AtomicBool::new(false));
    let (peak, took, calmly) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = Peak::default();
            while !over.load(Ordering::SeqCst) {
                peak.look(before);
                // It takes samples and waits for nothing.
                std::thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        drop(writer);
        let at = Instant::now();
        calm.crash(&host, "in the storm of the host's own");
        let calmly = at.elapsed();
        line.clear();
        output.read_to_string(&mut line).unwrap();
        assert!(storm.wait().unwrap().success());
        let took = begun.elapsed();
        over.store(true, Ordering::SeqCst);
        (sampler.join().unwrap(), took, calmly)
    });
    assert_eq!(line, format!("ended {all} {all}\n"));
    let said = fs::read_to_string(directory.path().join("handled")).unwrap_or_default();
    let (mut handlers, mut now, mut handled) = (0, 0, 0);
    for line in said.lines() {
        match line {
            "b" => now += 1,
            _ => (now, handled) = (now - 1, handled + 1),
        }
        handlers = handlers.max(now);
    }
    println!(
        "storm of the host's own: {all} processes in {took:.1?}: {} handled, at most {handlers} at \
         a \
         time; {peak}; a container's core took {calmly:.0?}",
        handled
    );
    assert!((1..=AT_ONCE).contains(&handlers), "{handlers} of the earlier handler at a time");
    assert!(handled >= AT_ONCE && took < PATIENCE, "{took:?}");
}
