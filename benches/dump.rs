//! `make bench`: the rows of the table of goals, each interleaved with the kernel's own file mode
//! in the same run. Prints ratios, and asserts no time. Root; nothing else may crash on the machine
//! meanwhile. `cargo bench -p oci-coredump-integration --bench dump -- WORD...` runs the rows whose
//! name has one of the words.
//!
//! On a machine that does other things: `OCI_COREDUMP_REAL_TIME=1 chrt -f 1` before it. Helpers are
//! then started by a small program that gives them the same priority, which they pay for.

mod dump {
    pub mod calls;
    pub mod hook;
    pub mod memory;
    pub mod options;
}
mod scene;

use scene::{Method, Patterns, Sample, sample, spread, warm};
use std::path::PathBuf;
use support::bare::{self, Container};
use support::host::Host;
use support::server::{self, Server};
use support::systemd::Systemd;

const ROUNDS: usize = 5;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|w| name.contains(w.as_str()));
    println!(
        "{}; load {}",
        scene::machine(),
        std::fs::read_to_string("/proc/loadavg").unwrap().trim()
    );
    println!(
        "ratio: ours / the kernel's file mode, or what the row says; median of {ROUNDS} \
         interleaved rounds"
    );
    let bench = Bench::new();
    println!("\n{:<44} {:>7}  {:<17} {:>9}", "figure", "ratio", "(least .. most)", "goal");
    let dumps = [
        ("1 GiB random", "random", 1024, [0.55, 0.35], None),
        ("1 GiB text-like", "text", 1024, [0.40, 0.40], Some(1.00)),
        ("4 GiB mapped, 256 MiB touched", "scattered", 4096, [0.50, 0.75], Some(1.00)),
    ];
    for (name, kind, size, goals, disk_goal) in dumps {
        for (container, goal) in bench.containers.iter().zip(goals) {
            let name = format!("{name}, {}", place(container));
            if wanted(&name) {
                bench.dump(&name, container, kind, size, goal, disk_goal);
            }
        }
    }
    let tmpfs = &bench.containers[0];
    if wanted("tiny process") || wanted("200 tiny at once") {
        // The records of the last run were removed just now; see `scene::tidy`.
        std::thread::sleep(scene::FORGOTTEN);
    }
    if wanted("tiny process") {
        bench.tiny("tiny process, tmpfs", tmpfs, 5 * ROUNDS);
    }
    if wanted("200 tiny at once") {
        bench.storm("200 tiny at once, tmpfs", &[tmpfs], 200);
        let many: Vec<_> = (0..20)
            .map(|n| Container::new(&format!("bench-{n}"), tmpfs.directory(), &[]))
            .collect();
        let many: Vec<_> = many.iter().collect();
        bench.storm("200 tiny at once of 20 containers, tmpfs", &many, 200);
    }
    if wanted("early release") {
        bench.early("early release");
    }
    if wanted("small core") {
        bench.small("small core of 1 GiB random");
    }
    if wanted("zstd") {
        bench.zstd("zstd while dumping, 1 GiB text-like");
    }
    if wanted("peak memory") {
        bench.memory(&bench.containers[0]);
    }
    if wanted("server's memory") {
        bench.server_memory(&bench.containers[0]);
    }
    if wanted("system calls") {
        bench.calls(&bench.containers[0]);
    }
    drop(bench);
    if wanted("hook") {
        dump::hook::hook();
    }
}

/// What the rows of many crashes compare.
const METHODS: [Method; 8] = [
    Method::Kernel,
    Method::Nothing,
    Method::Floor,
    Method::Ours,
    Method::OursBrief,
    Method::Socket,
    Method::SocketBrief,
    Method::Systemd,
];

/// The goals of such a row: by the pipe, through the socket, and how often systemd-coredump's time.
struct Goals {
    pipe: f64,
    socket: f64,
    peer: f64,
}

