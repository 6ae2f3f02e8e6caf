//! `enable` and `disable`: give a running container its own core pattern, and undo that. The
//! engine's own tool resolves a name to a process.

use crate::annotation::Annotations;
use crate::config::Config;
use crate::hook::live::{self, Target};
use crate::record::Names;
use crate::registry::check_id;
use crate::report::one_line;
use crate::sys::proc::Proc;
use crate::sys::process;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::Write;
use std::process::Command;

/// The tools that are asked without `--by`, in this order: podman and Docker before the runtimes
/// below them, since they know more names.
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

/// Enables a container's core pattern.
pub(super) fn run(
    out: &mut impl Write,
    container: Option<&str>,
    pid: Option<i32>,
    by: Option<&str>,
    wishes: &Annotations,
) -> Result<()> {
    need_root()?;
    let target = match (pid, container) {
        (Some(pid), name) => by_pid(pid, name)?,
        (None, Some(name)) => by_tool(name, by)?,
        (None, None) => bail!("expected a container or --pid"),
    };
    let notes = live::enable(&target, wishes, &Config::load()?)
        .with_context(|| format!("container {}", target.names.container_id))?;
    writeln!(
        out,
        "container {} has the core pattern {}",
        target.names.container_id,
        one_line(wishes.get("oci-coredump/pattern").map_or("", |p| p))
    )?;
    for note in notes {
        writeln!(out, "note: {}", one_line(&note))?;
    }
    Ok(())
}

/// Undoes [`run`] for a container.
pub(super) fn disable(out: &mut impl Write, word: &str) -> Result<()> {
    need_root()?;
    let id = live::find(word)?;
    live::disable(&id, &Config::load()?)?;
    writeln!(out, "container {id} is as it was before")?;
    Ok(())
}

fn by_pid(pid: i32, name: Option<&str>) -> Result<Target> {
    let id = match name {
        Some(name) => name.to_owned(),
        None => Proc::open(pid)
            .and_then(|p| p.cgroups())?
            .iter()
            .find_map(|g| id_of_group(&g.path))
            .unwrap_or_else(|| format!("pid-{pid}")),
    };
    check_id(&id)?;
    Ok(Target { names: Names { container_id: id, ..Names::default() }, pid })
}

/// The container's ID, if its engine named the cgroup after it:
/// `libpod-ID.scope`, `docker-ID.scope`, `ID`.
fn id_of_group(path: &[u8]) -> Option<String> {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let mut words = std::str::from_utf8(path).ok()?.split(['/', '-', '.', ':']);
    words.rfind(is_id).map(str::to_owned)
}

fn by_tool(name: &str, by: Option<&str>) -> Result<Target> {
    ensure!(!name.starts_with('-') && !name.is_empty(), "{name:?} is no container's name");
    let Some(command) = by else {
        let found = TOOLS.iter().find_map(|tool| ask(tool, name).ok());
        return found.with_context(|| {
            format!(
                "no tool knows a running container {name:?}: asked {}; name one with --by, or give \
                 --pid",
                TOOLS.join(", ")
            )
        });
    };
    ask(command, name)
}

/// Asks one tool. Its name determines how it is called; an unknown one is taken for an OCI runtime.
fn ask(command: &str, name: &str) -> Result<Target> {
    let mut words = command.split_whitespace();
    let program = words.next().context("--by names no command")?;
    let tool = program.rsplit('/').next().unwrap_or(program);
    let mut run = Command::new(program);
    run.args(words);
    match tool {
        "podman" | "docker" | "nerdctl" => {
            run.args(["container", "inspect", "--format", "{{json .}}", name])
        }
        "crictl" => run.args(["inspect", "--output", "json", name]),
        "ctr" => run.args(["tasks", "list"]),
        _ => run.args(["state", name]),
    };
    let output = run.output().with_context(|| format!("start {program}"))?;
    ensure!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("it failed")
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let told = match tool {
        "podman" | "docker" | "nerdctl" => of_engine(&text),
        "crictl" => of_cri(&text),
        "ctr" => of_tasks(&text, name),
        _ => of_runtime(&text),
    };
    let target = told
        .filter(|t| t.pid > 1)
        .with_context(|| format!("{command} knows no running container {name:?}"))?;
    check_id(&target.names.container_id)?;
    Ok(target)
}

