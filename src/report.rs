//! Writes each message as one line to the host's log: to the journal, else to syslog, else to the
//! kernel's log. The rest of the program uses the macros of the `log` crate.

use crate::sys::socket;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

/// How often [`sparingly`] runs its argument at most.
const EVERY: std::time::Duration = std::time::Duration::from_secs(60);

const IDENT: &str = "oci-coredump";

/// Destination of the log messages of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// The dispatcher, the NRI plugin and the runtime wrapper: to the host's log.
    Host,
    /// The hook and `serve`: warnings and errors also to stderr, which the engine shows when the
    /// container does not start.
    HostAndStderr,
    /// Commands that a user runs: to stderr.
    Stderr,
}

struct Reporter(LogTarget);

/// Sends the messages of the `log` macros to `target` from now on.
/// `verbose` includes debug messages.
pub fn init(target: LogTarget, verbose: bool) {
    let level = if verbose { LevelFilter::Debug } else { LevelFilter::Info };
    if log::set_boxed_logger(Box::new(Reporter(target))).is_ok() {
        log::set_max_level(level);
    }
}

/// Logs a panic as one line and exits with `code`: 0 for the hook, so that a defect here does not
/// keep a container from starting.
pub fn last_words(code: i32) {
    std::panic::set_hook(Box::new(move |info| {
        log::error!("this is a defect of oci-coredump, please report it: {info}");
        std::process::exit(code)
    }));
}

impl Log for Reporter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = one_line(&head(&record.args().to_string(), LONGEST));
        match may_say() {
            (false, _) => return,
            (true, true) => line.push_str(" (no more is said of this container in this minute)"),
            (true, false) => {}
        }
        if self.0 != LogTarget::Host
            && (self.0 == LogTarget::Stderr || record.level() <= Level::Warn)
        {
            let _ = writeln!(std::io::stderr(), "{IDENT}: {line}");
        }
        if self.0 != LogTarget::Stderr {
            let _ = to_journal(record.level(), &line)
                || to_syslog(record.level(), &line)
                || to_kernel(record.level(), &line);
        }
    }

    fn flush(&self) {}
}

/// Runs `say` at most once a minute, for messages that could otherwise be very many. `dir` is the
/// run directory, and `what` names the stamp file in it.
pub fn sparingly(dir: impl crate::sys::AsFd, what: &str, say: impl FnOnce()) {
    if crate::sys::file::is_due(dir, format!("said-{what}").as_ref(), EVERY) {
        say();
    }
}

/// Most lines of one account in a minute.
const LINES: u64 = 60;

/// The directory in which the lines of this process are counted.
static COUNTED: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// From now on counts lines for the account whose directory this is, and drops those beyond
/// `LINES` in a minute: anyone who makes a process crash causes a line.
pub fn count_lines_in(dir: Option<OwnedFd>) {
    if let Ok(mut counted) = COUNTED.lock() {
        *counted = dir;
    }
}

/// Whether one more line may be written in this minute, and whether it is the last. Two that are
/// written at the same moment may count as one.
fn may_say() -> (bool, bool) {
    let Ok(counted) = COUNTED.lock() else { return (true, false) };
    let file = counted.as_ref().map(|dir| crate::sys::file::open_counter(dir, "lines".as_ref()));
    let Some(Ok(file)) = file else { return (true, false) };
    let minute = crate::sys::kernel::since_boot().as_secs() / 60;
    let mut state = [0; 16];
    let (then, count) = match file.read_exact_at(&mut state, 0) {
        Ok(()) => (number(&state[..8]), number(&state[8..])),
        Err(_) => (minute, 0),
    };
    let count = if then == minute { count.saturating_add(1) } else { 1 };
    let state = [minute.to_ne_bytes(), count.to_ne_bytes()].concat();
    let _ = file.write_all_at(&state, 0);
    (count <= LINES, count == LINES)
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes.try_into().unwrap_or_default())
}

