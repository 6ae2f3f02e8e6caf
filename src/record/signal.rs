//! Names of signals.

/// The name of a signal whose default action is to dump core. Others, which only a newer kernel
/// would send, appear by number.
pub(crate) fn signal_name(signal: i32) -> String {
    let name = match signal {
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        11 => "SIGSEGV",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}
