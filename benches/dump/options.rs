//! Crashes of containers that ask for more than a name: early release, small cores, compression.
use std::time::Duration;

use support::bare::{Container, Victim};
use support::wait::wait_for;

use crate::scene::{Method, Sample, spread, warm};
use crate::{Bench, ROUNDS, place, row, way};

impl Bench {
    /// How long the parent waits when the process is let go before its core is whole, which
    /// should not grow with the core.
    pub fn early(&self, name: &str) {
        // Onto a disk: on a memory-backed volume nobody is released early.
        let container = Container::new(
            "bench-early",
            self.directories[1].path(),
            &[("oci-coredump/release", "early")],
        );
        for (size, method) in
            [64, 1024].into_iter().flat_map(|size| [(size, Method::Ours), (size, Method::Socket)])
        {
            if !self.has(method) {
                continue;
            }
            let times: Vec<f64> = (0..ROUNDS)
                .map(|_| {
                    warm(size << 20);
                    self.patterns.choose(&self.host, method, container.directory());
                    let mut victim = container.victim(&self.victim, "random", size);
                    victim.crash();
                    let (start, end) = victim.end();
                    self.complete(&victim, (size as u64) << 20);
                    (end - start) as f64 / 1e6
                })
                .collect();
            let (median, least, most) = spread(times);
            println!(
                "{:<44} {median:>7.3}  ({least:.3} .. {most:.3})  {:>9}",
                format!("{name}{}: held, {size} MiB, ms", way(method)),
                "<= 5.00"
            );
        }
    }

    /// Waits until the record of a core says that it is whole, and removes it.
    fn complete(&self, victim: &Victim, least: u64) {
        let whole = |r: &serde_json::Value| {
            r["host_pid"] == victim.pid()
                && r["outcome"] == "written"
                && r["size"].as_u64().is_some_and(|s| s >= least)
        };
        let what = format!("a whole core of {}", victim.pid());
        wait_for(&what, Duration::from_secs(60), || self.host.records().iter().any(whole));
        std::fs::remove_file(victim.core()).unwrap();
    }

    pub fn small(&self, name: &str) {
        for directory in &self.directories {
            let container =
                Container::new("bench-small", directory.path(), &[("oci-coredump/keep", "stacks")]);
            let (mut held, mut socket, mut disk) = (vec![], vec![], vec![]);
            for _ in 0..ROUNDS {
                let kernel = self.one(&container, Method::Kernel, "random", 1024);
                let by_kernel = |s: &Sample| s.held.as_secs_f64() / kernel.held.as_secs_f64();
                if self.has(Method::Socket) {
                    let through = self.one(&container, Method::Socket, "random", 1024);
                    socket.push(by_kernel(&through));
                }
                let ours = self.one(&container, Method::Ours, "random", 1024);
                held.push(by_kernel(&ours));
                disk.push(ours.disk as f64 / kernel.disk as f64);
            }
            row(&format!("{name}, {}", place(&container)), held, Some(0.10));
            if !socket.is_empty() {
                row("    through the socket", socket, Some(0.10));
            }
            row("    bytes on disk", disk, Some(0.01));
        }
    }

    pub fn zstd(&self, name: &str) {
        for directory in &self.directories {
            let container = Container::new(
                "bench-zstd",
                directory.path(),
                &[("oci-coredump/compress", "zstd")],
            );
            let name = format!("{name}, {}", place(&container));
            let (mut held, mut socket, mut disk) = (vec![], vec![], vec![]);
            for _ in 0..ROUNDS {
                let kernel = self.one(&container, Method::Kernel, "text", 1024);
                let mut run = |method: Method| {
                    warm(1 << 30);
                    self.patterns.choose(&self.host, method, container.directory());
                    let mut victim = container.victim(&self.victim, "text", 1024);
                    victim.crash();
                    let (start, end) = victim.end();
                    let core = victim.core();
                    let name = format!("{}.zst", core.file_name().unwrap().to_str().unwrap());
                    let core = core.with_file_name(name);
                    let blocks =
                        std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&core).unwrap());
                    disk.push(blocks as f64 * 512.0 / kernel.disk as f64);
                    std::fs::remove_file(core).unwrap();
                    (end - start) as f64 / 1e9 / kernel.held.as_secs_f64()
                };
                if self.has(Method::Socket) {
                    socket.push(run(Method::Socket));
                }
                held.push(run(Method::Ours));
            }
            row(&format!("{name}: complete"), held, Some(1.0));
            if !socket.is_empty() {
                row("    through the socket", socket, Some(1.0));
            }
            row("    bytes on disk", disk, None);
        }
    }
}
