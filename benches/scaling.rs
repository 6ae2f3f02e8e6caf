//! `make bench-scaling`: time and memory of a crash against the size of the core, threads,
//! mappings, registered containers and simultaneous crashes, beside the kernel's own file mode.
//! Writes docs/scaling.md and docs/scaling.svg; asserts no time. Root; nothing else may crash on
//! the machine meanwhile. `cargo bench -p oci-coredump-integration --bench scaling -- WORD...` runs
//! the series whose name has one of the words and prints them only.

mod plot;
mod scene;

use scene::{Method, Patterns, spread, take_core, warm};
use std::fmt::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::bare::{self, Container, Victim, now};
use support::host::{BINARY, Host, RUN};
use support::processes::{field, helpers};

const ROUNDS: usize = 3;

/// One curve.
pub struct Series {
    /// What grows.
    pub name: &'static str,
    /// What is measured.
    pub unit: &'static str,
    /// What grows, the kernel's file mode (where that is a comparison), ours; medians.
    pub points: Vec<(f64, Option<f64>, f64)>,
    /// Most memory of all helpers together, MiB, for each point.
    pub memory: Vec<f64>,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|w| name.contains(w.as_str()));
    let bench = Bench::new();
    let mut all = Vec::new();
    let dumps: [(&str, &str, &[usize]); 3] = [
        (
            "size of the core, MiB (every sixteenth page touched)",
            "scattered",
            &[64, 256, 1024, 4096, 16384],
        ),
        ("threads", "threads", &[1, 10, 100, 1000, 4000]),
        ("mappings", "maps", &[100, 1000, 10_000, 30_000]),
    ];
    for (name, kind, sizes) in dumps {
        if wanted(name) {
            all.push(bench.dumps(name, kind, sizes));
        }
    }
    let crowd = [0, 10, 100, 1000, 10_000];
    if wanted("registered containers") {
        all.extend(bench.crowd(&crowd));
    }
    if wanted("simultaneous crashes") {
        all.push(bench.storms("simultaneous crashes", &[1, 10, 100, 1000]));
    }
    let table = table(&all);
    print!("{table}");
    if words.is_empty() {
        let docs = support::program::repository().join("docs");
        std::fs::create_dir_all(&docs).unwrap();
        std::fs::write(docs.join("scaling.md"), table).unwrap();
        plot::draw(&docs.join("scaling.svg"), &all);
    }
}

fn table(all: &[Series]) -> String {
    let mut out = format!(
        "# Scaling\n\n\
         `make bench-scaling`, medians of {ROUNDS} interleaved rounds on tmpfs,\n{}.\n\n\
         ![curves](scaling.svg)\n",
        scene::machine()
    );
    for series in all {
        let _ = write!(
            out,
            "\n| {} | kernel's file mode, {unit} | ours, {unit} | helpers together, MiB |\n\
             |---:|---:|---:|---:|\n",
            series.name,
            unit = series.unit
        );
        for ((x, kernel, ours), memory) in series.points.iter().zip(&series.memory) {
            let kernel = kernel.map_or("".to_owned(), |k| format!("{k:.2}"));
            let _ = writeln!(out, "| {x} | {kernel} | {ours:.2} | {memory:.1} |");
        }
    }
    out
}