/// The severity of syslog(3) for a level of `log`: 3 is an error, 7 a debug message.
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Longest line in bytes, before escaping.
const LONGEST: usize = 4096;

use crate::sys::text::head;
pub use crate::sys::text::one_line;

/// systemd's native protocol: one datagram of `KEY=value` lines.
fn to_journal(level: Level, line: &str) -> bool {
    let text = format!(
        "MESSAGE={line}\nPRIORITY={}\nSYSLOG_IDENTIFIER={IDENT}\nSYSLOG_FACILITY=3\n",
        severity(level)
    );
    socket::send("/run/systemd/journal/socket", text.as_bytes())
}

/// systemd's ID of the messages about crashes (`SD_MESSAGE_COREDUMP`), by which coredumpctl finds
/// them.
const CRASH: &str = "fc2e22bc6ee647b6b90729ab34a250b1";

/// Tells the journal of a crash in the fields of systemd-coredump. Without a journal this does
/// nothing: the line for the log has been written.
pub(crate) fn crash_to_journal(record: &crate::record::Record) {
    if !may_say().0 {
        return;
    }
    let mut text = format!("MESSAGE_ID={CRASH}\nPRIORITY=2\nSYSLOG_IDENTIFIER={IDENT}\n");
    let mut add = |name: &str, value: &str| {
        text.push_str(&format!("{name}={}\n", one_line(&head(value, LONGEST))));
    };
    let whom = format!("Process {} ({}) dumped core", record.host_pid, record.comm);
    add("MESSAGE", &record.crashed_in().map_or(whom.clone(), |at| format!("{whom}: {at}")));
    let time = record.time.parse::<jiff::Timestamp>().map(|t| t.as_microsecond().to_string());
    for (name, value) in [
        ("COREDUMP_PID", record.host_pid.to_string()),
        ("COREDUMP_TID", record.host_tid.to_string()),
        ("COREDUMP_UID", record.uid.to_string()),
        ("COREDUMP_GID", record.gid.to_string()),
        ("COREDUMP_SIGNAL", record.signal.to_string()),
        ("COREDUMP_SIGNAL_NAME", record.signal_name.clone()),
        ("COREDUMP_TIMESTAMP", time.unwrap_or_default()),
        ("COREDUMP_COMM", record.comm.clone()),
        ("COREDUMP_EXE", record.exe.clone()),
        ("COREDUMP_FILENAME", record.host_path.clone().unwrap_or_default()),
        ("COREDUMP_TRUNCATED", if record.truncated { "1" } else { "" }.to_owned()),
        ("COREDUMP_CONTAINER_ID", record.names.container_id.clone()),
        ("COREDUMP_CONTAINER_NAME", record.names.container_name.clone().unwrap_or_default()),
        ("COREDUMP_POD", record.names.pod_name.clone().unwrap_or_default()),
        ("COREDUMP_NAMESPACE", record.names.pod_namespace.clone().unwrap_or_default()),
        ("COREDUMP_STACK", record.stack.join(" <- ")),
        ("COREDUMP_STACK_HASH", record.stack_hash.clone().unwrap_or_default()),
    ] {
        if !value.is_empty() {
            add(name, &value);
        }
    }
    socket::send("/run/systemd/journal/socket", text.as_bytes());
}

/// syslog by RFC 3164, facility daemon.
fn to_syslog(level: Level, line: &str) -> bool {
    socket::send("/dev/log", format!("<{}>{IDENT}: {line}", 24 + severity(level)).as_bytes())
}

/// The kernel's log: /dev/kmsg takes one record for each write, at most 1 KiB with its prefix.
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

/// For work that goes on after a failure: Ok if nothing failed, else the first error; the others
/// are logged.
///
/// # Errors
/// The first one.
pub(crate) fn all_or_first(failed: Vec<anyhow::Error>) -> anyhow::Result<()> {
    let mut failed = failed.into_iter();
    let first = failed.next();
    failed.for_each(|e| log::error!("{e:#}"));
    first.map_or(Ok(()), Err)
}
