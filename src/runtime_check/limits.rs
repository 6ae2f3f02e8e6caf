//! Checks whether a hook can set the container's limits.

use super::bundle::ProbeBundle;
use super::check::{HookCheck, check, hold};
use super::lifecycle::{LIMIT, Lifecycle};
use super::probe::core_of;
use super::runtime::ProbedContainer;
use anyhow::Result;
use serde_json::json;
use std::path::Path;

const SUBJECT: &str = "limits";

/// The checks. One of them starts a container of its own.
pub(super) fn checks(lifecycle: &Lifecycle, runtime: &Path) -> Result<Vec<HookCheck>> {
    let kept = lifecycle.of("program").and_then(|s| hold(s.core == Some(LIMIT), found(s.core)));
    Ok(vec![
        check(
            SUBJECT,
            "RLIMIT_CORE that createRuntime sets is the program's, where config.json has none",
            kept,
        ),
        check(
            SUBJECT,
            "RLIMIT_CORE that poststart sets is the program's, where config.json has one",
            poststart(runtime)?,
        ),
    ])
}

fn found(core: Option<u64>) -> String {
    match core {
        Some(LIMIT) => String::new(),
        Some(u64::MAX) => "it is unlimited".into(),
        Some(other) => format!("it is {other}"),
        None => "it could not be read".into(),
    }
}

fn poststart(runtime: &Path) -> Result<Result<String, String>> {
    let mut bundle = ProbeBundle::new()?;
    bundle.config["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_CORE", "soft": LIMIT / 2, "hard": LIMIT }]);
    bundle.hook("poststart", "poststart", None, &[format!("limit:{LIMIT}")]);
    let (container, said) = ProbedContainer::create(runtime, &bundle)?;
    if !said.success {
        return Ok(Err(said.text));
    }
    let pid =
        container.state()?.and_then(|s| s["pid"].as_i64()).and_then(|p| i32::try_from(p).ok());
    let said = container.start()?;
    if !said.success {
        return Ok(Err(said.text));
    }
    let runs = container.wait_for_program()?;
    let Some(pid) = pid.filter(|_| runs) else { return Ok(Err("the program did not run".into())) };
    let core = core_of(pid).ok();
    Ok(hold(core == Some(LIMIT), found(core)))
}
