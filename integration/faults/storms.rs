//! Everything crashes at once.
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ring::helpers;
use crate::scene;
use crate::support::bare::Container;
use crate::support::crasher::compile;
use crate::support::host::{RUN, locked};
use crate::support::runtime::{Kind, Runtime};
use crate::witness::{Calm, is_whole};

const CONTAINERS: usize = 20;

/// How long the last core may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// A field of /proc/PID/status or /proc/meminfo, in KiB.
fn kib(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn available() -> u64 {
    kib(&fs::read_to_string("/proc/meminfo").unwrap(), "MemAvailable")
}

/// How many dumps have their turn: the slots that are locked.
fn turns() -> usize {
    let locked = locked();
    let directories = fs::read_dir(Path::new(RUN).join("limits")).into_iter().flatten().flatten().filter(|entry| entry.file_name() != ".host");
    let slots = directories.flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten().flatten());
    slots.filter(|slot| slot.metadata().is_ok_and(|meta| locked.contains(&meta.ino()))).count()
}

#[derive(Debug, Default)]
struct Peak {
    helpers: usize,
    turns: usize,
    anonymous: u64,
    taken: u64,
}

/// A thousand processes of twenty containers, or as many as the environment says. Each core is there and whole, or its record names the limit that refused it; a
/// container that has nothing to do with it gets its core meanwhile, and others start.
#[test]
fn a_thousand_processes_at_once() {
    let all: usize = std::env::var("OCI_COREDUMP_STORM").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let each = all / CONTAINERS;
    let host = scene::host();
    let program = compile("storm", include_str!("storm.c"), &[]);
    let calm = Calm::new();
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, _volume) = crate::ring::bundle();
    // How long a start takes is to be seen; ten seconds, which the other tests give their hooks, is what an engine might call too long.
    for hook in bundle.config["hooks"].as_object_mut().unwrap().values_mut().flat_map(|stage| stage.as_array_mut().unwrap()) {
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
            let directory = TempDir::with_prefix("storm").unwrap();
            let name = format!("storm-{i:02}");
            let container = Container::new(&name, directory.path(), &[]);
            let mut command = Command::new("nsenter");
            command.args(["--mount", "--target", &container.init().to_string(), "--"]).arg(&program).args([&each.to_string(), "256"]);
            let mut child = command.stdin(reader.try_clone().unwrap()).stdout(Stdio::piped()).spawn().unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            let mut ready = String::new();
            output.read_line(&mut ready).unwrap();
            assert_eq!(ready, "ready\n");
            (name, container, directory, child, output)
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
                let now = helpers();
                let status: Vec<_> = now.iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()).collect();
                let anonymous = status.iter().map(|status| kib(status, "RssAnon")).sum();
                peak.helpers = peak.helpers.max(now.len());
                peak.turns = peak.turns.max(turns());
                peak.anonymous = peak.anonymous.max(anonymous);
                peak.taken = peak.taken.max(before.saturating_sub(available()));
                std::thread::sleep(Duration::from_millis(20)); // a sample, not a wait
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
        for (name, _, _, child, output) in &mut storms {
            let mut said = String::new();
            output.read_to_string(&mut said).unwrap();
            assert!(child.wait().unwrap().success());
            assert_eq!(said, format!("ended {each} {each}\n"), "{name}: the kernel did not hand over every crash");
        }
        let took = begun.elapsed();
        assert!(took < PATIENCE, "{took:?}");
        over.store(true, Ordering::SeqCst);
        (sampler.join().unwrap(), starter.join().unwrap(), calms, took)
    });
    during.sort_unstable();

    let (mut written, mut refused) = (0, std::collections::BTreeMap::<String, usize>::new());
    for (name, _, directory, _, _) in &storms {
        let records = host.records_of(name);
        assert_eq!(records.len(), each, "{name}: a crash has no record");
        for record in records {
            if record["outcome"] == "written" {
                let core = directory.path().join(format!("core.{}", record["pid"]));
                assert!(is_whole(&fs::read(&core).unwrap()), "{core:?} is not whole: {record:#}");
                written += 1;
            } else {
                let why = record["reason"].as_str().unwrap_or_else(|| panic!("{record:#}"));
                assert!(why.contains("limit") || why.contains("at once") || why.contains("a minute"), "no limit: {record:#}");
                *refused.entry(why.to_owned()).or_default() += 1;
            }
        }
    }
    println!("storm: {all} processes of {CONTAINERS} containers in {took:.1?}: {written} cores, refused: {refused:?}");
    println!(
        "storm: at most {} helper processes, {} dumps had their turn, {} KiB of their own memory together, {} KiB less available on the host",
        peak.helpers, peak.turns, peak.anonymous, peak.taken
    );
    println!(
        "storm: start of a container: {:.0?} before, median {:.0?}, worst {:.0?} of {} during",
        quiet[2],
        during[during.len() / 2],
        during[during.len() - 1],
        during.len()
    );
    println!("storm: another container's cores took {calms:.0?}");
    assert_eq!(written + refused.values().sum::<usize>(), all);
    // `limits.host_concurrent`, and the first dumps of each container.
    // Some are counted that have just found out that it is not theirs.
    assert!(peak.turns <= (64 + 4 * (CONTAINERS + 1)) * 5 / 4, "{peak:?}");
    // A helper and its writer need about a megabyte each while they work: bounded by what crashes, never by the size of a core.
    assert!(peak.anonymous < all as u64 * 4 * 1024, "{peak:?}");
    assert!(*during.last().unwrap() < PATIENCE, "{during:?}");
}
