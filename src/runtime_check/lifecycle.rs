//! Runs one container through its lifecycle with a hook in every stage, and
//! collects what they observe.

use super::bundle::ProbeBundle;
use super::probe::{Observation, observations, own_namespaces};
use super::runtime::{ProbedContainer, RuntimeOutput};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The soft RLIMIT_CORE that the createRuntime hook sets, in bytes: a value that is no default.
pub(super) const LIMIT: u64 = 0x12_3000;

/// The observations of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lifecycle {
    /// The container's ID. The annotation, the hooks' variable and the mounted
    /// texts have the same value.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Of this process: the runtime's.
    pub own: Observation,
    /// The output of `state` between create and start.
    pub state: Value,
    /// How many lines the report had when create had returned, when start had returned, and when
    /// the program had written its own.
    pub marks: [usize; 3],
    /// All of it, in the order in which it was written.
    pub observations: Vec<Observation>,
    /// /proc/PID/cgroup of the running program.
    pub cgroup: String,
    /// Calls of the runtime that failed.
    pub trouble: Vec<String>,
}

impl Lifecycle {
    /// What the hook of this name saw; the first time, if it ran more than once.
    pub(super) fn of(&self, stage: &str) -> Result<&Observation, String> {
        self.observations
            .iter()
            .find(|s| s.stage == stage)
            .ok_or_else(|| format!("{stage} did not run"))
    }

    /// Its position in the report.
    pub(super) fn place(&self, stage: &str) -> Result<usize, String> {
        self.observations
            .iter()
            .position(|s| s.stage == stage)
            .ok_or_else(|| format!("{stage} did not run"))
    }
}

/// Creates, starts, kills and deletes the container.
///
/// # Errors
/// The runtime cannot be executed, or makes no container. Any other call of the runtime that fails
/// is no error here: it is noted in [`Lifecycle::trouble`].
pub(super) fn live(runtime: &Path) -> Result<Lifecycle> {
    let mut bundle = ProbeBundle::new()?;
    let volume = bundle.path("volume");
    for (stage, name, actions) in [
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
        bundle.hook(stage, name, None, &actions);
    }
    let own = Observation { namespaces: own_namespaces(), ..Observation::default() };
    let mut lifecycle = Lifecycle {
        id: bundle.id.clone(),
        bundle: bundle.path("bundle"),
        own,
        ..Lifecycle::default()
    };
    let (container, said) = ProbedContainer::create(runtime, &bundle)?;
    if observations(&bundle.report()).is_empty() && container.state()?.is_none() {
        ensure!(said.success, "there is no container: {}", said.text);
        bail!(
            "create did nothing: it exited with status 0, but no hook ran, and there is no \
             container {}; is {} an OCI runtime?",
            bundle.id,
            runtime.display()
        );
    }
    let note = |said: RuntimeOutput, lifecycle: &mut Lifecycle| {
        lifecycle.trouble.extend((!said.success).then_some(said.text));
        said.success
    };
    let count = || observations(&bundle.report()).len();
    if note(said, &mut lifecycle) {
        lifecycle.marks[0] = count();
        lifecycle.state = container.state()?.unwrap_or_default();
        let started = note(container.start()?, &mut lifecycle);
        lifecycle.marks[1] = count();
        if started && !container.wait_for_program()? {
            lifecycle.trouble.push("the program did not run".into());
        }
        lifecycle.marks[2] = count();
        lifecycle.cgroup = cgroup(&lifecycle.state).unwrap_or_default();
        note(container.kill()?, &mut lifecycle);
        if !container.wait_until_stopped()? {
            lifecycle.trouble.push("the container did not stop after SIGKILL".into());
        }
        note(container.delete()?, &mut lifecycle);
    }
    lifecycle.observations = observations(&bundle.report());
    Ok(lifecycle)
}

fn cgroup(state: &Value) -> Result<String> {
    let pid = state["pid"].as_i64().context("no pid")?;
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).context("cgroup")
}
