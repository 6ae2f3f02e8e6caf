//! What the benchmarks stand on: the ways in which a core is written, and what one took.

use crate::support::bare::Victim;
use crate::support::host::Host;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How a core is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The kernel's own file mode: 1.00 in every table.
    Kernel,
    /// The dispatcher.
    Ours,
    /// systemd-coredump, without compression, outside of systemd.
    Systemd,
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

/// Sets the kernel up for a method. `ours`: the pattern that the hook has set.
pub fn choose(host: &Host, method: Method, directory: &Path, ours: &str) {
    let pattern = match method {
        Method::Kernel => format!("{}/core.%p", directory.display()),
        Method::Ours => ours.to_owned(),
        Method::Systemd => "|/lib/systemd/systemd-coredump %P %u %g %s %t 9223372036854775808 %h".to_owned(),
    };
    host.set("kernel/core_pattern", &pattern);
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
    if method == Method::Systemd {
        return Sample { held, ..Sample::default() };
    }
    let meta = std::fs::metadata(victim.core()).unwrap_or_else(|e| panic!("{method:?} left no core {}: {e}", victim.core().display()));
    std::fs::remove_file(victim.core()).unwrap();
    Sample { held, size: meta.size(), disk: meta.blocks() * 512 }
}
