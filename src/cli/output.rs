//! The standard output of a verb.

use anstream::AutoStream;
use anyhow::{Context, Result};
use std::io::{BufWriter, StdoutLock, Write};
use std::process::ExitCode;

/// Buffered, and without colours if it is no terminal, or with NO_COLOR.
pub(super) type Output = BufWriter<AutoStream<StdoutLock<'static>>>;

/// Runs a verb that prints. What it has printed is written even if it fails then.
///
/// # Errors
/// Those of the verb, and that the output cannot be written.
pub(super) fn print(verb: impl FnOnce(&mut Output) -> Result<ExitCode>) -> Result<ExitCode> {
    let mut out = BufWriter::new(AutoStream::auto(std::io::stdout().lock()));
    let result = verb(&mut out);
    let written = out.flush().context("write to stdout");
    result.and_then(|code| written.map(|()| code))
}
