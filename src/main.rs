//! Entry point and subcommand dispatch. The verbs `hook` and `handle`, and the names under which
//! engines and kubectl start this program, are recognised here, and never load the command-line
//! parser, to which everything else goes.

#![no_main]

#[path = "sys/entry.rs"]
#[allow(unsafe_code)]
mod entry;

use oci_coredump::report::{self, LogTarget};
use oci_coredump::{cli, dump, engine, hook};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Called by the C library in place of Rust's own start-up, which reads /proc/self/maps to guard
/// the stack; this program needs no such guard.
fn start(args: Vec<OsString>) -> ExitCode {
    // Before anything else is changed: the real runtime inherits the state of this
    // process, including its umask.
    let name = args.first().and_then(|path| Path::new(path).file_name());
    if name == Some(engine::RUNTIME_NAME.as_ref()) {
        return run_runtime(args);
    }
    if name == Some(cli::kubectl::NAME.as_ref()) {
        return cli::kubectl::run(args);
    }
    // Files and directories get exactly the mode that the code names, whatever umask was inherited.
    oci_coredump::set_umask(0);
    if args.first().is_some_and(|name| engine::nri::is_plugin(name)) {
        return plugin();
    }
    match args.get(1).and_then(|verb| verb.to_str()) {
        Some("handle") if args.get(2).is_none_or(|a| !is_help(a)) => handle(&args[2..]),
        Some("serve") => {
            report::init(LogTarget::HostAndStderr, false);
            cli::run(args)
        }
        // A hook in a Kata guest: kata-agent passes the name of the stage and nothing else.
        Some("prestart" | "poststart" | "poststop") if args.len() == 2 => run_hook(args.get(1)),
        Some("hook") if args.get(2).is_none_or(|a| !is_help(a)) => run_hook(args.get(2)),
        _ => cli::run(args),
    }
}

fn is_help(word: &OsString) -> bool {
    word == "--help" || word == "-h"
}

fn handle(args: &[OsString]) -> ExitCode {
    report::init(LogTarget::Host, false);
    report::last_words(1);
    match dump::handle(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("handle: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_hook(stage: Option<&OsString>) -> ExitCode {
    report::init(LogTarget::HostAndStderr, false);
    report::last_words(0);
    let word = stage.map(|s| s.to_string_lossy());
    let failed = hook::stage(word.as_deref())
        .map_err(|error| hook::Failure { error, stop: false })
        .and_then(hook::run)
        .err();
    match failed {
        None => ExitCode::SUCCESS,
        Some(f) if f.stop => {
            log::error!("hook: {:#}", f.error);
            ExitCode::FAILURE
        }
        Some(f) => {
            log::warn!("hook: {:#}, the container starts without it", f.error);
            ExitCode::SUCCESS
        }
    }
}

/// Serves an engine as its NRI plugin. Errors go to the host's log.
fn plugin() -> ExitCode {
    report::init(LogTarget::Host, false);
    report::last_words(1);
    match engine::nri::run_started() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("nri: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs as the OCI runtime wrapper. Whatever fails here, the real runtime is still executed.
fn run_runtime(mut args: Vec<OsString>) -> ExitCode {
    args.remove(0);
    report::init(LogTarget::Host, false);
    let again = args.clone();
    std::panic::set_hook(Box::new(move |info| {
        log::error!("runtime: this is a defect of oci-coredump, please report it: {info}");
        // After a panic only exec is safe; if it fails too, the exit status says so.
        let _ = engine::runtime::hand_on(&again);
        std::process::exit(1)
    }));
    let error = engine::runtime::run(&args);
    eprintln!("{}: {error:#}", engine::RUNTIME_NAME);
    log::error!("runtime: {error:#}");
    ExitCode::FAILURE
}
