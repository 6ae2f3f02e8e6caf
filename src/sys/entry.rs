//! `main`, as the C library calls it. Compiled into the program and not into the library,
//! since a test has its own.

use oci_coredump::make_streams_safe;
use std::ffi::{c_char, c_int};
use std::process::ExitCode;

/// Does the part of Rust's own start-up that is needed: opens the standard streams if they are
/// closed, so that no file gets their numbers, and makes a write to a closed pipe an error instead
/// of the end of the process.
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    if make_streams_safe().is_err() {
        std::process::abort();
    }
    // The standard library gets the arguments without this function.
    let code = super::start(std::env::args_os().collect());
    // Stable Rust has no other conversion from an ExitCode to its number.
    let number = (0..=u8::MAX).find(|n| ExitCode::from(*n) == code);
    // Flushes stdout.
    std::process::exit(number.unwrap_or(1).into())
}
