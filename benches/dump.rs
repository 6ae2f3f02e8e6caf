//! `make bench`: the rows of the table of goals, each interleaved with the kernel's own file mode in the same run. Prints ratios, and asserts no time.
//! Root; nothing else may crash on the machine meanwhile. `cargo bench --bench dump -- WORD...` runs the rows whose name has one of the words.

#[path = "../integration/support/mod.rs"]
mod support;

mod scene;

use scene::{Method, Sample, choose, sample, spread, warm};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::bare::{Container, compile, now};
use support::host::{BINARY, Host};

const ROUNDS: usize = 5;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|w| name.contains(w.as_str()));
    machine();
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
    if wanted("tiny") {
        bench.dump("tiny process, tmpfs", &bench.containers[0], "tiny", 0, 3.5, None);
    }
    if wanted("200 tiny at once") {
        bench.storm("200 tiny at once, tmpfs", &bench.containers[0], 200, 5.0);
    }
    if wanted("peak memory") {
        bench.memory(&bench.containers[0]);
    }
    if wanted("system calls") {
        bench.calls(&bench.containers[0]);
    }
    drop(bench);
    if wanted("hook") {
        hook();
    }
}

fn machine() {
    let line = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = line("/proc/cpuinfo").lines().find_map(|l| l.strip_prefix("model name\t: ").map(str::to_owned)).unwrap_or_default();
    let memory = line("/proc/meminfo").lines().next().unwrap_or_default().to_owned();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{}{cpus} x {cpu}; {memory}; load {}", line("/proc/version"), line("/proc/loadavg").trim());
    println!("ratio: ours / the kernel's file mode, or what the row says; median of {ROUNDS} interleaved rounds");
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
    ours: String,
    host: Host,
    _directories: [tempfile::TempDir; 2],
}

impl Bench {
    fn new() -> Self {
        let host = Host::take();
        host.install();
        let directories = ["/dev/shm", "/var/tmp"].map(|d| tempfile::TempDir::with_prefix_in("bench", d).unwrap());
        let containers = [Container::new("bench-tmpfs", directories[0].path(), &[]), Container::new("bench-disk", directories[1].path(), &[])];
        let ours = host.sysctl("kernel/core_pattern");
        Bench { containers, victim: compile("victim"), ours, host, _directories: directories }
    }

    fn one(&self, container: &Container, method: Method, kind: &str, size: usize) -> Sample {
        warm(if matches!(kind, "random" | "text" | "scattered") { size.min(1024) << 20 } else { 0 });
        choose(&self.host, method, container.directory(), &self.ours);
        sample(container.victim(&self.victim, kind, size), method)
    }

    fn dump(&self, name: &str, container: &Container, kind: &str, size: usize, goal: f64, disk_goal: Option<f64>) {
        let (mut held, mut disk, mut absolute) = (vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let kernel = self.one(container, Method::Kernel, kind, size);
            let ours = self.one(container, Method::Ours, kind, size);
            assert_eq!(kernel.size, ours.size, "{name}: the cores differ in size");
            held.push(ours.held.as_secs_f64() / kernel.held.as_secs_f64());
            disk.push(ours.disk as f64 / kernel.disk as f64);
            absolute.push(kernel.held.as_secs_f64());
        }
        let (kernel, least, most) = spread(absolute);
        row(&format!("{name}: held and complete"), held, Some(goal));
        println!("{:<44} {:>7.1}  ({:.1} .. {:.1})", "    the kernel's file mode, ms", kernel * 1e3, least * 1e3, most * 1e3);
        if disk_goal.is_some() {
            row("    bytes on disk", disk, disk_goal);
        }
    }

    /// All crash at once; from the first death until the last one is known.
    fn storm(&self, name: &str, container: &Container, count: usize, goal: f64) {
        let run = |method| {
            choose(&self.host, method, container.directory(), &self.ours);
            let mut victims: Vec<_> = (0..count).map(|_| container.victim(&self.victim, "tiny", 0)).collect();
            victims.iter_mut().for_each(|v| v.crash());
            let times: Vec<_> = victims.iter_mut().map(|v| v.end()).collect();
            for v in &victims {
                std::fs::remove_file(v.core()).unwrap_or_else(|e| panic!("{method:?} lost the core {}: {e}", v.core().display()));
            }
            (times.iter().map(|t| t.1).max().unwrap() - times.iter().map(|t| t.0).min().unwrap()) as f64
        };
        let ratios = (0..ROUNDS).map(|_| {
            let kernel = run(Method::Kernel);
            run(Method::Ours) / kernel
        });
        row(name, ratios.collect(), Some(goal));
    }

