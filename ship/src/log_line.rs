//! The log: one line on stderr for each message. Libraries are silent but for their errors.

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // A certificate that is refused is in the error of the request too.
        let target = metadata.target();
        let is_said = metadata.level() == Level::Error && !target.starts_with("rustls");
        target.starts_with("oci_coredump_ship") || is_said
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // sd-daemon(3): the level in front, as the journal reads it.
            let level = match record.level() {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            let mark = std::env::var_os("JOURNAL_STREAM").map(|_| format!("<{level}>"));
            eprintln!("{}oci-coredump-ship: {}", mark.unwrap_or_default(), record.args());
        }
    }

    fn flush(&self) {}
}

/// Starts the log.
pub(crate) fn init(verbose: bool) {
    let level = if verbose { LevelFilter::Debug } else { LevelFilter::Info };
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}
