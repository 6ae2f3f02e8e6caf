//! `make bench-ship`: a storm of 1,000 crashes, a hundred at a time, while `oci-coredump-ship`
//! uploads each and while it does not run; then whether each crash was uploaded, once. Prints
//! times, and asserts none. Root; nothing else may crash on the machine meanwhile.

mod scene;

use scene::spread;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use support::bare::{self, Container, Victim};
use support::host::{Host, STORE};

/// Batches, and crashes in each.
const BATCHES: usize = 10;
const EACH: usize = 100;
/// How long the uploads may take after the last crash.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The program that uploads, ended on drop.
struct Shipping(Child);

impl Drop for Shipping {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let host = Host::take();
    host.install();
    let directory = tempfile::TempDir::with_prefix_in("storm", "/dev/shm").unwrap();
    let container = Container::new("storm-of-uploads", directory.path(), &[]);
    let victim = bare::victim();
    let kept = tempfile::TempDir::new().unwrap();
    println!("{}; load {}", scene::machine(), std::fs::read_to_string("/proc/loadavg").unwrap());

    let before = records();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..BATCHES {
        without.push(storm(&container, &victim));
    }
    let alone = &records() - &before;
    // These are not to be uploaded.
    for name in &alone {
        std::fs::remove_file(Path::new(STORE).join("records").join(name)).unwrap();
    }
    let shipping = ship(kept.path());
    for _ in 0..BATCHES {
        with.push(storm(&container, &victim));
    }
    let crashed = &records() - &before;
    let counted: u64 = crashed.iter().map(|name| crashes(name)).sum();
    let begun = Instant::now();
    let there = loop {
        let there = uploaded(&kept.path().join("out"));
        if there.len() >= crashed.len() || begun.elapsed() > PATIENCE {
            break there;
        }
        std::thread::sleep(Duration::from_secs(1));
    };
    let waited = begun.elapsed();
    drop(shipping);
    for (name, times) in [("without", without), ("with", with)] {
        let (median, least, most) = spread(times);
        println!("{EACH} crashes {name} uploads: {median:.0} ms ({least:.0} .. {most:.0})");
    }
    println!(
        "{counted} crashes in {} records, {} uploaded, the last {:.0} s after the storm",
        crashed.len(),
        there.len(),
        waited.as_secs_f64()
    );
    let names: BTreeSet<_> = crashed.iter().map(|name| name.replace(".jsonl", "")).collect();
    let of: BTreeSet<_> = there.iter().cloned().collect();
    assert_eq!(counted, (BATCHES * EACH) as u64);
    assert!(names == of && there.len() == of.len(), "not each of them once");
}

/// A batch of crashes: milliseconds from the first death until the last is known.
fn storm(container: &Container, program: &Path) -> f64 {
    let mut victims: Vec<Victim> =
        (0..EACH).map(|_| container.victim(program, "tiny", 0)).collect();
    victims.iter_mut().for_each(Victim::crash);
    let times: Vec<_> = victims.iter_mut().map(Victim::end).collect();
    let lost = victims.iter().filter(|victim| !victim.core().exists()).count();
    assert_eq!(lost, 0, "cores are lost");
    let first = times.iter().map(|t| t.0).min().unwrap();
    (times.iter().map(|t| t.1).max().unwrap() - first) as f64 / 1e6
}

/// Starts the program that uploads.
fn ship(dir: &Path) -> Shipping {
    let program = support::program::program().with_file_name("oci-coredump-ship");
    assert!(program.is_file(), "{} is missing: make bench-ship", program.display());
    let config = dir.join("config.toml");
    let text = format!(
        "store = {STORE:?}\n[upload]\nurl = \"file://{}\"\nkey = \"\"\nstate = {:?}\n\
         concurrent = 2\n",
        dir.join("out").display(),
        dir.join("state")
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(program);
    command.arg("run").arg("--config").arg(&config).stderr(std::process::Stdio::null());
    Shipping(command.spawn().unwrap())
}

fn records() -> BTreeSet<String> {
    let all = std::fs::read_dir(Path::new(STORE).join("records")).into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".jsonl"))
        .collect()
}

/// How many crashes a record counts.
fn crashes(name: &str) -> u64 {
    let text = std::fs::read_to_string(Path::new(STORE).join("records").join(name)).unwrap();
    let record: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    record["count"].as_u64().unwrap_or(1)
}

/// The crashes whose record has been uploaded, which comes last. Each directory is one.
fn uploaded(out: &Path) -> Vec<String> {
    let dirs: Vec<PathBuf> =
        std::fs::read_dir(out).into_iter().flatten().flatten().map(|e| e.path()).collect();
    let whole = dirs.iter().filter(|dir| dir.join("record.json").is_file());
    whole.map(|dir| dir.file_name().unwrap().to_string_lossy().into_owned()).collect()
}