    /// The most memory that the helper and its child have at any moment of a dump, looked at all the time.
    fn memory(&self, container: &Container) {
        choose(&self.host, Method::Ours, container.directory(), &self.ours);
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
        println!("{:<44} {:>7.2}  {:<17} {:>9}", "peak memory of a helper process, MiB", peak as f64 / 1024.0, "(VmHWM)", "<= 6.00");
    }

    /// System calls are the same on every run, unlike times.
    fn calls(&self, container: &Container) {
        // core_pattern is short, so are these.
        let (tracer, file) = (Path::new("/dev/shm/s"), Path::new("/dev/shm/t"));
        let _ = std::fs::remove_file(tracer);
        std::os::unix::fs::symlink("/usr/bin/strace", tracer).unwrap();
        let pattern = self.ours.replacen('|', &format!("|{} -fo{} ", tracer.display(), file.display()), 1);
        self.host.set("kernel/core_pattern", &pattern);
        sample(container.victim(&self.victim, "tiny", 0), Method::Ours);
        std::fs::remove_file(tracer).unwrap();
        println!("{:<44} {:>7}", "system calls of a tiny crash, both processes", count(file));
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(bundle.path().join("config.json"), r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"}}"#).unwrap();
        let state = serde_json::json!({ "id": "x", "status": "creating", "pid": std::process::id(), "bundle": bundle.path() }).to_string();
        let mut hook = Command::new("strace").arg("-fo").arg(file).args([BINARY, "hook", "createRuntime"]).stdin(Stdio::piped()).spawn().expect("strace");
        std::io::Write::write_all(&mut hook.stdin.take().unwrap(), state.as_bytes()).unwrap();
        assert!(hook.wait().unwrap().success());
        println!("{:<44} {:>7}", "system calls of an un-annotated hook", count(file));
        std::fs::remove_file(file).unwrap();
    }
}

fn count(trace: &Path) -> usize {
    let text = std::fs::read_to_string(trace).unwrap();
    text.lines().filter(|l| l.contains('(') && !l.contains("resumed>") && !l.contains("---") && !l.contains("+++")).count()
}

/// KiB of the largest process of ours.
fn helpers_memory() -> u64 {
    let mut most = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if status.starts_with("Name:\toci-coredump\n") {
            let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).and_then(|v| v.trim().trim_end_matches(" kB").parse().ok());
            most = most.max(peak.unwrap_or(0));
        }
    }
    most
}

/// What the hook adds to `runc run`, in what a static hook that does nothing adds.
fn hook() {
    let host = Host::take();
    host.install();
    let directory = tempfile::tempdir().unwrap();
    let nothing = compile("nothing");
    let bundle = |name: &str, hook: Option<&Path>, annotated: bool| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.join("rootfs/proc")).unwrap();
        std::fs::copy(&nothing, path.join("rootfs/nothing")).unwrap();
        assert!(Command::new("runc").arg("spec").current_dir(&path).status().expect("runc").success());
        let text = std::fs::read_to_string(path.join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = serde_json::json!(["/nothing"]);
        if let Some(hook) = hook {
            config["hooks"] = serde_json::json!({ "createRuntime": [{ "path": hook, "args": ["oci-coredump", "hook", "createRuntime"] }] });
        }
        if annotated {
            config["annotations"] = serde_json::json!({ "oci-coredump/pattern": "/cores/core" });
        }
        std::fs::write(path.join("config.json"), config.to_string()).unwrap();
        path
    };
    let ours = Path::new(BINARY);
    let kinds = [bundle("none", None, false), bundle("c", Some(&nothing), false), bundle("plain", Some(ours), false), bundle("annotated", Some(ours), true)];
    let mut times = [const { Vec::<f64>::new() }; 4];
    for round in 0..8 * ROUNDS {
        for (bundle, times) in kinds.iter().zip(&mut times) {
            let start = now();
            let root = directory.path().join("state");
            let status =
                Command::new("runc").arg("--root").arg(root).args(["run", "--bundle"]).arg(bundle).arg(format!("b{round}")).stdin(Stdio::null()).status();
            assert!(status.unwrap().success());
            times.push((now() - start) as f64 / 1e6);
        }
    }
    // What each adds to the run without a hook beside it: the machine's own ups and downs are larger than most hooks.
    let added = |t: &[f64]| spread(t.iter().zip(&times[0]).map(|(with, without)| with - without).collect()).0;
    let [c, plain, annotated] = [added(&times[1]), added(&times[2]), added(&times[3])];
    println!("runc run: {:.2} ms; a static C hook that does nothing adds {c:.2} ms", spread(times[0].clone()).0);
    for (name, value, goal) in [("hook without the annotation, by C's", plain, 1.1), ("hook with the annotation, by C's", annotated, 1.5)] {
        println!("{name:<44} {:>7.3}  {:<17} <= {goal:.2}", value / c, format!("(+{value:.2} ms)"));
    }
}
