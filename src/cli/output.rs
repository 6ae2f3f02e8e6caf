//! The standard output of a verb, and the pager that it may go through.

use super::programs;
use crate::sys::process;
use anstream::AutoStream;
use anyhow::{Context, Result};
use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

/// Buffered, and without colours if stdout is no terminal, or with NO_COLOR.
pub(super) type Output = BufWriter<AutoStream<Box<dyn Write>>>;

/// The options of less, if the caller gives none: end if one screen is enough, pass colours on, cut
/// long lines, leave the text on the screen.
const LESS: &str = "FRSX";

/// Whether there may be a pager.
#[derive(Debug, clap::Args)]
pub(super) struct Paging {
    /// Do not start a pager, even on a terminal.
    #[arg(long)]
    pub no_pager: bool,
}

/// Runs a verb that prints. What it has printed is written even if it fails then.
///
/// # Errors
/// Those of the verb, and that the output cannot be written.
pub(super) fn print(verb: impl FnOnce(&mut Output) -> Result<ExitCode>) -> Result<ExitCode> {
    print_to(Box::new(stdout().lock()), verb)
}

/// The same, through a pager if stdout is a terminal and `wanted`.
///
/// # Errors
/// As [`print`].
pub(super) fn print_paged(
    wanted: bool,
    verb: impl FnOnce(&mut Output) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let Some(mut pager) = pager(wanted) else { return print(verb) };
    let Some(input) = pager.stdin.take() else { return print(verb) };
    // An interrupt is for the pager, which would be left alone with the terminal otherwise.
    process::hold_interrupts()?;
    let result = print_to(Box::new(input), verb);
    // Before an error is said: the pager has the screen.
    pager.wait().context("wait for the pager")?;
    result
}

fn print_to(
    to: Box<dyn Write>,
    verb: impl FnOnce(&mut Output) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let colours = AutoStream::choice(&stdout());
    let mut out = BufWriter::new(AutoStream::new(to, colours));
    let result = verb(&mut out);
    let written = out.flush().context("write to stdout");
    // Its end is the end of the pager's input.
    drop(out);
    result.and_then(|code| written.map(|()| code))
}

/// The width of the terminal that stdout is, in columns; `None` if it is none. COLUMNS is for what
/// the terminal does not say.
pub(super) fn width() -> Option<usize> {
    if !stdout().is_terminal() {
        return None;
    }
    let said = terminal_size::terminal_size_of(stdout()).map(|(width, _)| usize::from(width.0));
    let given = || std::env::var("COLUMNS").ok()?.parse().ok();
    said.filter(|width| *width > 0).or_else(given)
}

/// Starts the pager: OCI_COREDUMP_PAGER, else PAGER, else less if it is there. No shell reads it:
/// its words are separated by blanks. One that is empty, or `cat`, is none.
fn pager(wanted: bool) -> Option<Child> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if !wanted || !stdout().is_terminal() || is_dumb {
        return None;
    }
    let given = |name| std::env::var(name).ok();
    let line = given("OCI_COREDUMP_PAGER").or_else(|| given("PAGER")).unwrap_or("less".into());
    let mut words = line.split_whitespace();
    let program = programs::find(Path::new(words.next().filter(|word| *word != "cat")?)).ok()?;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped());
    // less starts no shell, no editor and no preprocessor: what it shows comes from a container,
    // and it may run as root.
    command.env("LESSSECURE", "1").env_remove("LESSOPEN").env_remove("LESSCLOSE");
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", LESS);
    }
    match command.spawn() {
        Ok(child) => Some(child),
        Err(e) => {
            log::warn!("pager {line:?}: {e}, going on without one");
            None
        }
    }
}
