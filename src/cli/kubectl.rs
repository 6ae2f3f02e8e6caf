//! `kubectl coredump`: for somebody who has kubectl and nothing else. Finds the pod's node and the
//! DaemonSet's pod there, and runs the verb in it on the node (`node run`). kubectl does all that
//! touches the cluster, with the rights that its user has; nothing goes through a shell.

use super::debug::{self, Debugger};
use crate::report::{self, LogTarget};
use crate::sys::file;
use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use serde_json::Value;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The name under which kubectl starts this program.
pub const NAME: &str = "kubectl-coredump";

/// Selects the DaemonSet's pods; its container is called `node`.
const LABEL: &str = "app.kubernetes.io/name=oci-coredump";
/// The program in the DaemonSet's image.
const PROGRAM: &str = "/oci-coredump";

/// Core dumps of pods, from the nodes on which they lie.
#[derive(Debug, Parser)]
#[command(name = "kubectl-coredump", bin_name = "kubectl coredump", version, max_term_width = 100)]
struct Plugin {
    /// The namespace of the pod, as for kubectl.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// The context of the kubeconfig, as for kubectl.
    #[arg(long, global = true)]
    context: Option<String>,
    /// The kubeconfig, as for kubectl.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The namespace of the DaemonSet.
    #[arg(long, global = true, value_name = "NAMESPACE", default_value = "oci-coredump")]
    daemonset: String,
    #[command(subcommand)]
    verb: Verb,
}

/// A pod, and which of its crashes.
#[derive(Debug, clap::Args)]
struct Which {
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
    Info(Which),
    /// Fetch the newest crash of a pod in one file: core, record, executable and libraries.
    Export {
        #[command(flatten)]
        which: Which,
        /// Write to this file instead of POD.tar.zst; - is stdout.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Fetch only the core.
        #[arg(long)]
        core_only: bool,
    },
    /// Fetch the newest crash of a pod and open it in a debugger on this machine.
    Debug {
        #[command(flatten)]
        which: Which,
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

/// A pod of the DaemonSet.
#[derive(Debug, PartialEq, Eq)]
struct Agent {
    node: String,
    pod: String,
}

impl Plugin {
    fn serve(&self) -> Result<ExitCode> {
        match &self.verb {
            Verb::List { pod: None, matches } => self.list(&self.agents()?, matches),
            Verb::List { pod: Some(pod), matches } => {
                let (agents, all) = self.crashes_of(pod, matches)?;
                self.list(&agents, &all)
            }
            Verb::Info(which) => {
                let (agent, matches) = self.newest(which)?;
                let status = self.on(&agent, &words("info", &[], &matches)).status();
                Ok(exit(status.context("start kubectl")?.code()))
            }
            Verb::Export { which, output, core_only } => {
                let (agent, matches) = self.newest(which)?;
                let default = PathBuf::from(format!(
                    "{}.{}",
                    which.pod,
                    if *core_only { "core" } else { "tar.zst" }
                ));
                let output = output.as_ref().unwrap_or(&default);
                self.fetch(&agent, &matches, *core_only, output)?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Debug { which, debugger, arguments } => {
                let (agent, matches) = self.newest(which)?;
                let scratch = tempfile::tempdir_in("/var/tmp").context("make a directory")?;
                let bundle = scratch.path().join("crash.tar.zst");
                self.fetch(&agent, &matches, false, &bundle)?;
                let debugger = Debugger {
                    program: debugger.clone(),
                    arguments: arguments.clone(),
                    as_root: false,
                    debuginfod: false,
                };
                debug::run_bundle(&bundle, &debugger).context("debug")
            }
        }
    }

    /// Lists on each node; fails where none has any.
    fn list(&self, agents: &[Agent], matches: &[String]) -> Result<ExitCode> {
        let mut code = ExitCode::FAILURE;
        for agent in agents {
            if agents.len() > 1 {
                println!("node {}:", agent.node);
            }
            let status = self.on(agent, &words("list", &[], matches)).status();
            if status.context("start kubectl")?.success() {
                code = ExitCode::SUCCESS;
            }
        }
        Ok(code)
    }

    fn kubectl(&self) -> Command {
        let mut command = Command::new("kubectl");
        command.args(self.context.iter().map(|context| format!("--context={context}")));
        if let Some(file) = &self.kubeconfig {
            command.arg("--kubeconfig").arg(file);
        }
        command
    }

    /// Asks kubectl for a JSON document; `None` if it prints nothing.
    fn ask(&self, args: &[&str]) -> Result<Option<Value>> {
        let mut command = self.kubectl();
        command.args(args).stderr(Stdio::inherit());
        let output = command.output().context("start kubectl")?;
        ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), output.status);
        if output.stdout.trim_ascii().is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&output.stdout)
            .map(Some)
            .with_context(|| format!("kubectl {}", args.join(" ")))
    }

    /// The running pods of the DaemonSet.
    fn agents(&self) -> Result<Vec<Agent>> {
        let args = ["get", "pods", "-n", &self.daemonset, "-l", LABEL, "-o", "json"];
        let agents = running(&self.ask(&args)?.unwrap_or_default());
        ensure!(
            !agents.is_empty(),
            "no pod of the DaemonSet runs in namespace {} (--daemonset names another one)",
            self.daemonset
        );
        Ok(agents)
    }

