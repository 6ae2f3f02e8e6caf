//! What the helpers and the server have of the machine's memory.
use support::bare::{Container, Victim};
use support::processes::{field, helpers};

use crate::Bench;
use crate::scene::Method;

impl Bench {
    /// The most memory that the helper and its child have at any moment of a
    /// dump, looked at all the time.
    pub fn memory(&self, container: &Container) {
        self.patterns.choose(&self.host, Method::Ours, container.directory());
        let mut victim = container.victim(&self.victim, "random", 1024);
        victim.crash();
        let end = std::sync::atomic::AtomicBool::new(false);
        let peak = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut peak = 0;
                while !end.load(std::sync::atomic::Ordering::Relaxed) {
                    peak = peak.max(helpers_memory());
                }
                peak
            });
            victim.end();
            end.store(true, std::sync::atomic::Ordering::Relaxed);
            watch.join().unwrap()
        });
        std::fs::remove_file(victim.core()).unwrap();
        println!(
            "{:<44} {:>7.2}  {:<17} {:>9}",
            "peak memory of a helper process, MiB",
            peak as f64 / 1024.0,
            "(VmHWM)",
            "<= 6.00"
        );
    }

    /// What the server has while it waits, and its processes together in a storm of one container.
    pub fn server_memory(&self, container: &Container) {
        let Some(server) = &self.server else { return };
        let mib = |pid: i32, name: &str| {
            let text = field(pid, name).unwrap_or_default();
            text.trim_end_matches(" kB").parse::<f64>().map_or(0.0, |kib| kib / 1024.0)
        };
        self.patterns.choose(&self.host, Method::Socket, container.directory());
        let line = |name: &str, mib: f64, what: &str, goal: &str| {
            println!("{name:<44} {mib:>7.2}  {what:<17} {goal:>9}");
        };
        let serving = server.serving();
        line("memory of the idle server, MiB", mib(serving, "VmRSS"), "(VmRSS)", "<= 8.00");
        line("    its own", mib(serving, "RssAnon"), "(RssAnon)", "");
        let mut peak = 0.0_f64;
        for _ in 0..5 {
            let mut victims: Vec<_> =
                (0..200).map(|_| container.victim(&self.victim, "tiny", 0)).collect();
            victims.iter_mut().for_each(Victim::crash);
            for victim in &mut victims {
                victim.end();
                peak = peak.max(helpers().into_iter().map(own_memory).sum());
                std::fs::remove_file(victim.core()).unwrap();
            }
        }
        line("memory of a storm of 1,000, MiB", peak / 1024.0, "(Pss_Anon)", "<= 64.00");
    }
}

/// KiB of the largest process of ours.
fn helpers_memory() -> u64 {
    let mut most = 0;
    for pid in helpers() {
        let peak = field(pid, "VmHWM").and_then(|v| v.trim_end_matches(" kB").parse().ok());
        most = most.max(peak.unwrap_or(0));
    }
    most
}

/// KiB of a process's own memory: of what it shares with its parent, its part.
fn own_memory(pid: i32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