fn text_at(value: &Value, pointer: &str) -> Option<String> {
    Some(value.pointer(pointer)?.as_str()?.to_owned())
}

fn pid_at(value: &Value, pointer: &str) -> Option<i32> {
    i32::try_from(value.pointer(pointer)?.as_i64()?).ok()
}

fn of_engine(text: &str) -> Option<Target> {
    let v: Value = serde_json::from_str(text).ok()?;
    // podman 4 and nerdctl return an array.
    let v = if let Value::Array(all) = v { all.into_iter().next()? } else { v };
    let names = Names {
        container_id: text_at(&v, "/Id").or_else(|| text_at(&v, "/ID"))?,
        container_name: text_at(&v, "/Name").map(|n| n.trim_start_matches('/').to_owned()),
        image: text_at(&v, "/ImageName").or_else(|| text_at(&v, "/Config/Image")),
        ..Names::default()
    };
    Some(Target { names, pid: pid_at(&v, "/State/Pid")? })
}

fn of_cri(text: &str) -> Option<Target> {
    let v: Value = serde_json::from_str(text).ok()?;
    let label = |key: &str| Some(v.pointer("/status/labels")?.get(key)?.as_str()?.to_owned());
    let names = Names {
        container_id: text_at(&v, "/status/id")?,
        container_name: text_at(&v, "/status/metadata/name"),
        pod_name: label("io.kubernetes.pod.name"),
        pod_namespace: label("io.kubernetes.pod.namespace"),
        image: text_at(&v, "/status/image/image"),
    };
    Some(Target { names, pid: pid_at(&v, "/info/pid")? })
}

/// Finds the container in the output of `ctr tasks list`: TASK, PID, STATUS.
fn of_tasks(text: &str, name: &str) -> Option<Target> {
    let mut rows = text.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|r| r.first() == Some(&name) && r.get(2) == Some(&"RUNNING"))?;
    Some(Target {
        names: Names { container_id: name.to_owned(), ..Names::default() },
        pid: row[1].parse().ok()?,
    })
}

fn of_runtime(text: &str) -> Option<Target> {
    let v: Value = serde_json::from_str(text).ok()?;
    let runs = matches!(v.get("status")?.as_str()?, "running" | "created");
    let names = Names { container_id: text_at(&v, "/id")?, ..Names::default() };
    Some(Target { names, pid: pid_at(&v, "/pid").filter(|_| runs)? })
}

fn need_root() -> Result<()> {
    ensure!(
        process::is_host_root(),
        "only root of the host may do it; run it with sudo, outside of any container"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_say() {
        let told = |t: Option<Target>| {
            t.map(|t| (t.names.container_id, t.names.container_name.unwrap_or_default(), t.pid))
        };
        let is = |id: &str, name: &str, pid| Some((id.to_owned(), name.to_owned(), pid));
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
        let cri = r#"{"status":{"id":"c","metadata":{"name":"app"},
            "labels":{"io.kubernetes.pod.name":"p-0"}},"info":{"pid":9}}"#;
        assert_eq!(of_cri(cri).unwrap().names.pod_name.as_deref(), Some("p-0"));
        assert_eq!(told(of_cri(cri)), is("c", "app", 9));
        assert_eq!(
            told(of_tasks("TASK PID STATUS\na 1 STOPPED\nb    12   RUNNING\n", "b")),
            is("b", "", 12)
        );
        assert_eq!(told(of_tasks("TASK PID STATUS\na 5 STOPPED\n", "a")), None);
        assert_eq!(told(of_runtime(r#"{"id":"r","pid":3,"status":"running"}"#)), is("r", "", 3));
        assert_eq!(told(of_runtime(r#"{"id":"r","pid":0,"status":"stopped"}"#)), None);
        for text in ["", "x", "{}", "[]"] {
            assert!(
                of_engine(text).is_none()
                    && of_cri(text).is_none()
                    && of_runtime(text).is_none()
                    && of_tasks(text, "x").is_none(),
                "{text}"
            );
        }
    }

    #[test]
    fn ids_in_groups() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/machine.slice/libpod-{id}.scope"),
            format!("/docker/{id}"),
            format!("/kubepods/pod1/cri-containerd:x:{id}"),
        ] {
            assert_eq!(id_of_group(path.as_bytes()).as_deref(), Some(id.as_str()), "{path}");
        }
        assert_eq!(id_of_group(b"/user.slice"), None);
    }
}
