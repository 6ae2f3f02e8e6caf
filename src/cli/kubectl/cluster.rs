//! The cluster, by way of kubectl: the DaemonSet's pods, and the nodes with a pod's crashes.
//! kubectl does all that touches the cluster, with the rights that its user has; nothing goes
//! through a shell.

use super::super::selection::NO_CRASH;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Selects the DaemonSet's pods; its container is called `node`.
const LABEL: &str = "app.kubernetes.io/name=oci-coredump";
/// The program in the DaemonSet's image.
const PROGRAM: &str = "/oci-coredump";

/// Which cluster, and where in it.
#[derive(Debug, clap::Args)]
pub(super) struct Cluster {
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
}

/// A pod of the DaemonSet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Agent {
    /// The node that it runs on.
    pub node: String,
    pub pod: String,
}

impl Cluster {
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
    pub(super) fn agents(&self) -> Result<Vec<Agent>> {
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
    pub(super) fn crashes_of(
        &self,
        pod: &str,
        more: &[String],
    ) -> Result<(Vec<Agent>, Vec<String>)> {
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
        if found.is_none() {
            let namespace = namespace.map(|n| format!(" in namespace {n}")).unwrap_or_default();
            log::info!("there is no pod {pod}{namespace} now: its crashes are asked of all nodes");
        }
        if let Some(node) = found.as_ref().and_then(|f| f["spec"]["nodeName"].as_str()) {
            agents.retain(|agent| agent.node == node);
            ensure!(!agents.is_empty(), "no pod of the DaemonSet runs on node {node}");
        }
        Ok((agents, matches))
    }

    /// The node with the newest crash of a pod.
    pub(super) fn newest(&self, pod: &str, more: &[String]) -> Result<(Agent, Vec<String>)> {
        let (mut agents, matches) = self.crashes_of(pod, more)?;
        // The verb itself says what the only one has to say.
        if agents.len() == 1
            && let Some(only) = agents.pop()
        {
            return Ok((only, matches));
        }
        let list = words("list", &["-n", "1", "--json"], &matches);
        let (mut dated, mut without) = (Vec::new(), Vec::new());
        for agent in agents {
            let output = self.on(&agent, &list).output().context("start kubectl")?;
            let newest: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            match newest["time"].as_str() {
                Some(time) => dated.push((time.to_owned(), agent)),
                None => without.push((agent.node, said(&output.stderr))),
            }
        }
        dated.sort_by(|a, b| a.0.cmp(&b.0));
        // A node that could not be asked may have a newer one.
        for (node, why) in without.iter().filter(|(_, why)| !why.contains(NO_CRASH)) {
            log::warn!("node {node} is left out: {why}");
        }
        match dated.pop() {
            Some((_, agent)) => Ok((agent, matches)),
            None => bail!("no crash of pod {pod} is on any node"),
        }
    }

    /// A verb on a node.
    pub(super) fn on(&self, agent: &Agent, words: &[String]) -> Command {
        let mut command = self.kubectl();
        command.args(["exec", "-n", &self.daemonset, &agent.pod, "-c", "node", "--", PROGRAM]);
        command.args(["node", "run", "--"]).args(words);
        command.stdin(Stdio::null());
        command
    }
}

/// What kubectl, or the program on a node, has said on stderr.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match lines.collect::<Vec<_>>().join("; ") {
        text if text.is_empty() => "it says nothing".into(),
        text => text,
    }
}

/// A verb's command line, in which no MATCH can be taken for an option.
pub(super) fn words(verb: &str, options: &[&str], matches: &[String]) -> Vec<String> {
    let before = [&[verb], options, &["--"]].concat();
    before.into_iter().map(str::to_owned).chain(matches.iter().cloned()).collect()
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
    use serde_json::json;

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
    fn names_of_pods() {
        assert!(is_name("web-0.a"));
        for bad in ["", "-o", "a*", "A", "a b", "a=b", "a/b"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
