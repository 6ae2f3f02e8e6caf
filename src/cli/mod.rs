//! The commands for users: dispatches the parsed command line.

mod announced;
mod archive;
mod bundle;
mod command;
mod completions;
mod debug;
mod disable;
mod doctor;
mod enable;
mod export;
mod group;
mod info;
mod install;
pub mod kubectl;
mod list;
mod locate;
mod man;
mod metrics;
mod node;
mod nri;
mod output;
mod plan;
mod private;
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
mod stack;
mod subject;
mod table;
mod tools;
mod tree;
mod uninstall;
mod unpack;
mod vacuum;
mod verify;
mod watch;

use crate::report::LogTarget;
use anyhow::Result;
use clap::{CommandFactory, Parser};
use command::{Cli, Verb};
use output::print;
use std::ffi::OsString;
use std::process::ExitCode;

/// The definition of the command line, for the documents that are made from it.
#[cfg(test)]
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line. An error is one line on stderr.
pub fn run(args: Vec<OsString>) -> ExitCode {
    // `main` cleared the umask for the privileged verbs; files that a user makes here are writable
    // only by that user. `debug` sets a stricter mask.
    crate::sys::file::set_umask(0o022);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    crate::report::init(LogTarget::Stderr, cli.verbose);
    if let Verb::Node(args) = &cli.verb
        && let Some((root, words)) = args.command()
    {
        let words = std::iter::once("oci-coredump".into()).chain(words.iter().cloned());
        return match node::step_in(root) {
            Ok(()) => run(words.collect()),
            Err(e) => failed("node run", &e),
        };
    }
    let name = cli.verb.name();
    dispatch(&cli.verb).unwrap_or_else(|e| failed(name, &e))
}

fn failed(verb: &str, error: &anyhow::Error) -> ExitCode {
    // A reader that closes our output is no error.
    let causes = error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>());
    if causes.into_iter().any(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    log::error!("{verb}: {error:#}");
    ExitCode::FAILURE
}

fn dispatch(verb: &Verb) -> Result<ExitCode> {
    match verb {
        Verb::Install(args) => print(|out| install::run(out, args)),
        Verb::Uninstall(args) => print(|out| uninstall::run(out, args)),
        Verb::Doctor(args) => print(|out| doctor::run(out, args)),
        Verb::List(args) => print(|out| list::run(out, args)),
        Verb::Info(args) => print(|out| info::run(out, args)),
        Verb::Debug(args) => debug::run(args),
        Verb::Export(args) => export::run(args),
        Verb::Report(args) => report::run(args),
        Verb::Ship(args) => ship::run(args),
        Verb::Vacuum(args) => print(|out| vacuum::run(out, args)),
        Verb::Rm(args) => print(|out| rm::run(out, args)),
        Verb::Watch(args) => watch::run(args),
        Verb::Metrics(args) => print(|out| metrics::run(out, args)),
        Verb::Enable(args) => print(|out| enable::run(out, args)),
        Verb::Disable(args) => print(|out| disable::run(out, args)),
        Verb::Plan(args) => print(|out| plan::run(out, args)),
        Verb::Node(args) => print(|out| node::run(out, args)),
        Verb::Verify(args) => print(|out| verify::run(out, args)),
        Verb::VerifyProbe(args) => verify::probe(args),
        Verb::Nri(args) => nri::run(args),
        Verb::Man(_) => print(|out| man::run(out, Cli::command())),
        Verb::Completions(args) => print(|out| completions::run(out, args, Cli::command())),
        // `main` runs these two without the parser; only their `--help` comes here.
        Verb::Hook { .. } | Verb::Handle { .. } => Ok(ExitCode::FAILURE),
    }
}
