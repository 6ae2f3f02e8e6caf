//! One line to the host's log: the journal where there is one, else syslog, else the kernel's log. Behind the `log` crate, so that the rest of
//! the program says `log::warn!` and knows nothing of this.

use crate::sys::socket;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write;

/// See [`sparingly`].
const EVERY: std::time::Duration = std::time::Duration::from_secs(60);

const IDENT: &str = "oci-coredump";

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The hook and the dispatcher: the host's log.
    Host,
    /// The hook also tells the engine, on stderr, which shows it when the container does not start.
    HostAndStderr,
    /// The user's verbs: stderr.
    Stderr,
}

struct Reporter(Door);

/// Sends the `log` macros to the given place from now on. `debug` lines only where the user asked for them.
pub fn init(door: Door, verbose: bool) {
    let level = if verbose { LevelFilter::Debug } else { LevelFilter::Info };
    if log::set_boxed_logger(Box::new(Reporter(door))).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Reporter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = one_line(&record.args().to_string());
        if self.0 != Door::Host && (self.0 == Door::Stderr || record.level() <= Level::Warn) {
            let _ = writeln!(std::io::stderr(), "{IDENT}: {line}");
        }
        if self.0 != Door::Stderr {
            let _ = to_journal(record.level(), &line)
                || to_syslog(record.level(), &line)
                || to_kernel(record.level(), &line);
        }
    }

    fn flush(&self) {}
}

/// Says something of which there may be very much: once a minute. `dir` is the run directory, `what`
/// the name of the stamp in it.
pub fn sparingly(dir: impl crate::sys::AsFd, what: &str, say: impl FnOnce()) {
    if crate::sys::file::is_due(dir, format!("said-{what}").as_ref(), EVERY) {
        say();
    }
}

/// syslog(3) severities.
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

pub use crate::sys::text::one_line;

/// systemd's native protocol: one datagram of `KEY=value` lines.
fn to_journal(level: Level, line: &str) -> bool {
    let text = format!(
        "MESSAGE={line}\nPRIORITY={}\nSYSLOG_IDENTIFIER={IDENT}\nSYSLOG_FACILITY=3\n",
        severity(level)
    );
    socket::send("/run/systemd/journal/socket", text.as_bytes())
}

/// RFC 3164, facility daemon.
fn to_syslog(level: Level, line: &str) -> bool {
    socket::send("/dev/log", format!("<{}>{IDENT}: {line}", 24 + severity(level)).as_bytes())
}

/// /dev/kmsg takes one record a write, at most 1 KiB with its prefix.
fn to_kernel(level: Level, line: &str) -> bool {
    let mut end = line.len().min(900);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let text = format!("<{}>{IDENT}: {}\n", 24 + severity(level), &line[..end]);
    std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut f| f.write_all(text.as_bytes()))
        .is_ok()
}
