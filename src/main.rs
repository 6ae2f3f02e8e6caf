//! The door: which verb. `hook` and `handle` go their short way before anything of a
//! command-line parser is touched.

#![no_main]

#[path = "sys/entry.rs"]
#[allow(unsafe_code)]
mod entry;

use oci_coredump::report::{self, LogTarget};
use oci_coredump::{cli, dump, engine, hook};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Called by the C library, without what Rust's own start does before: it reads /proc/self/maps to
/// guard the stack of a program that never goes deep.
fn start(args: Vec<OsString>) -> ExitCode {
    // First of all: the real runtime inherits everything that this process is, its umask too.
    if args
        .first()
        .is_some_and(|name| Path::new(name).file_name() == Some(engine::RUNTIME_NAME.as_ref()))
    {
        return run_runtime(args);
    }
    // What we make has exactly the mode that we say, whoever started us.
    oci_coredump::sys::file::set_umask(0);
    if args.first().is_some_and(|name| engine::nri::is_plugin(name)) {
        return plugin(engine::nri::run_started);
    }
    match args.get(1).and_then(|verb| verb.to_str()) {
        Some("handle") if args.get(2).is_none_or(|a| !is_help(a)) => handle(&args[2..]),
        Some("hook") if args.get(2).is_some_and(|a| a == "precreate") => precreate(),
        // A hook of a Kata guest: the agent names the stage and nothing else.
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
    last_words(1);
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
    last_words(0);
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

/// An engine's plugin: what it has to say goes to the host's log.
fn plugin(serve: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    report::init(LogTarget::Host, false);
    last_words(1);
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("nri: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// podman's own stage.
fn precreate() -> ExitCode {
    report::init(LogTarget::HostAndStderr, false);
    match engine::precreate::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("hook precreate: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whatever happens, the real runtime is started.
fn run_runtime(mut args: Vec<OsString>) -> ExitCode {
    args.remove(0);
    report::init(LogTarget::Host, false);
    let again = args.clone();
    std::panic::set_hook(Box::new(move |info| {
        log::error!("runtime: this is a defect of oci-coredump, please report it: {info}");
        // Nothing but an exec may follow a panic; if that fails too, the status says so.
        let _ = engine::runtime::hand_on(&again);
        std::process::exit(1)
    }));
    let error = engine::runtime::run(&args);
    eprintln!("{}: {error:#}", engine::RUNTIME_NAME);
    log::error!("runtime: {error:#}");
    ExitCode::FAILURE
}

/// A defect of ours is one line in the log. It does not stop a container.
fn last_words(code: i32) {
    std::panic::set_hook(Box::new(move |info| {
        log::error!("this is a defect of oci-coredump, please report it: {info}");
        std::process::exit(code)
    }));
}
