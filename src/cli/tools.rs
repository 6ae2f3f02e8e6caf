//! Finds a running container by asking the tools of the engines, all at once and each within a time
//! limit, and says what they call it.

use crate::annotation;
use crate::hook::live::RunningContainer;
use crate::identity::Identity;
use crate::record::Names;
use crate::registry::check_id;
use crate::report::one_line;
use crate::sys::ask::{self, ToolOutput};
use crate::sys::proc::{self, Proc};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::Path;
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

/// Largest config.json that is read, in bytes.
const MAX: usize = 16 << 20;

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
            Kind::Inspect => of_engine(text(0)).into_iter().collect(),
            Kind::Crictl => of_cri(text(0), text(1)),
            Kind::Ctr => {
                of_tasks(text(0)).into_iter().filter_map(|(id, pid)| of_shim(&id, pid)).collect()
            }
            Kind::List => of_list(text(0)),
            Kind::State => of_runtime(text(0)).into_iter().collect(),
        }
    }

    /// The container that the user means.
    fn find(&self, word: &str, answers: Vec<String>) -> Result<Option<RunningContainer>> {
        let mut all = self.told(&answers);
        // What is inspected by its name is what the user means.
        if self.kind != Kind::Inspect {
            all = meant(word, all);
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
        let answer = ask::all(vec![question], PATIENCE).remove(0).and_then(text);
        let answer = answer.with_context(|| format!("{} inspect", self.line))?;
        let value: Value = serde_json::from_str(&answer).unwrap_or_default();
        target.pid = pid_at(&value, "/info/pid").with_context(|| {
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
    let mut answers = ask::all(questions.into_iter().flatten().collect(), PATIENCE).into_iter();
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

/// Those that the user calls so: by the whole name or ID, else by the beginning of the ID.
fn meant(word: &str, all: Vec<RunningContainer>) -> Vec<RunningContainer> {
    let is_exact = |t: &RunningContainer| {
        t.names.container_id == word
            || t.names.is_called(word) && !t.names.container_id.starts_with(word)
    };
    let (exact, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(is_exact);
    match exact.is_empty() {
        true => rest.into_iter().filter(|t| t.names.is_called(word)).collect(),
        false => exact,
    }
}

fn text_at(value: &Value, pointer: &str) -> Option<String> {
    Some(value.pointer(pointer)?.as_str()?.to_owned())
}

fn pid_at(value: &Value, pointer: &str) -> Option<i32> {
    i32::try_from(value.pointer(pointer)?.as_i64()?).ok()
}

fn of_engine(text: &str) -> Option<RunningContainer> {
    let v: Value = serde_json::from_str(text).ok()?;
    // podman 4 and nerdctl return an array.
    let v = if let Value::Array(all) = v { all.into_iter().next()? } else { v };
    let names = Names {
        container_id: text_at(&v, "/Id").or_else(|| text_at(&v, "/ID"))?,
        container_name: text_at(&v, "/Name").map(|n| n.trim_start_matches('/').to_owned()),
        image: text_at(&v, "/ImageName").or_else(|| text_at(&v, "/Config/Image")),
        ..Names::default()
    };
    Some(RunningContainer { names, pid: pid_at(&v, "/State/Pid")? })
}

/// The containers of `crictl ps`, with the names of their pods: those of the CRI, which are there
/// without a kubelet's labels too. Their processes are not known yet.
fn of_cri(containers: &str, pods: &str) -> Vec<RunningContainer> {
    let list = |text: &str, key: &str| match serde_json::from_str::<Value>(text) {
        Ok(value) => value.get(key).and_then(Value::as_array).cloned().unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let pods = list(pods, "items");
    let of = |c: &Value| {
        let sandbox = c.get("podSandboxId");
        let pod = pods.iter().find(|pod| sandbox.is_some() && pod.get("id") == sandbox);
        let pods = |pointer: &str| pod.and_then(|pod| text_at(pod, pointer));
        let label = |key: &str| Some(c.pointer("/labels")?.get(key)?.as_str()?.to_owned());
        let names = Names {
            container_id: text_at(c, "/id")?,
            container_name: text_at(c, "/metadata/name"),
            pod_name: pods("/metadata/name").or_else(|| label("io.kubernetes.pod.name")),
            pod_namespace: pods("/metadata/namespace")
                .or_else(|| label("io.kubernetes.pod.namespace")),
            image: text_at(c, "/image/userSpecifiedImage")
                .filter(|image| !image.is_empty())
                .or_else(|| text_at(c, "/image/image")),
        };
        Some(RunningContainer { names, pid: 0 })
    };
    list(containers, "containers").iter().filter_map(of).collect()
}

/// The IDs and processes in the output of `ctr tasks list`: TASK, PID, STATUS.
fn of_tasks(text: &str) -> Vec<(String, i32)> {
    let rows = text.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>());
    rows.filter_map(|row| match row.as_slice() {
        [id, pid, "RUNNING"] => Some(((*id).to_owned(), pid.parse().ok()?)),
        _ => None,
    })
    .collect()
}

/// A container of containerd's, with its names: the parent of its process is the shim, which works
/// in the bundle of the first container that it started. The others are beside that one. A pod's
/// sandbox is none.
fn of_shim(id: &str, pid: i32) -> Option<RunningContainer> {
    let cwd = || {
        let shim = Proc::open(Proc::open(pid).ok()?.status().ok()?.parent).ok()?;
        Some(Path::new(proc::os(&shim.link("cwd").ok()?)).with_file_name(id))
    };
    match cwd().and_then(|bundle| of_bundle(id, &bundle)) {
        Some(names) => names.map(|names| RunningContainer { names, pid }),
        None => {
            let names = Names { container_id: id.to_owned(), ..Names::default() };
            Some(RunningContainer { names, pid })
        }
    }
}

/// The names of a container with this bundle; the inner `None` for a sandbox.
fn of_bundle(id: &str, bundle: &Path) -> Option<Option<Names>> {
    #[derive(serde::Deserialize)]
    struct Only {
        annotations: Option<annotation::Annotations>,
    }
    let open = std::fs::File::open(bundle.join("config.json")).ok()?;
    let text = crate::sys::file::read_bounded(open, MAX, "config.json").ok()?;
    let all = serde_json::from_slice::<Only>(&text).ok()?.annotations.unwrap_or_default();
    Some(match annotation::is_sandbox(&all) {
        true => None,
        false => Some(Identity::at(id, &all, &text, bundle).names),
    })
}

/// The running containers of `runc list --format json`.
fn of_list(text: &str) -> Vec<RunningContainer> {
    let all: Value = serde_json::from_str(text).unwrap_or_default();
    let of = |v: &Value| {
        let found = running(v)?;
        let bundle = text_at(v, "/bundle").unwrap_or_default();
        match of_bundle(&found.names.container_id, Path::new(&bundle)) {
            Some(names) => Some(RunningContainer { names: names?, ..found }),
            None => Some(found),
        }
    };
    all.as_array().into_iter().flatten().filter_map(of).collect()
}

fn of_runtime(text: &str) -> Option<RunningContainer> {
    running(&serde_json::from_str(text).ok()?)
}

fn running(v: &Value) -> Option<RunningContainer> {
    let runs = matches!(v.get("status")?.as_str()?, "running" | "created");
    let names = Names { container_id: text_at(v, "/id")?, ..Names::default() };
    Some(RunningContainer { names, pid: pid_at(v, "/pid").filter(|_| runs)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(t: Option<RunningContainer>) -> Option<(String, String, i32)> {
        t.map(|t| (t.names.container_id, t.names.container_name.unwrap_or_default(), t.pid))
    }

    fn is(id: &str, name: &str, pid: i32) -> Option<(String, String, i32)> {
        Some((id.to_owned(), name.to_owned(), pid))
    }

    #[test]
    fn what_the_tools_say() {
        assert_eq!(
            told(of_engine(
                r#"{"Id":"ab","Name":"/web","State":{"Pid":7},"Config":{"Image":"x"}}"#
            )),
            is("ab", "web", 7)
        );
        assert_eq!(
            told(of_engine(
                "[\n  {\"Id\": \"ab\", \"Name\": \"web\", \"State\": {\"Pid\": 0}}\n]\n"
            )),
            is("ab", "web", 0)
        );
        let tasks = of_tasks("TASK PID STATUS\na 1 STOPPED\nb    12   RUNNING\n");
        assert_eq!(tasks, [("b".to_owned(), 12)]);
        let list =
            r#"[{"id":"r","pid":3,"status":"running"},{"id":"s","pid":0,"status":"stopped"}]"#;
        assert_eq!(of_list(list).into_iter().map(|t| t.pid).collect::<Vec<_>>(), [3]);
        assert_eq!(told(of_runtime(r#"{"id":"r","pid":3,"status":"running"}"#)), is("r", "", 3));
        assert_eq!(told(of_runtime(r#"{"id":"r","pid":0,"status":"stopped"}"#)), None);
        for text in ["", "x", "{}", "[]", "null"] {
            assert!(
                of_engine(text).is_none()
                    && of_cri(text, text).is_empty()
                    && of_runtime(text).is_none()
                    && of_list(text).is_empty()
                    && of_tasks(text).is_empty(),
                "{text}"
            );
        }
    }

    /// Two pods of a client that sets no labels, with a container of the same name each.
    #[test]
    fn names_of_the_cri() {
        let pods = r#"{"items":[{"id":"s1","metadata":{"name":"web-0","namespace":"shop"}},
            {"id":"s2","metadata":{"name":"web-1","namespace":"shop"}}]}"#;
        let containers = r#"{"containers":[
            {"id":"abc1","podSandboxId":"s1","metadata":{"name":"app"},"image":{"image":"i"}},
            {"id":"abc2","podSandboxId":"s2","metadata":{"name":"app"},"image":{"image":"i"}},
            {"id":"cde3","podSandboxId":"s2","metadata":{"name":"abc2"},"image":{"image":"i"}}]}"#;
        let ids = |word: &str| -> Vec<String> {
            let all = meant(word, of_cri(containers, pods));
            all.into_iter().map(|t| t.names.container_id).collect()
        };
        assert_eq!(ids("web-0/app"), ["abc1"]);
        assert_eq!(ids("shop/web-1/app"), ["abc2"]);
        assert_eq!(ids("app"), ["abc1", "abc2"]);
        assert_eq!(ids("ab"), ["abc1", "abc2"]);
        assert_eq!(ids("cd"), ["cde3"]);
        assert_eq!(ids("abc2"), ["abc2", "cde3"]);
        assert_eq!(ids("other/app"), Vec::<String>::new());
    }
}
