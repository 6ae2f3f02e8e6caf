//! `make bench`: the rows of the table of goals, each interleaved with the kernel's own file mode
//! in the same run. Prints ratios, and asserts no time. Root; nothing else may crash on the machine
//! meanwhile. `cargo bench -p oci-coredump-integration --bench dump -- WORD...` runs the rows whose
//! name has one of the words.

mod scene;

use scene::{Method, Patterns, Sample, sample, spread, warm};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::bare::{self, Container, Victim, now};
use support::host::{BINARY, Host};
use support::processes::{field, helpers};
use support::server::{self, Server};
use support::systemd::Systemd;
use support::wait::wait_for;

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
        hook();
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
        let patterns = Patterns {
            ours: host.sysctl("kernel/core_pattern"),
            systemd: Systemd::start(),
            nothing,
        };
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

    /// How long the parent waits when the process is let go before its core is whole, which
    /// should not grow with the core.
    fn early(&self, name: &str) {
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
            r["host_pid"] == victim.id()
                && r["outcome"] == "written"
                && r["size"].as_u64().is_some_and(|s| s >= least)
        };
        let what = format!("a whole core of {}", victim.id());
        wait_for(&what, Duration::from_secs(60), || self.host.records().iter().any(whole));
        std::fs::remove_file(victim.core()).unwrap();
    }

    fn small(&self, name: &str) {
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

    fn zstd(&self, name: &str) {
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

    /// The most memory that the helper and its child have at any moment of a
    /// dump, looked at all the time.
    fn memory(&self, container: &Container) {
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
    fn server_memory(&self, container: &Container) {
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

    /// System calls are the same on every run, unlike times.
    fn calls(&self, container: &Container) {
        // The first crash also makes directories, and applies the rules of the vacuum.
        self.patterns.choose(&self.host, Method::Ours, container.directory());
        sample(container.victim(&self.victim, "tiny", 0), Method::Ours);
        // core_pattern is short, so are these.
        let (tracer, file) = (Path::new("/dev/shm/s"), Path::new("/dev/shm/t"));
        let _ = std::fs::remove_file(tracer);
        std::os::unix::fs::symlink("/usr/bin/strace", tracer).unwrap();
        let pattern = self.patterns.ours.replacen(
            '|',
            &format!("|{} -fo{} ", tracer.display(), file.display()),
            1,
        );
        self.host.set("kernel/core_pattern", &pattern);
        sample(container.victim(&self.victim, "tiny", 0), Method::Ours);
        // The helper goes on when the process has gone.
        wait_for("the whole trace", Duration::from_secs(60), || is_whole(file));
        std::fs::remove_file(tracer).unwrap();
        println!("{:<44} {:>7}", "system calls of a tiny crash, to the end", count(file));
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(
            bundle.path().join("config.json"),
            r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"}}"#,
        )
        .unwrap();
        let state = serde_json::json!({
            "id": "x", "status": "creating", "pid": std::process::id(), "bundle": bundle.path(),
        })
        .to_string();
        let mut hook = Command::new("strace")
            .arg("-fo")
            .arg(file)
            .args([BINARY, "hook", "createRuntime"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("strace");
        std::io::Write::write_all(&mut hook.stdin.take().unwrap(), state.as_bytes()).unwrap();
        assert!(hook.wait().unwrap().success());
        println!("{:<44} {:>7}", "system calls of an un-annotated hook", count(file));
        std::fs::remove_file(file).unwrap();
    }
}

fn count(trace: &Path) -> usize {
    let text = std::fs::read_to_string(trace).unwrap();
    text.lines()
        .filter(|l| {
            l.contains('(') && !l.contains("resumed>") && !l.contains("---") && !l.contains("+++")
        })
        .count()
}

/// Whether all the processes of a trace have ended.
fn is_whole(trace: &Path) -> bool {
    let text = std::fs::read_to_string(trace).unwrap();
    let processes = |word: &str| {
        text.lines()
            .filter(|l| l.contains(word))
            .filter_map(|l| l.split_whitespace().next())
            .collect::<BTreeSet<_>>()
    };
    !text.is_empty() && processes("") == processes("+++")
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

/// How often a hook stands in a configuration: what one adds is less than the
/// machine's own ups and downs.
const COPIES: usize = 16;

/// Every order of four in turn: what a run leaves for the machine to clean
/// up is paid by the next one.
fn order(round: usize) -> [usize; 4] {
    let mut rest = vec![0, 1, 2, 3];
    [round % 4, round / 4 % 3, round / 12 % 2, 0].map(|i| rest.remove(i))
}

/// What the hook adds to `runc run`, in what a static hook that does nothing adds.
fn hook() {
    let host = Host::take();
    host.install();
    let directory = tempfile::tempdir().unwrap();
    let nothing = does_nothing();
    let bundle = |name: &str, hook: Option<&Path>, copies: usize, annotated: bool| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.join("rootfs/proc")).unwrap();
        std::fs::copy(&nothing, path.join("rootfs/nothing")).unwrap();
        assert!(
            Command::new("runc").arg("spec").current_dir(&path).status().expect("runc").success()
        );
        let text = std::fs::read_to_string(path.join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = serde_json::json!(["/nothing"]);
        if let Some(hook) = hook {
            let one = serde_json::json!({
                "path": hook, "args": ["oci-coredump", "hook", "createRuntime"],
            });
            config["hooks"] = serde_json::json!({ "createRuntime": vec![one; copies] });
        }
        if annotated {
            config["annotations"] = serde_json::json!({ "oci-coredump/pattern": "/cores/core" });
        }
        std::fs::write(path.join("config.json"), config.to_string()).unwrap();
        path
    };
    let ours = Path::new(BINARY);
    let kinds = [
        bundle("none", None, 0, false),
        bundle("c", Some(&nothing), COPIES, false),
        bundle("plain", Some(ours), COPIES, false),
        // Once: the second would find everything in place.
        bundle("annotated", Some(ours), 1, true),
    ];
    let mut times = [const { Vec::<f64>::new() }; 4];
    for round in 0..24 * ROUNDS {
        for kind in order(round) {
            let (bundle, times) = (&kinds[kind], &mut times[kind]);
            let start = now();
            let root = directory.path().join("state");
            let status = Command::new("runc")
                .arg("--root")
                .arg(root)
                .args(["run", "--bundle"])
                .arg(bundle)
                .arg(format!("b{round}"))
                .stdin(Stdio::null())
                .status();
            assert!(status.unwrap().success());
            times.push((now() - start) as f64 / 1e6);
        }
    }
    // What each adds to the run without a hook beside it.
    let added = |t: &[f64], copies: usize| {
        spread(
            t.iter()
                .zip(&times[0])
                .map(|(with, without)| (with - without) / copies as f64)
                .collect(),
        )
        .0
    };
    let [c, plain, annotated] =
        [added(&times[1], COPIES), added(&times[2], COPIES), added(&times[3], 1)];
    println!(
        "runc run: {:.2} ms; one static C hook that does nothing adds {c:.2} ms (of {COPIES} in a \
         row)",
        spread(times[0].clone()).0
    );
    for (name, value, goal) in [
        ("hook without the annotation, by C's", plain, 1.1),
        ("hook with the annotation, by C's", annotated, 1.5),
    ] {
        println!("{name:<44} {:>7.3}  {:<17} <= {goal:.2}", value / c, format!("(+{value:.2} ms)"));
    }
}

/// The program that does nothing, as a helper.
fn does_nothing() -> PathBuf {
    support::crasher::compile("nothing", include_str!("nothing.c"), &["-O2"])
}