/// `times`: of each of METHODS, in seconds.
fn compare(name: &str, times: &[Vec<f64>; METHODS.len()], goals: &Goals) {
    let [kernel, nothing, floor, ours, brief, socket, socket_brief, systemd] = times;
    let by = |times: &[f64], unit: &[f64]| {
        times.iter().zip(unit).map(|(t, k)| t / k).collect::<Vec<f64>>()
    };
    row(name, by(ours, kernel), Some(goals.pipe));
    row("    without a summary", by(brief, kernel), None);
    if !socket.is_empty() {
        row("    through the socket", by(socket, kernel), Some(goals.socket));
        row("    through the socket, without a summary", by(socket_brief, kernel), None);
    }
    let (median, least, most) = spread(kernel.clone());
    println!(
        "{:<44} {:>7.2}  ({:.2} .. {:.2})",
        "    the kernel's file mode, ms",
        median * 1e3,
        least * 1e3,
        most * 1e3
    );
    row("    no core at all", by(nothing, kernel), None);
    row("    a static C helper that does nothing", by(floor, kernel), None);
    row("    ours, by that helper", by(ours, floor), None);
    if !systemd.is_empty() {
        let (median, least, most) = spread(by(systemd, ours));
        println!(
            "{:<44} {median:>7.1}  ({least:.1} .. {most:.1})  {:>9}",
            "    systemd-coredump, by ours",
            format!(">= {:.0}", goals.peer)
        );
        if !socket.is_empty() {
            let (median, least, most) = spread(by(systemd, socket));
            println!(
                "{:<44} {median:>7.1}  ({least:.1} .. {most:.1})  {:>9}",
                "    systemd-coredump, by ours of the socket", ">= 20"
            );
        }
    }
}

/// How a row of the socket's is called.
fn way(method: Method) -> &'static str {
    if method == Method::Socket { ", socket" } else { "" }
}

fn place(container: &Container) -> &'static str {
    if container.directory().starts_with("/dev/shm") { "tmpfs" } else { "disk" }
}

fn row(name: &str, values: Vec<f64>, goal: Option<f64>) {
    let (median, least, most) = spread(values);
    let goal = goal.map_or(String::new(), |g| format!("<= {g:.2}"));
    println!("{name:<44} {median:>7.3}  ({least:.3} .. {most:.3})  {goal:>9}");
}

struct Bench {
    containers: [Container; 2],
    victim: PathBuf,
    patterns: Patterns,
    server: Option<Server>,
    host: Host,
    directories: [tempfile::TempDir; 2],
}

impl Bench {
    fn new() -> Self {
        let host = Host::take();
        host.install();
        host.configure(scene::CONFIGURATION);
        let directories = ["/dev/shm", "/var/tmp"]
            .map(|d| tempfile::TempDir::with_prefix_in("bench", d).unwrap());
        let containers = [
            Container::new("bench-tmpfs", directories[0].path(), &[]),
            Container::new("bench-disk", directories[1].path(), &[]),
        ];
        // core_pattern is short.
        let nothing = directories[0].path().join("nothing");
        std::fs::copy(does_nothing(), &nothing).unwrap();
        let mut patterns = Patterns {
            ours: host.sysctl("kernel/core_pattern"),
            systemd: Systemd::start(),
            nothing: format!("|{}", nothing.display()),
        };
        // All that this program starts has its priority; what the kernel starts has not.
        if std::env::var_os("OCI_COREDUMP_REAL_TIME").is_some() {
            let first = directories[0].path().join("rt");
            let made =
                support::crasher::compile("first", include_str!("first.c"), &["-O2", "-static"]);
            std::fs::copy(made, &first).unwrap();
            patterns.run_by(&first);
        }
        // The configuration wants the pipe: only the rows lead the kernel to the socket.
        let server = server::is_possible().then(|| Server::start(&host));
        Bench { containers, victim: bare::victim(), patterns, server, host, directories }
    }

    fn one(&self, container: &Container, method: Method, kind: &str, size: usize) -> Sample {
        warm(if matches!(kind, "random" | "text" | "scattered") {
            size.min(1024) << 20
        } else {
            0
        });
        self.patterns.choose(&self.host, method, container.directory());
        sample(container.victim(&self.victim, kind, size), method)
    }

