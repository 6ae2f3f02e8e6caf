//! Checks that a container does not start if a hook fails.

use super::bundle::ProbeBundle;
use super::check::{HookCheck, check};
use super::probe::observations;
use super::runtime::{ProbedContainer, RuntimeOutput};
use anyhow::Result;
use std::path::Path;
use std::time::{Duration, Instant};

const SUBJECT: &str = "refusal";
/// Seconds that a hook which never ends is given, and that the runtime may take to end it.
const TIMEOUT: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(10);

/// The checks, each with a container of its own.
pub(super) fn checks(runtime: &Path) -> Result<Vec<HookCheck>> {
    let refused = |said: RuntimeOutput, _: Duration| {
        if said.success { Err("create succeeded".to_owned()) } else { Ok(String::new()) }
    };
    let ended = |said: RuntimeOutput, took: Duration| match (said.success, took < PATIENCE) {
        (false, true) => Ok(String::new()),
        (false, false) => Err(format!("create took {} s", took.as_secs())),
        (true, _) => Err("create succeeded".into()),
    };
    Ok(vec![
        check(
            SUBJECT,
            "a createRuntime hook that fails stops the container",
            refusing(runtime, &["exit:3"], None, refused)?,
        ),
        check(
            SUBJECT,
            "a createRuntime hook that takes longer than its timeout stops the container",
            refusing(runtime, &["hang"], Some(TIMEOUT), ended)?,
        ),
    ])
}

fn refusing(
    runtime: &Path,
    actions: &[&str],
    timeout: Option<u64>,
    judge: impl Fn(RuntimeOutput, Duration) -> Result<String, String>,
) -> Result<Result<String, String>> {
    let mut bundle = ProbeBundle::new()?;
    let actions: Vec<String> = actions.iter().map(|d| (*d).to_owned()).collect();
    bundle.hook("createRuntime", "createRuntime", timeout, &actions);
    let before = Instant::now();
    let (container, said) = ProbedContainer::create(runtime, &bundle)?;
    let took = before.elapsed();
    let mut found = judge(said.clone(), took);
    // A runtime that ignores the failure may start the container all the same.
    if said.success {
        let started = container.start()?;
        if started.success {
            found = Err("the container starts".into());
        }
    }
    let seen = observations(&bundle.report());
    if seen.iter().any(|s| s.stage == "program") {
        found = Err("the program runs".into());
    } else if !seen.iter().any(|s| s.stage == "createRuntime") {
        found = Err("the hook did not run".into());
    }
    Ok(found)
}
