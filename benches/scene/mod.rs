//! What the benchmarks stand on: the ways in which a core is written, and what one took.

#![allow(dead_code, reason = "each benchmark uses another part of the scene")]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::bare::Victim;
use support::host::Host;
use support::systemd::Systemd;
use support::wait::within;

/// How a core is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The kernel's own file mode: 1.00 in every table.
    Kernel,
    /// The dispatcher.
    Ours,
    /// The dispatcher, through the kernel's coredump socket.
    Socket,
    /// Both, without a summary after the crash.
    OursBrief,
    SocketBrief,
    /// systemd-coredump as Debian configures it, with the smallest stand-in for its socket unit.
    Systemd,
    /// No core at all: what a death takes by itself.
    Nothing,
    /// A static C program as the helper, which does nothing: the least that any helper takes.
    Floor,
}

/// The configuration of all rows.
pub const CONFIGURATION: &str = "allow_early_release = true\n";

/// What the kernel is told for each method.
pub struct Patterns {
    /// As the hook has set it.
    pub ours: String,
    /// Where systemd-coredump was found.
    pub systemd: Option<Systemd>,
    /// The program that does nothing.
    pub nothing: String,
}

impl Patterns {
    /// Has this program start each helper.
    pub fn run_by(&mut self, first: &Path) {
        let systemd = self.systemd.iter_mut().map(|systemd| &mut systemd.pattern);
        for pattern in [&mut self.ours, &mut self.nothing].into_iter().chain(systemd) {
            *pattern = pattern.replacen('|', &format!("|{} ", first.display()), 1);
        }
    }

    /// Sets the kernel up for a method.
    /// When the last crash's processes have ended: what nobody waits for would be paid by the next
    /// method.
    pub fn choose(&self, host: &Host, method: Method, directory: &Path) {
        host.settle();
        match method {
            Method::OursBrief | Method::SocketBrief => {
                host.configure(&format!("{CONFIGURATION}summary = false\n"));
            }
            Method::Ours | Method::Socket => {
                host.configure(CONFIGURATION);
            }
            _ => {}
        }
        let pattern = match method {
            Method::Kernel => format!("{}/core.%p", directory.display()),
            Method::Ours | Method::OursBrief => self.ours.clone(),
            Method::Socket | Method::SocketBrief => support::server::PATTERN.to_owned(),
            Method::Systemd => self.systemd.as_ref().expect("systemd-coredump").pattern.clone(),
            Method::Nothing => "|/nowhere".to_owned(),
            Method::Floor => self.nothing.clone(),
        };
        host.set("kernel/core_pattern", &pattern);
    }
}

/// What one crash took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// From the fatal signal until the parent's wait returns.
    pub held: Duration,
    /// Size of the core.
    pub size: u64,
    /// Bytes on disk.
    pub disk: u64,
}

/// Touches and frees memory, so that no method pays for what the machine has not given yet.
pub fn warm(bytes: usize) {
    let mut memory = vec![0u8; bytes + bytes / 8];
    memory.iter_mut().step_by(4096).for_each(|b| *b = 1);
    std::hint::black_box(&memory);
}

/// Median, least and most.
pub fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

/// Crashes a victim and looks at its core, which is then removed.
pub fn sample(mut victim: Victim, method: Method) -> Sample {
    victim.crash();
    let (start, end) = victim.end();
    let held = Duration::from_nanos(end - start);
    if matches!(method, Method::Nothing | Method::Floor) {
        return Sample { held, ..Sample::default() };
    }
    let core = core(&victim, method)
        .unwrap_or_else(|| panic!("{method:?} left no core of {}", victim.pid()));
    let meta = std::fs::metadata(&core).unwrap();
    remove(&core, method);
    Sample { held, size: meta.size(), disk: meta.blocks() * 512 }
}

/// Removes a victim's core; `false` if there should be one and is not.
pub fn take_core(victim: &Victim, method: Method) -> bool {
    matches!(method, Method::Nothing | Method::Floor)
        || core(victim, method).inspect(|core| remove(core, method)).is_some()
}

/// What systemd-coredump keeps is removed at the end of a row ([`tidy`]): on an ext4 without a
/// journal, whoever makes a file passes all the inodes that were freed in the last half minute one
/// by one, and that would be the next method in turn.
fn remove(core: &Path, method: Method) {
    if method != Method::Systemd {
        std::fs::remove_file(core).unwrap();
    }
}

/// When freed inodes are as good as any.
pub const FORGOTTEN: Duration = Duration::from_secs(36);

/// Removes what systemd-coredump keeps of the victims.
pub fn tidy() {
    Systemd::cores_of("victim").iter().for_each(|core| std::fs::remove_file(core).unwrap());
}

fn core(victim: &Victim, method: Method) -> Option<PathBuf> {
    if method != Method::Systemd {
        return Some(victim.core().to_owned()).filter(|c| c.exists());
    }
    // It gives its file the name last, and nobody waits for that.
    within(Duration::from_secs(5), || Systemd::cores(victim.pid().into()).pop())
}

/// What this machine is, in one line.
pub fn machine() -> String {
    let line = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = line("/proc/cpuinfo")
        .lines()
        .find_map(|l| l.strip_prefix("model name\t: ").map(str::to_owned))
        .unwrap_or_default();
    let memory = line("/proc/meminfo")
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        >> 20;
    let kernel = line("/proc/sys/kernel/osrelease");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cpus} x {cpu}, {memory} GiB, Linux {}", kernel.trim())
}