    fn dump(
        &self,
        name: &str,
        container: &Container,
        kind: &str,
        size: usize,
        goal: f64,
        disk_goal: Option<f64>,
    ) {
        let (mut held, mut disk, mut absolute) = (vec![], vec![], vec![]);
        let mut socket = vec![];
        for _ in 0..ROUNDS {
            let kernel = self.one(container, Method::Kernel, kind, size);
            if self.has(Method::Socket) {
                let through = self.one(container, Method::Socket, kind, size).held;
                socket.push(through.as_secs_f64() / kernel.held.as_secs_f64());
            }
            let ours = self.one(container, Method::Ours, kind, size);
            assert_eq!(kernel.size, ours.size, "{name}: the cores differ in size");
            held.push(ours.held.as_secs_f64() / kernel.held.as_secs_f64());
            disk.push(ours.disk as f64 / kernel.disk as f64);
            absolute.push(kernel.held.as_secs_f64());
        }
        let (kernel, least, most) = spread(absolute);
        row(&format!("{name}: held and complete"), held, Some(goal));
        if !socket.is_empty() {
            row("    through the socket", socket, Some(goal));
        }
        println!(
            "{:<44} {:>7.1}  ({:.1} .. {:.1})",
            "    the kernel's file mode, ms",
            kernel * 1e3,
            least * 1e3,
            most * 1e3
        );
        if disk_goal.is_some() {
            row("    bytes on disk", disk, disk_goal);
        }
    }

    /// The methods of the table in turn, in units of the kernel's file mode.
    fn tiny(&self, name: &str, container: &Container, rounds: usize) {
        let mut times = [const { Vec::<f64>::new() }; METHODS.len()];
        for _ in 0..rounds {
            for (method, times) in METHODS.iter().zip(&mut times).filter(|(m, _)| self.has(**m)) {
                times.push(self.one(container, *method, "tiny", 0).held.as_secs_f64());
            }
        }
        scene::tidy();
        compare(name, &times, &Goals { pipe: 6.0, socket: 3.5, peer: 10.0 });
    }

    /// All crash at once; from the first death until the last one is known.
    fn storm(&self, name: &str, containers: &[&Container], count: usize) {
        let run = |method: Method| {
            self.patterns.choose(&self.host, method, containers[0].directory());
            let each = containers.iter().cycle().take(count);
            let mut victims: Vec<_> =
                each.map(|container| container.victim(&self.victim, "tiny", 0)).collect();
            victims.iter_mut().for_each(|v| v.crash());
            let times: Vec<_> = victims.iter_mut().map(|v| v.end()).collect();
            let lost = victims.iter().filter(|v| !scene::take_core(v, method)).count();
            if lost > 0 {
                println!("    {method:?} lost {lost} of {count} cores");
            }
            assert!(lost == 0 || method == Method::Systemd);
            (times.iter().map(|t| t.1).max().unwrap() - times.iter().map(|t| t.0).min().unwrap())
                as f64
                / 1e9
        };
        let mut times = [const { Vec::<f64>::new() }; METHODS.len()];
        for _ in 0..ROUNDS {
            for (method, times) in METHODS.iter().zip(&mut times).filter(|(m, _)| self.has(**m)) {
                times.push(run(*method));
            }
        }
        scene::tidy();
        let socket = if containers.len() > 1 { 5.0 } else { 3.5 };
        compare(name, &times, &Goals { pipe: 6.0, socket, peer: 15.0 });
    }

    fn has(&self, method: Method) -> bool {
        match method {
            Method::Systemd => self.patterns.systemd.is_some(),
            Method::Socket | Method::SocketBrief => self.server.is_some(),
            _ => true,
        }
    }
}

/// The program that does nothing, as a helper.
fn does_nothing() -> PathBuf {
    support::crasher::compile("nothing", include_str!("nothing.c"), &["-O2"])
}