struct Bench {
    container: Container,
    victim: PathBuf,
    patterns: Patterns,
    host: Host,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let host = Host::take();
        host.install();
        let directory = tempfile::TempDir::with_prefix_in("bench", "/dev/shm").unwrap();
        let container = Container::new("bench-tmpfs", directory.path(), &[]);
        let patterns = Patterns {
            ours: host.sysctl("kernel/core_pattern"),
            systemd: None,
            nothing: String::new(),
        };
        Bench { container, victim: bare::victim(), patterns, host, _directory: directory }
    }

    fn one(&self, method: Method, kind: &str, size: usize) -> (f64, f64) {
        self.patterns.choose(&self.host, method, self.container.directory());
        let mut victims = [self.container.victim(&self.victim, kind, size)];
        self.crash(&mut victims, method)
    }

    /// Milliseconds from the first death until the last is known, and the most
    /// memory of all helpers, MiB.
    fn crash(&self, victims: &mut [Victim], method: Method) -> (f64, f64) {
        let peak = AtomicU64::new(0);
        let end = AtomicBool::new(false);
        let times: Vec<(u64, u64)> = std::thread::scope(|scope| {
            if method == Method::Ours {
                scope.spawn(|| {
                    while !end.load(Ordering::Relaxed) {
                        peak.fetch_max(helpers_memory(), Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                });
            }
            victims.iter_mut().for_each(Victim::crash);
            let times = victims.iter_mut().map(Victim::end).collect();
            end.store(true, Ordering::Relaxed);
            times
        });
        let lost = victims.iter().filter(|v| !take_core(v, method)).count();
        assert_eq!(lost, 0, "{method:?} lost cores");
        let took =
            times.iter().map(|t| t.1).max().unwrap() - times.iter().map(|t| t.0).min().unwrap();
        (took as f64 / 1e6, peak.into_inner() as f64 / 1024.0)
    }

    fn point(
        &self,
        x: usize,
        mut one: impl FnMut(Method) -> (f64, f64),
    ) -> ((f64, Option<f64>, f64), f64) {
        let (mut kernel, mut ours, mut memory) = (vec![], vec![], 0f64);
        for _ in 0..ROUNDS {
            kernel.push(one(Method::Kernel).0);
            let (time, peak) = one(Method::Ours);
            ours.push(time);
            memory = memory.max(peak);
        }
        ((x as f64, Some(spread(kernel).0), spread(ours).0), memory)
    }

    fn dumps(&self, name: &'static str, kind: &str, sizes: &[usize]) -> Series {
        let points = sizes.iter().map(|size| {
            if kind == "scattered" {
                warm((size << 20) / 8);
            }
            self.point(*size, |method| self.one(method, kind, *size))
        });
        let (points, memory) = points.unzip();
        Series { name, unit: "ms", points, memory }
    }

    fn storms(&self, name: &'static str, counts: &[usize]) -> Series {
        let points = counts.iter().map(|count| {
            self.point(*count, |method| {
                self.patterns.choose(&self.host, method, self.container.directory());
                let mut victims: Vec<_> =
                    (0..*count).map(|_| self.container.victim(&self.victim, "tiny", 0)).collect();
                self.crash(&mut victims, method)
            })
        });
        let (points, memory) = points.unzip();
        Series { name, unit: "ms", points, memory }
    }

    /// A crash, and both kinds of hook, among so many registered containers.
    fn crowd(&self, counts: &[usize]) -> [Series; 3] {
        let names = [
            "registered containers: a tiny crash",
            "registered containers: a hook without the annotation",
            "registered containers: a hook with it",
        ];
        let mut all = names.map(|name| Series { name, unit: "ms", points: vec![], memory: vec![] });
        for count in counts {
            register(*count);
            let median =
                |one: &mut dyn FnMut() -> f64| spread((0..8 * ROUNDS).map(|_| one()).collect()).0;
            let tiny = median(&mut || self.one(Method::Ours, "tiny", 0).0);
            let plain = median(&mut || hook(None));
            let annotated = median(&mut || hook(Some("/cores/core")));
            for (series, time) in all.iter_mut().zip([tiny, plain, annotated]) {
                series.points.push((*count as f64, None, time));
                series.memory.push(0.0);
            }
        }
        all
    }
}

/// Makes the registry as large as if so many other containers were registered: entries and
/// index as the hook makes them.
fn register(count: usize) {
    let run = Path::new(RUN);
    let model: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.join("containers/bench-tmpfs.json")).unwrap())
            .unwrap();
    for n in 0..count {
        let id = format!("crowd{n}");
        let file = run.join("containers").join(format!("{id}.json"));
        if file.exists() {
            continue;
        }
        let (mount, pid) = (1_000_000 + 2 * n, 1_000_001 + 2 * n);
        let mut entry = model.clone();
        entry["names"]["container_id"] = id.into();
        entry["init"]["mount_ns"] = mount.into();
        entry["init"]["pid_ns"] = pid.into();
        std::fs::write(&file, entry.to_string()).unwrap();
        for key in [format!("mnt-{mount}"), format!("pid-{pid}")] {
            std::fs::hard_link(&file, run.join("index").join(key)).unwrap();
        }
    }
}

/// How long a createRuntime hook takes, ms, for a container of its own.
fn hook(pattern: Option<&str>) -> f64 {
    let bundle = tempfile::tempdir().unwrap();
    std::fs::DirBuilder::new().mode(0o755).create(bundle.path().join("rootfs")).unwrap();
    let mut config = serde_json::json!({ "ociVersion": "1.0.2", "root": { "path": "rootfs" } });
    if let Some(pattern) = pattern {
        config["annotations"] = serde_json::json!({ "oci-coredump/pattern": pattern });
    }
    std::fs::write(bundle.path().join("config.json"), config.to_string()).unwrap();
    let mut init = Command::new("unshare");
    init.args(["--mount", "--propagation", "private", "sh", "-c", "echo; read x"]);
    let mut init = init.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(init.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let state = serde_json::json!({
        "ociVersion": "1.0.2", "id": "hooked", "status": "creating", "pid": init.id(),
        "bundle": bundle.path(),
    })
    .to_string();
    let call = |stage: &str| {
        let start = now();
        let mut hook = Command::new(BINARY)
            .args(["hook", stage])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut hook.stdin.take().unwrap(), state.as_bytes()).unwrap();
        assert!(hook.wait().unwrap().success());
        (now() - start) as f64 / 1e6
    };
    let took = call("createRuntime");
    drop(init.stdin.take());
    init.wait().unwrap();
    call("poststop");
    took
}

/// KiB of all processes of ours together.
fn helpers_memory() -> u64 {
    let mut sum = 0;
    for pid in helpers() {
        let now = field(pid, "RssAnon").and_then(|v| v.trim_end_matches(" kB").parse::<u64>().ok());
        sum += now.unwrap_or(0);
    }
    sum
}
