//! Finds a running container by asking the tools of the engines, all at once and each within a time
//! limit, and says what they call it.

mod answers;

use crate::hook::running_container::RunningContainer;
use crate::registry::check_id;
use crate::report::one_line;
use crate::sys::run_commands::{self, ToolOutput};
use anyhow::{Context, Result, bail, ensure};
use std::process::Command;
use std::time::Duration;

/// The tools that are asked without `--by`. The first that knows the container counts: podman and
/// Docker before the runtimes below them, since they know more names.
const TOOLS: [&str; 9] = [
    "podman",
    "docker",
    "nerdctl",
    "crictl",
    "ctr --namespace k8s.io",
    "ctr",
    "runc",
    "crun",
    "youki",
];

/// How long the tools may take, all of them together.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a tool is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `inspect NAME`, which knows names and beginnings of IDs: podman, Docker, nerdctl.
    Inspect,
    /// Two lists, of containers and pods, then `inspect ID`.
    Crictl,
    /// A list of IDs and processes.
    Ctr,
    /// A list of containers with their bundles: runc, crun.
    List,
    /// `state ID`: any other OCI runtime.
    State,
}

impl Kind {
    fn of(program: &str) -> Self {
        match program.rsplit('/').next().unwrap_or(program) {
            "podman" | "docker" | "nerdctl" => Kind::Inspect,
            "crictl" => Kind::Crictl,
            "ctr" => Kind::Ctr,
            "runc" | "crun" => Kind::List,
            _ => Kind::State,
        }
    }
}

/// A tool with its global options.
struct Tool<'a> {
    line: &'a str,
    kind: Kind,
}

impl<'a> Tool<'a> {
    fn new(line: &'a str) -> Result<Self> {
        let program = line.split_whitespace().next().context("--by names no command")?;
        Ok(Tool { line, kind: Kind::of(program) })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut words = self.line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(args);
        command
    }

    fn questions(&self, word: &str) -> Vec<Command> {
        match self.kind {
            Kind::Inspect => {
                // podman's name of a container of `kube play`.
                let word = word.replace('/', "-");
                vec![self.command(&["container", "inspect", "--format", "{{json .}}", &word])]
            }
            Kind::Crictl => vec![
                self.command(&["ps", "--output", "json"]),
                self.command(&["pods", "--output", "json"]),
            ],
            Kind::Ctr => vec![self.command(&["tasks", "list"])],
            Kind::List => vec![self.command(&["list", "--format", "json"])],
            Kind::State => vec![self.command(&["state", word])],
        }
    }

    /// The containers that the answers tell of, of which the user may mean any.
    fn told(&self, answers: &[String]) -> Vec<RunningContainer> {
        let text = |n: usize| answers.get(n).map_or("", String::as_str);
        match self.kind {
            Kind::Inspect => answers::of_engine(text(0)).into_iter().collect(),
            Kind::Crictl => answers::of_cri(text(0), text(1)),
            Kind::Ctr => answers::of_tasks(text(0))
                .into_iter()
                .filter_map(|(id, pid)| answers::of_shim(&id, pid))
                .collect(),
            Kind::List => answers::of_list(text(0)),
            Kind::State => answers::of_runtime(text(0)).into_iter().collect(),
        }
    }

    /// The container that the user means.
    fn find(&self, word: &str, answers: Vec<String>) -> Result<Option<RunningContainer>> {
        let mut all = self.told(&answers);
        // What is inspected by its name is what the user means.
        if self.kind != Kind::Inspect {
            all = answers::meant(word, all);
        }
        match all.len() {
            0 => Ok(None),
            1 if self.kind == Kind::Crictl => self.inspected(all.remove(0)).map(Some),
            1 => Ok(all.pop()),
            n => {
                let ids: Vec<&str> = all.iter().map(|t| t.names.container_id.as_str()).collect();
                bail!("{n} containers are called {word:?}: {}", ids.join(", "))
            }
        }
    }

    /// crictl's lists have no processes.
    fn inspected(&self, mut target: RunningContainer) -> Result<RunningContainer> {
        let id = &target.names.container_id;
        let question = self.command(&["inspect", "--output", "json", id]);
        let answer = run_commands::all(vec![question], PATIENCE).remove(0).and_then(text);
        let answer = answer.with_context(|| format!("{} inspect", self.line))?;
        target.pid = answers::of_inspect(&answer).with_context(|| {
            format!("{} does not tell the process of container {id}", self.line)
        })?;
        Ok(target)
    }
}

/// Finds the container that a user calls `word`, by one tool with its options or by all of them.
///
/// # Errors
/// No tool knows it, or several containers are called that.
pub(super) fn find(word: &str, by: Option<&str>) -> Result<RunningContainer> {
    ensure!(!word.starts_with('-') && !word.is_empty(), "{word:?} is no container's name");
    let lines = by.map_or(TOOLS.to_vec(), |line| vec![line]);
    let tools = lines.into_iter().map(Tool::new).collect::<Result<Vec<_>>>()?;
    let questions: Vec<Vec<Command>> = tools.iter().map(|tool| tool.questions(word)).collect();
    let counts: Vec<usize> = questions.iter().map(Vec::len).collect();
    let mut answers =
        run_commands::all(questions.into_iter().flatten().collect(), PATIENCE).into_iter();
    let (mut asked, mut silent, mut last) = (Vec::new(), Vec::new(), None);
    for (tool, count) in tools.iter().zip(counts) {
        let own: Vec<Result<ToolOutput>> = answers.by_ref().take(count).collect();
        if own.iter().any(is_not_installed) {
            last = Some(format!("{}: there is no such program", tool.line));
            continue;
        }
        let is_silent = own.iter().any(|a| a.is_err());
        if is_silent { &mut silent } else { &mut asked }.push(tool.line);
        match own.into_iter().map(|a| a.and_then(text)).collect::<Result<Vec<_>>>() {
            Ok(texts) => {
                if let Some(target) = tool.find(word, texts)?.filter(|target| target.pid > 1) {
                    check_id(&target.names.container_id)?;
                    return Ok(RunningContainer { names: target.names.bounded(), ..target });
                }
            }
            Err(e) => last = Some(format!("{}: {e:#}", tool.line)),
        }
    }
    let hint = if by.is_some() { "" } else { "; name a tool with --by, or give --pid" };
    match (by, last) {
        (Some(_), Some(why)) => bail!("{why}"),
        _ => bail!("no container is called {word:?} here ({}){hint}", who(&asked, &silent)),
    }
}

fn who(asked: &[&str], silent: &[&str]) -> String {
    let list = |what: &str, tools: &[&str]| format!("{what}: {}", tools.join(", "));
    match (asked.is_empty(), silent.is_empty()) {
        (true, true) => "no tool of an engine is installed".into(),
        (false, true) => list("asked", asked),
        (true, false) => list("no answer from", silent),
        (false, false) => format!("{}; {}", list("asked", asked), list("no answer from", silent)),
    }
}

fn is_not_installed(answer: &Result<ToolOutput>) -> bool {
    let cause = answer.as_ref().err().and_then(|e| e.root_cause().downcast_ref::<std::io::Error>());
    cause.is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

fn text(answer: ToolOutput) -> Result<String> {
    let line = String::from_utf8_lossy(&answer.err);
    ensure!(answer.success, "{}", one_line(line.lines().next().unwrap_or("it failed")));
    Ok(String::from_utf8_lossy(&answer.out).into_owned())
}
