//! Dispatches the parsed command line: the commands for people, and those that engines and the
//! kernel start (`nri`, `hook`, `handle`) or `verify` makes a runtime start (`verify-probe`).

mod announced;
mod archive;
mod call;
mod clock;
mod command;
mod completions;
mod crash_bundle;
mod crash_json;
mod crashes;
mod debug;
mod debuginfod;
mod disable;
mod doctor;
mod enable;
mod export;
mod full;
mod group;
mod info;
mod install;
pub mod kubectl;
mod list;
mod locate;
mod man;
mod metrics;
mod metrics_server;
mod node;
mod nri;
mod output;
mod overwriter;
mod plan;
mod private;
mod programs;
mod query;
mod remote;
mod report;
mod rm;
mod root;
mod selection;
mod serve;
mod service;
mod ship;
mod sink;
mod source;
mod stack;
mod still_copied;
mod subject;
mod table;
mod target_file;
mod tools;
mod tree;
mod uninstall;
mod unpack;
mod usage;
mod vacuum;
mod verify;
mod watch;

use crate::report::LogTarget;
use anyhow::Result;
use clap::FromArgMatches;
use command::{Cli, Verb};
use output::{print, print_paged};
use std::ffi::OsString;
use std::process::ExitCode;
use usage::WrongUsage;

/// The exit status for a wrong command line.
const WRONG_USAGE: u8 = 2;

/// The definition of the command line, for the documents that are made from it.
#[cfg(test)]
pub(crate) fn command() -> clap::Command {
    use clap::CommandFactory;
    Cli::command()
}

/// Runs the command line. An error is one line on stderr.
pub fn run(args: Vec<OsString>) -> ExitCode {
    // `main` cleared the umask for the privileged verbs; files that a user makes here are writable
    // only by that user. `debug` sets a stricter mask.
    crate::sys::file::set_umask(0o022);
    // Parsing a time may have something to say already.
    crate::report::init(LogTarget::Stderr, false);
    match completions::answer(&args, command::definition) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(e) => return failed("completions", &e),
    }
    let parsed = command::definition().try_get_matches_from(args).and_then(|matches| {
        let verb = matches.subcommand_name().unwrap_or_default().to_owned();
        Ok((verb, Cli::from_arg_matches(&matches)?))
    });
    let (verb, cli) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => return said(&e),
    };
    if cli.verbose {
        log::set_max_level(log::LevelFilter::Debug);
    }
    if let Verb::Node(args) = &cli.verb
        && let Some((root, words)) = args.command()
    {
        let words = std::iter::once("oci-coredump".into()).chain(words.iter().cloned());
        return match node::step_in(root) {
            Ok(()) => run(words.collect()),
            Err(e) => failed("node run", &e),
        };
    }
    let verb = match &cli.verb {
        Verb::Node(args) => args.name(),
        _ => &verb,
    };
    dispatch(&cli.verb).unwrap_or_else(|e| failed(verb, &e))
}

/// Prints what the parser has to say: what is wrong, or the help that was asked for.
pub(crate) fn said(answer: &clap::Error) -> ExitCode {
    match answer.print() {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(WRONG_USAGE)),
    }
}

fn failed(verb: &str, error: &anyhow::Error) -> ExitCode {
    // A reader that closes our output is no error.
    let causes = error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>());
    if causes.into_iter().any(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    log::error!("{verb}: {error:#}");
    match error.is::<WrongUsage>() {
        true => ExitCode::from(WRONG_USAGE),
        false => ExitCode::FAILURE,
    }
}

fn dispatch(verb: &Verb) -> Result<ExitCode> {
    match verb {
        Verb::Install(args) => print(|out| install::run(out, args)),
        Verb::Uninstall(args) => print(|out| uninstall::run(out, args)),
        Verb::Doctor(args) => print(|out| doctor::run(out, args)),
        Verb::List(args) => print_paged(args.is_paged(), |out| list::run(out, args)),
        Verb::Info(args) => print_paged(args.is_paged(), |out| info::run(out, args)),
        Verb::Debug(args) => debug::run(args),
        Verb::Export(args) => export::run(args),
        Verb::Report(args) => report::run(args),
        Verb::Ship(args) => ship::run(args),
        Verb::Vacuum(args) => print(|out| vacuum::run(out, args)),
        Verb::Rm(args) => print(|out| rm::run(out, args)),
        Verb::Watch(args) => watch::run(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Metrics(args) => print(|out| metrics::run(out, args)),
        Verb::Enable(args) => print(|out| enable::run(out, args)),
        Verb::Disable(args) => print(|out| disable::run(out, args)),
        Verb::Plan(args) => print(|out| plan::run(out, args)),
        Verb::Node(args) => print(|out| node::run(out, args)),
        Verb::Verify(args) => print(|out| verify::run(out, args)),
        Verb::VerifyProbe(args) => verify::probe(args),
        Verb::Nri(args) => nri::run(args),
        Verb::Man(args) => print(|out| man::run(out, args, command::definition())),
        Verb::Completions(args) => print(|out| completions::run(out, args)),
        // `main` runs these two without the parser; only their `--help` comes here.
        Verb::Hook { .. } | Verb::Handle { .. } => Ok(ExitCode::FAILURE),
    }
}

/// The schema of what `list --json` and `info --json` print.
#[cfg(test)]
pub(crate) fn crash_schema() -> schemars::Schema {
    schemars::schema_for!(crash_json::CrashJson<'_>)
}
