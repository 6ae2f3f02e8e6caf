//! The life of one container with a hook in every stage, and what all of them saw.

use super::bundle::Bundle;
use super::probe::{Sight, own_namespaces, sights};
use super::runtime::{Container, Said};
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The soft RLIMIT_CORE that the createRuntime hook sets, in bytes: no one's default.
pub const LIMIT: u64 = 0x12_3000;

/// What there is to judge.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Life {
    /// The container's ID; the annotation, the hooks' variable, and the texts that
    /// are mounted say the same.
    pub id: String,
    /// Absolute.
    pub bundle: PathBuf,
    /// Of this process: the runtime's.
    pub own: Sight,
    /// What `state` said between create and start.
    pub state: Value,
    /// How many lines there were when create had returned, when start had, and when the
    /// program had written its own.
    pub marks: [usize; 3],
    /// All of it, in the order in which it was written.
    pub sights: Vec<Sight>,
    /// /proc/PID/cgroup of the running program.
    pub cgroup: String,
    /// Calls that failed.
    pub trouble: Vec<String>,
}

impl Life {
    /// What the hook of this name saw; the first time, if it ran more than once.
    pub fn of(&self, stage: &str) -> Result<&Sight, String> {
        self.sights.iter().find(|s| s.stage == stage).ok_or_else(|| format!("{stage} did not run"))
    }

    /// Where in the report it stands.
    pub fn place(&self, stage: &str) -> Result<usize, String> {
        self.sights
            .iter()
            .position(|s| s.stage == stage)
            .ok_or_else(|| format!("{stage} did not run"))
    }
}

/// Runs it.
pub fn live(runtime: &Path) -> Result<Life> {
    let mut bundle = Bundle::new()?;
    let volume = bundle.path("volume");
    for (stage, name, deeds) in [
        ("prestart", "prestart", vec![]),
        (
            "createRuntime",
            "createRuntime 1",
            vec![format!("mount:{}", volume.display()), format!("limit:{LIMIT}")],
        ),
        ("createRuntime", "createRuntime 2", vec![]),
        ("createContainer", "createContainer", vec![]),
        ("startContainer", "startContainer", vec![]),
        ("poststart", "poststart", vec![]),
        ("poststop", "poststop", vec![]),
    ] {
        bundle.hook(stage, name, None, &deeds);
    }
    let own = Sight { namespaces: own_namespaces(), ..Sight::default() };
    let mut life =
        Life { id: bundle.id.clone(), bundle: bundle.path("bundle"), own, ..Life::default() };
    let (container, said) = Container::create(runtime, &bundle)?;
    let note = |said: Said, life: &mut Life| {
        life.trouble.extend((!said.success).then_some(said.text));
        said.success
    };
    let count = || sights(&bundle.report()).len();
    if note(said, &mut life) {
        life.marks[0] = count();
        life.state = container.state()?.unwrap_or_default();
        let started = note(container.start()?, &mut life);
        life.marks[1] = count();
        if started && !container.wait_for_program()? {
            life.trouble.push("the program did not run".into());
        }
        life.marks[2] = count();
        life.cgroup = cgroup(&life.state).unwrap_or_default();
        note(container.kill()?, &mut life);
        if !container.wait_until_stopped()? {
            life.trouble.push("the container did not stop after SIGKILL".into());
        }
        note(container.delete()?, &mut life);
    }
    life.sights = sights(&bundle.report());
    Ok(life)
}

fn cgroup(state: &Value) -> Result<String> {
    let pid = state["pid"].as_i64().context("no pid")?;
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).context("cgroup")
}