    /// The nodes that may have crashes of a pod, and the words that match them.
    fn crashes_of(&self, pod: &str, more: &[String]) -> Result<(Vec<Agent>, Vec<String>)> {
        ensure!(is_name(pod), "{pod:?} is no name of a pod");
        let mut args = vec!["get", "pod", pod, "--ignore-not-found", "-o", "json"];
        args.extend(self.namespace.iter().flat_map(|n| ["-n", n.as_str()]));
        let found = self.ask(&args)?;
        let mut agents = self.agents()?;
        let mut matches = vec![format!("pod={pod}")];
        let namespace = match &found {
            Some(found) => found["metadata"]["namespace"].as_str(),
            None => self.namespace.as_deref(),
        };
        matches.extend(namespace.map(|n| format!("namespace={n}")));
        matches.extend_from_slice(more);
        if let Some(node) = found.as_ref().and_then(|f| f["spec"]["nodeName"].as_str()) {
            agents.retain(|agent| agent.node == node);
            ensure!(!agents.is_empty(), "no pod of the DaemonSet runs on node {node}");
        }
        Ok((agents, matches))
    }

    /// The node with the newest crash of a pod.
    fn newest(&self, which: &Which) -> Result<(Agent, Vec<String>)> {
        let (mut agents, matches) = self.crashes_of(&which.pod, &which.matches)?;
        if agents.len() > 1 {
            let mut dated = Vec::new();
            for agent in agents {
                let list = words("list", &["-n", "1", "--json"], &matches);
                let output = self.on(&agent, &list).output().context("start kubectl")?;
                let records: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
                if let Some(time) = records[0]["time"].as_str() {
                    dated.push((time.to_owned(), agent));
                }
            }
            dated.sort_by(|a, b| a.0.cmp(&b.0));
            agents = dated.pop().into_iter().map(|(_, agent)| agent).collect();
        }
        match agents.pop() {
            Some(agent) => Ok((agent, matches)),
            None => bail!("no crash of pod {} is on any node", which.pod),
        }
    }

    /// A verb on a node.
    fn on(&self, agent: &Agent, words: &[String]) -> Command {
        let mut command = self.kubectl();
        command.args(["exec", "-n", &self.daemonset, &agent.pod, "-c", "node", "--", PROGRAM]);
        command.args(["node", "run", "--"]).args(words);
        command.stdin(Stdio::null());
        command
    }

    /// Streams a crash to a file, which appears only when it is whole.
    fn fetch(
        &self,
        agent: &Agent,
        matches: &[String],
        core_only: bool,
        output: &Path,
    ) -> Result<()> {
        let options: &[&str] = if core_only { &["-o", "-", "--core-only"] } else { &["-o", "-"] };
        let mut command = self.on(agent, &words("export", options, matches));
        let done = |status: std::process::ExitStatus| {
            ensure!(status.success(), "export on node {}: kubectl: {status}", agent.node);
            Ok(())
        };
        if output == Path::new("-") {
            return done(command.status().context("start kubectl")?);
        }
        let dir = output.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
        let new = tempfile::NamedTempFile::new_in(dir)
            .with_context(|| format!("create a file for {}", output.display()))?;
        let to: File = new.as_file().try_clone().context("dup")?;
        done(command.stdout(to).status().context("start kubectl")?)?;
        new.persist(output).with_context(|| format!("rename to {}", output.display()))?;
        Ok(())
    }
}

/// A verb's command line, in which no MATCH can be taken for an option.
fn words(verb: &str, options: &[&str], matches: &[String]) -> Vec<String> {
    let before = [&[verb], options, &["--"]].concat();
    before.into_iter().map(str::to_owned).chain(matches.iter().cloned()).collect()
}

fn exit(code: Option<i32>) -> ExitCode {
    ExitCode::from(code.and_then(|c| u8::try_from(c).ok()).unwrap_or(1))
}

/// Whether it is a name that a pod can have: no glob, no option.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !name.is_empty() && name.bytes().all(plain) && !name.starts_with('-')
}

/// The pods in a list of the API server that run, and their nodes.
fn running(list: &Value) -> Vec<Agent> {
    let pods = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let agent = |pod: &Value| {
        Some(Agent {
            node: pod["spec"]["nodeName"].as_str()?.to_owned(),
            pod: pod["metadata"]["name"].as_str()?.to_owned(),
        })
    };
    pods.iter().filter(|p| p["status"]["phase"] == "Running").filter_map(agent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use serde_json::json;

    #[test]
    fn the_definition_is_sound() {
        Plugin::command().debug_assert();
    }

    #[test]
    fn pods_that_run() {
        let pod = |name: &str, node: Option<&str>, phase: &str| {
            json!({"metadata": {"name": name}, "spec": {"nodeName": node},
                "status": {"phase": phase}})
        };
        let list = json!({"items": [
            pod("a", Some("n1"), "Running"), pod("b", Some("n2"), "Pending"),
            pod("c", None, "Running"),
        ]});
        assert_eq!(running(&list), [Agent { node: "n1".into(), pod: "a".into() }]);
        assert_eq!(running(&Value::Null), []);
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
        let command = plugin.on(&agent, &words("info", &[], &which.matches));
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

    #[test]
    fn names_of_pods() {
        assert!(is_name("web-0.a"));
        for bad in ["", "-o", "a*", "A", "a b", "a=b", "a/b"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
