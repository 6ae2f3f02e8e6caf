//! `kubectl coredump`: for somebody who has kubectl and nothing else. Finds the pod's node and the
//! DaemonSet's pod there, and runs the verb in it on the node (`node run`).

mod cluster;

use super::debug::{self, Debugger};
use super::source::Packed;
use super::target_file::TargetFile;
use crate::report::{self, LogTarget};
use crate::sys::file;
use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use cluster::{Agent, Cluster, words};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// The name under which kubectl starts this program.
pub const NAME: &str = "kubectl-coredump";

/// Core dumps of pods, from the nodes on which they lie.
#[derive(Debug, Parser)]
#[command(name = "kubectl-coredump", bin_name = "kubectl coredump", version, max_term_width = 100)]
struct Plugin {
    #[command(flatten)]
    cluster: Cluster,
    #[command(subcommand)]
    verb: Verb,
}

/// A pod, and which of its crashes.
#[derive(Debug, clap::Args)]
struct PodCrash {
    /// The pod. It may be gone: then every node is asked.
    pod: String,
    /// More of what `oci-coredump list --help` calls MATCH, such as container=web or signal=SEGV.
    matches: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the crashes of a pod, or of all pods, node by node.
    List {
        /// The pod; all pods of all namespaces without it.
        pod: Option<String>,
        /// More MATCHes.
        matches: Vec<String>,
    },
    /// Show everything that is known about the newest crash of a pod.
    Info(PodCrash),
    /// Fetch the newest crash of a pod in one file: core, record, executable and libraries.
    Export {
        #[command(flatten)]
        which: PodCrash,
        /// Write to this file, replacing it, instead of POD.tar.zst (or POD.core), which must not
        /// be there yet; - is stdout.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Fetch only the core.
        #[arg(long)]
        core_only: bool,
    },
    /// Fetch the newest crash of a pod and open it in a debugger on this machine.
    Debug {
        #[command(flatten)]
        which: PodCrash,
        /// The debugger: gdb, lldb, or the path of one.
        #[arg(long, value_name = "PROGRAM", default_value = "gdb")]
        debugger: PathBuf,
        /// Pass one more argument to the debugger; may be repeated.
        #[arg(short = 'A', value_name = "ARGUMENT", allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Runs the plugin's command line. An error is one line on stderr.
pub fn run(args: Vec<OsString>) -> ExitCode {
    file::set_umask(0o022);
    let plugin = match Plugin::try_parse_from(args) {
        Ok(plugin) => plugin,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    report::init(LogTarget::Stderr, false);
    plugin.serve().unwrap_or_else(|e| {
        log::error!("{e:#}");
        ExitCode::FAILURE
    })
}

impl Plugin {
    fn serve(&self) -> Result<ExitCode> {
        match &self.verb {
            Verb::List { pod: None, matches } => self.list(&self.cluster.agents()?, matches),
            Verb::List { pod: Some(pod), matches } => {
                let (agents, all) = self.cluster.crashes_of(pod, matches)?;
                self.list(&agents, &all)
            }
            Verb::Info(which) => {
                let (agent, matches) = self.cluster.newest(&which.pod, &which.matches)?;
                let status = self.cluster.on(&agent, &words("info", &[], &matches)).status();
                Ok(exit(status.context("start kubectl")?.code()))
            }
            Verb::Export { which, output, core_only } => {
                let (agent, matches) = self.cluster.newest(&which.pod, &which.matches)?;
                let default = PathBuf::from(format!(
                    "{}.{}",
                    which.pod,
                    if *core_only { "core" } else { "tar.zst" }
                ));
                let target = TargetFile { output: output.clone().unwrap_or(default) };
                target.check_binary()?;
                let fetch = |to: &File| self.fetch(&agent, &matches, *core_only, Some(to));
                match output {
                    None => target.make_new(fetch)?,
                    Some(_) if target.is_stdout() => {
                        self.fetch(&agent, &matches, *core_only, None)?;
                    }
                    Some(_) => target.make(fetch)?,
                }
                Ok(ExitCode::SUCCESS)
            }
            Verb::Debug { which, debugger, arguments } => {
                let (agent, matches) = self.cluster.newest(&which.pod, &which.matches)?;
                let scratch = tempfile::tempdir_in("/var/tmp").context("make a directory")?;
                let bundle = scratch.path().join("crash.tar.zst");
                let target = TargetFile { output: bundle.clone() };
                target.make(|to| self.fetch(&agent, &matches, false, Some(to)))?;
                let debugger = Debugger {
                    program: debugger.clone(),
                    arguments: arguments.clone(),
                    as_root: false,
                    debuginfod: Default::default(),
                };
                debug::run_packed(Packed::Bundle(&bundle), &debugger).context("debug")
            }
        }
    }

    /// Lists on each node; fails where none has any.
    fn list(&self, agents: &[Agent], matches: &[String]) -> Result<ExitCode> {
        let mut code = ExitCode::FAILURE;
        for agent in agents {
            if agents.len() > 1 {
                writeln!(std::io::stdout(), "node {}:", agent.node)?;
            }
            let status = self.cluster.on(agent, &words("list", &[], matches)).status();
            if status.context("start kubectl")?.success() {
                code = ExitCode::SUCCESS;
            }
        }
        Ok(code)
    }

    /// Streams a crash to a file, or to stdout.
    fn fetch(
        &self,
        agent: &Agent,
        matches: &[String],
        core_only: bool,
        to: Option<&File>,
    ) -> Result<()> {
        let options: &[&str] = if core_only { &["-o", "-", "--core-only"] } else { &["-o", "-"] };
        let mut command = self.cluster.on(agent, &words("export", options, matches));
        if let Some(to) = to {
            command.stdout(to.try_clone().context("dup")?);
        }
        let status = command.status().context("start kubectl")?;
        ensure!(status.success(), "export on node {}: kubectl: {status}", agent.node);
        Ok(())
    }
}

fn exit(code: Option<i32>) -> ExitCode {
    ExitCode::from(code.and_then(|c| u8::try_from(c).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Plugin::command().debug_assert();
    }

    #[test]
    fn words_for_a_node_are_arguments_and_no_shell_sees_them() {
        let plugin = Plugin::try_parse_from([
            "kubectl-coredump",
            "info",
            "web-0",
            "exe=/bin/$(reboot)",
            "--context",
            "x y",
        ])
        .unwrap();
        let Verb::Info(which) = &plugin.verb else { panic!("{plugin:?}") };
        let agent = Agent { node: "n".into(), pod: "p".into() };
        let command = plugin.cluster.on(&agent, &words("info", &[], &which.matches));
        let args: Vec<_> = command.get_args().map(|a| a.to_str().unwrap()).collect();
        assert_eq!(
            args,
            [
                "--context=x y",
                "exec",
                "-n",
                "oci-coredump",
                "p",
                "-c",
                "node",
                "--",
                "/oci-coredump",
                "node",
                "run",
                "--",
                "info",
                "--",
                "exe=/bin/$(reboot)",
            ]
        );
    }
}
