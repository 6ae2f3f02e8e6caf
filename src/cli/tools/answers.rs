//! What the tools of the engines print: the running containers in it.

use crate::annotation;
use crate::container_identity::ContainerIdentity;
use crate::hook::running_container::RunningContainer;
use crate::record::Names;
use crate::sys::proc::{self, Proc};
use serde_json::Value;
use std::path::Path;

/// Largest config.json that is read, in bytes.
const MAX: usize = 16 << 20;

fn text_at(value: &Value, pointer: &str) -> Option<String> {
    Some(value.pointer(pointer)?.as_str()?.to_owned())
}

fn pid_at(value: &Value, pointer: &str) -> Option<i32> {
    i32::try_from(value.pointer(pointer)?.as_i64()?).ok()
}

pub(super) fn of_engine(text: &str) -> Option<RunningContainer> {
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
pub(super) fn of_cri(containers: &str, pods: &str) -> Vec<RunningContainer> {
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
pub(super) fn of_tasks(text: &str) -> Vec<(String, i32)> {
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
pub(super) fn of_shim(id: &str, pid: i32) -> Option<RunningContainer> {
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
    let open = std::fs::File::open(bundle.join("config.json")).ok()?;
    let text = crate::sys::file::read_bounded(open, MAX, "config.json").ok()?;
    let all = annotation::of_config_json(&text).ok()?;
    Some(match annotation::is_sandbox(&all) {
        true => None,
        false => Some(ContainerIdentity::at(id, &all, &text, bundle).names),
    })
}

/// The running containers of `runc list --format json`.
pub(super) fn of_list(text: &str) -> Vec<RunningContainer> {
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

pub(super) fn of_runtime(text: &str) -> Option<RunningContainer> {
    running(&serde_json::from_str(text).ok()?)
}

fn running(v: &Value) -> Option<RunningContainer> {
    let runs = matches!(v.get("status")?.as_str()?, "running" | "created");
    let names = Names { container_id: text_at(v, "/id")?, ..Names::default() };
    Some(RunningContainer { names, pid: pid_at(v, "/pid").filter(|_| runs)? })
}

/// Those that the user calls so: by the whole name or ID, else by the beginning of the ID.
pub(super) fn meant(word: &str, all: Vec<RunningContainer>) -> Vec<RunningContainer> {
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

/// The process of a container in the answer of `crictl inspect`.
pub(super) fn of_inspect(text: &str) -> Option<i32> {
    pid_at(&serde_json::from_str(text).ok()?, "/info/pid")
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
