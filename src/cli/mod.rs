//! The user's verbs. The text of `--help`, the man page and the completions come from the one definition here.

mod doctor;
mod explain;
mod setup;

use crate::engine::{self, Engine};
use crate::report::{self, Door};
use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const AFTER: &str = "\
A container asks with an annotation:

  podman run --annotation k8s.aliyun.com/eci-core-pattern=/pod/data/dump/core-eci IMAGE

The core of a process that dies in it then appears, in the container, as /pod/data/dump/core-eci.PID.

Files:
  /etc/oci-coredump/config.toml        settings; need not exist
  /run/oci-coredump/                   the containers that are registered
  /var/lib/oci-coredump/containers/    cores of containers that mount no volume for them
  /var/lib/oci-coredump/records/       one JSON file for every crash

Exit status: 0 done; 1 failed, or `doctor` found a failure; 2 the command line is wrong.";

/// Gives every container its own core_pattern, as if the kernel had namespaced it.
#[derive(Debug, Parser)]
#[command(name = "oci-coredump", version, after_help = AFTER, max_term_width = 100)]
struct Cli {
    /// Say what is done in detail, on stderr.
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the kernel hand crashes to this program now, not only when the first container asks.
    ///
    /// What kernel.core_pattern was before is saved, and keeps getting the crashes of everything that is no registered container. Run it as root, by
    /// the path at which the program will stay.
    ///
    /// With an engine: tell that engine of this program instead. podman and CRI-O need it only where they do not read the standard hooks.d directory.
    ///
    /// Example: oci-coredump install docker --dry-run
    Install {
        /// Tell this engine.
        engine: Option<Engine>,
        #[command(flatten)]
        options: engine::Options,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Give the kernel's settings back, and remove what this program keeps in /run.
    ///
    /// kernel.core_pattern, core_uses_pid and core_pipe_limit become what they were, unless somebody else has changed them since. Cores and records
    /// stay, unless --purge is given. Engines that were told of this program are made to forget it first.
    ///
    /// With an engine: only make that engine forget it.
    ///
    /// Example: oci-coredump uninstall --purge
    Uninstall {
        /// Make this engine forget.
        engine: Option<Engine>,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
        /// Remove the cores and records in the store too.
        #[arg(long, conflicts_with = "engine")]
        purge: bool,
    },
    /// Check everything that a core on its way depends on, and say what to do.
    ///
    /// Each line is ok, warning or failure. Exit status 1 if there is a failure.
    ///
    /// Example: oci-coredump doctor --json
    Doctor {
        /// Print a JSON array of {"check", "verdict", "text", "hint"}.
        #[arg(long)]
        json: bool,
    },
    /// Print what the hook would do for a bundle, and touch nothing.
    ///
    /// Example: oci-coredump plan /run/containers/storage/overlay-containers/ID/userdata
    Plan {
        /// The bundle: a directory with a config.json.
        bundle: PathBuf,
        /// The state that a runtime would give the hook; only the container ID matters here, which else is the bundle's name.
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
        /// Use this configuration instead of /etc/oci-coredump/config.toml.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Serve an engine as its NRI plugin, by connecting to its socket; for ever, across restarts of the engine.
    ///
    /// Usually the engine starts the plugin itself: `oci-coredump install containerd`.
    ///
    /// Example: oci-coredump nri --socket /var/run/nri/nri.sock
    Nri {
        /// The engine's socket.
        #[arg(long, value_name = "PATH", default_value = engine::nri::SOCKET)]
        socket: PathBuf,
    },
    /// The OCI hook, for runtimes: the container's state is read from stdin.
    ///
    /// Without a stage it is found out from the state. createRuntime fails only where the container (annotation oci-coredump/required) or the
    /// administrator (strict = true) insists; poststart and poststop never do.
    Hook {
        /// createRuntime, prestart, poststart or poststop.
        stage: Option<String>,
    },
    /// The kernel's pipe helper; the kernel gives it its arguments.
    Handle {
        /// The values of %P %p %I %i %u %g %d %s %t %c %C %F %h %e %f %E of core(5).
        specifiers: Vec<OsString>,
    },
    /// Print the man page.
    ///
    /// Example: oci-coredump man | man -l -
    Man,
    /// Print the completions of a shell.
    ///
    /// Example: oci-coredump completions bash > /etc/bash_completion.d/oci-coredump
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Runs a verb. What fails is one line on stderr.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    report::init(Door::Stderr, cli.verbose);
    match verb(cli.verb) {
        Ok(code) => code,
        // Whoever reads our output may stop reading.
        Err(e) if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn verb(verb: Verb) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match verb {
        Verb::Install { engine: Some(engine), options, dry_run } => setup::install_engine(&mut out, engine, &options, dry_run)?,
        Verb::Install { dry_run, .. } => setup::install(&mut out, dry_run)?,
        Verb::Uninstall { engine: Some(engine), dry_run, .. } => setup::uninstall_engine(&mut out, engine, dry_run)?,
        Verb::Uninstall { dry_run, purge, .. } => setup::uninstall(&mut out, dry_run, purge)?,
        Verb::Doctor { json } => return doctor::run(&mut out, json),
        Verb::Plan { bundle, state, config } => explain::run(&mut out, &bundle, state.as_deref(), config.as_deref())?,
        Verb::Nri { socket } => engine::nri::run_connecting(&socket),
        Verb::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text)?;
            out.write_all(&text)?;
        }
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "oci-coredump", &mut text);
            out.write_all(&text)?;
        }
        // `main` takes these two before any of this; only `--help` comes here.
        Verb::Hook { .. } | Verb::Handle { .. } => return Ok(ExitCode::FAILURE),
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_teaches() {
        for verb in Cli::command().get_subcommands() {
            let about = verb.get_about().unwrap_or_else(|| panic!("{} has no help", verb.get_name())).to_string();
            assert!(about.len() > 10, "{}: {about}", verb.get_name());
        }
    }
}
