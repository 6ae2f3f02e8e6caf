//! The command line. `--help`, the man page and the completions are all made from this definition.

use super::{
    completions, debug, disable, doctor, enable, export, info, install, list, man, metrics, node,
    nri, plan, report, rm, serve, ship, uninstall, vacuum, verify, watch,
};
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;

const AFTER: &str = "\
A container requests its pattern with an annotation:

  podman run --annotation k8s.aliyun.com/eci-core-pattern=/pod/data/dump/core-eci IMAGE

When a process in it dies of a signal that dumps core, the core is, in the container,
/pod/data/dump/core-eci.PID.

Files:
  /etc/oci-coredump/config.toml        settings; may be absent
  /usr/share/doc/oci-coredump/config.toml
                                       all settings with their defaults, explained
  /run/oci-coredump/                   the registered containers
  /var/lib/oci-coredump/containers/    cores of containers that mount no volume for them
  /var/lib/oci-coredump/records/       one file for every crash, of lines of JSON
  /var/lib/oci-coredump/binaries/      executables and libraries of the cores,
                                       by build-id and content

Exit status:
  0  done; also if the reader of a pipe has closed it
  1  failed; no crash matched; info: a core could not be read; plan: the request is refused;
     doctor: a check failed; verify: a check failed; rm, vacuum: something could not be removed;
     debug: the debugger's own status
  2  wrong command line: an option, a MATCH, a TIME or a SIZE that cannot be understood

Environment:
  TZ                  the time zone in which times are shown and read
  NO_COLOR            no colours, even on a terminal
  OCI_COREDUMP_PAGER  the pager of list and info on a terminal; else PAGER, else less. Empty or
                      cat: none
  COLUMNS             the width of a terminal that does not tell its own";

/// Gives every container its own core_pattern, as if the kernel had namespaced it.
#[derive(Debug, Parser)]
#[command(name = "oci-coredump", version, after_help = AFTER, max_term_width = 100)]
pub(super) struct Cli {
    /// Report in detail on stderr what is done.
    #[arg(short, long, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Begins a paragraph of a verb's description that is a command line.
const EXAMPLE: &str = "Example: ";

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    Install(install::Args),
    Uninstall(uninstall::Args),
    Doctor(doctor::Args),
    List(list::Args),
    Info(info::Args),
    Debug(debug::Args),
    Export(export::Args),
    Report(report::Args),
    Ship(ship::Args),
    Vacuum(vacuum::Args),
    Rm(rm::Args),
    Watch(watch::Args),
    Serve(serve::Args),
    Metrics(metrics::Args),
    Enable(enable::Args),
    Disable(disable::Args),
    Plan(plan::Args),
    Node(node::Args),
    Verify(verify::Args),
    VerifyProbe(verify::ProbeArgs),
    Nri(nri::Args),
    /// The OCI hook, started by runtimes: reads the container's state from stdin.
    ///
    /// Without a STAGE the stage is derived from the state. createRuntime fails only if the
    /// container (annotation oci-coredump/required) or the administrator (strict = true) requires
    /// the core pattern; poststart and poststop never fail.
    Hook {
        /// createRuntime, prestart, poststart or poststop.
        stage: Option<String>,
    },
    /// The pipe helper, started by the kernel with its arguments.
    Handle {
        /// The version of the argument list, v1, and the values of %P %p %I %i %u %g %d %s %t %c %C
        /// %F %h %e %f %E of core(5).
        specifiers: Vec<OsString>,
    },
    Man(man::Args),
    Completions(completions::Args),
}

/// The definition of the command line, with the examples of each verb at the end of its help.
pub(super) fn definition() -> clap::Command {
    Cli::command().mut_subcommands(|verb| {
        let long = verb.get_long_about().map(ToString::to_string).unwrap_or_default();
        let (examples, prose): (Vec<&str>, Vec<&str>) =
            long.split("\n\n").partition(|paragraph| paragraph.starts_with(EXAMPLE));
        if examples.is_empty() {
            return verb;
        }
        let examples = examples.iter().map(|line| line.replacen(EXAMPLE, "  ", 1));
        let mut after = verb.get_after_help().map(|help| format!("{help}\n\n")).unwrap_or_default();
        after.push_str("Examples:\n");
        after.push_str(&examples.collect::<Vec<_>>().join("\n"));
        verb.long_about(prose.join("\n\n")).after_long_help(after)
    })
}

impl Verb {
    /// The verb's word on the command line, for messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Verb::Install(_) => "install",
            Verb::Uninstall(_) => "uninstall",
            Verb::Doctor(_) => "doctor",
            Verb::List(_) => "list",
            Verb::Info(_) => "info",
            Verb::Debug(_) => "debug",
            Verb::Export(_) => "export",
            Verb::Report(_) => "report",
            Verb::Ship(_) => "ship",
            Verb::Vacuum(_) => "vacuum",
            Verb::Rm(_) => "rm",
            Verb::Watch(_) => "watch",
            Verb::Serve(_) => "serve",
            Verb::Metrics(_) => "metrics",
            Verb::Enable(_) => "enable",
            Verb::Disable(_) => "disable",
            Verb::Plan(_) => "plan",
            Verb::Node(args) => args.name(),
            Verb::Verify(_) => "verify",
            Verb::VerifyProbe(_) => "verify-probe",
            Verb::Nri(_) => "nri",
            Verb::Hook { .. } => "hook",
            Verb::Handle { .. } => "handle",
            Verb::Man(_) => "man",
            Verb::Completions(_) => "completions",
        }
    }
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
            let about = verb
                .get_about()
                .unwrap_or_else(|| panic!("{} has no help", verb.get_name()))
                .to_string();
            assert!(about.len() > 10, "{}: {about}", verb.get_name());
            let long = verb.get_long_about().map(ToString::to_string).unwrap_or_default();
            // The verbs that only machines start have no example.
            assert!(
                long.contains("Example: oci-coredump ")
                    || ["hook", "handle", "verify-probe"].contains(&verb.get_name()),
                "{} has no example",
                verb.get_name()
            );
        }
    }
}
