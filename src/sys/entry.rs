//! `main`, as the C library calls it. Compiled into the program, not the
//! library: a test has its own.

use oci_coredump::sys::process;
use std::ffi::{c_char, c_int};
use std::process::ExitCode;

/// What Rust's own start does and we need: the standard streams are open, so that no file of ours
/// gets their numbers; a write to a closed pipe is an error, not the end.
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    if process::make_streams_safe().is_err() {
        std::process::abort();
    }
    // The standard library knows the arguments without us.
    let code = super::start(std::env::args_os().collect());
    // Stable Rust has no other way from an ExitCode to its number.
    let number = (0..=u8::MAX).find(|n| ExitCode::from(*n) == code);
    // Flushes stdout.
    std::process::exit(number.unwrap_or(1).into())
}
