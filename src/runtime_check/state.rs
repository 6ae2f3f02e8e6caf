//! Checks what is passed to a hook: the state on stdin, config.json, its environment variable.

use super::check::{HookCheck, check, hold};
use super::lifecycle::Lifecycle;
use super::probe::{ANNOTATION, Observation};

const SUBJECT: &str = "state";
const ALL: [&str; 6] =
    ["prestart", "createRuntime 1", "createContainer", "startContainer", "poststart", "poststop"];

/// The checks, on one container.
pub(super) fn checks(lifecycle: &Lifecycle) -> Vec<HookCheck> {
    let bundle = lifecycle.bundle.to_string_lossy();
    vec![
        check(
            SUBJECT,
            "the state comes whole on stdin, and ends there",
            all(lifecycle, &ALL, |s| s.state.is_some()),
        ),
        check(
            SUBJECT,
            "id is the container's",
            all(lifecycle, &ALL, |s| text(s, "id") == lifecycle.id),
        ),
        check(
            SUBJECT,
            "bundle is the absolute path of the bundle",
            all(
                lifecycle,
                &["prestart", "createRuntime 1", "createContainer", "poststart", "poststop"],
                |s| text(s, "bundle") == bundle,
            ),
        ),
        check(
            SUBJECT,
            "status is creating or created at createRuntime",
            status(lifecycle, "createRuntime 1", &["creating", "created"]),
        ),
        check(
            SUBJECT,
            "status is created or running at poststart",
            status(lifecycle, "poststart", &["created", "running"]),
        ),
        check(
            SUBJECT,
            "status is stopped at poststop",
            status(lifecycle, "poststop", &["stopped"]),
        ),
        check(
            SUBJECT,
            "pid at createRuntime is the container's, on the host",
            pid(lifecycle, "createRuntime 1"),
        ),
        check(SUBJECT, "pid at poststart is the same", pid(lifecycle, "poststart")),
        check(
            SUBJECT,
            "config.json in the bundle can be read, with its annotations",
            configs(lifecycle),
        ),
        check(
            SUBJECT,
            "annotations of the state, if there are any, are the container's",
            annotations(lifecycle),
        ),
        check(
            SUBJECT,
            "a hook's env arrives",
            all(lifecycle, &ALL, |s| s.variable.as_deref() == Some(lifecycle.id.as_str())),
        ),
    ]
}

fn text<'a>(observation: &'a Observation, key: &str) -> &'a str {
    observation.state.as_ref().and_then(|s| s[key].as_str()).unwrap_or_default()
}

/// Whether a condition holds in each of the stages; names those in which it does not.
fn all(
    lifecycle: &Lifecycle,
    stages: &[&str],
    holds: impl Fn(&Observation) -> bool,
) -> Result<String, String> {
    let not: Vec<String> = stages
        .iter()
        .filter_map(|stage| match lifecycle.of(stage) {
            Ok(observation) if holds(observation) => None,
            Ok(_) => Some(format!("not in {stage}")),
            Err(missing) => Some(missing),
        })
        .collect();
    hold(not.is_empty(), not.join(", "))
}

fn status(lifecycle: &Lifecycle, stage: &str, expected: &[&str]) -> Result<String, String> {
    let found = text(lifecycle.of(stage)?, "status");
    hold(
        expected.contains(&found),
        if found.is_empty() { "none".to_owned() } else { found.to_owned() },
    )
}

fn pid(lifecycle: &Lifecycle, stage: &str) -> Result<String, String> {
    let number = lifecycle.of(stage)?.state.as_ref().and_then(|s| s["pid"].as_i64());
    let expected = lifecycle.state["pid"].as_i64();
    let same = number.is_some() && number == expected;
    hold(
        same,
        if same {
            String::new()
        } else {
            format!("the hook is told {number:?}, `state` says {expected:?}")
        },
    )
}

fn configs(lifecycle: &Lifecycle) -> Result<String, String> {
    all(lifecycle, &["createRuntime 1", "poststart", "poststop"], |s| {
        s.annotation.as_deref() == Some(lifecycle.id.as_str())
    })
}

fn annotations(lifecycle: &Lifecycle) -> Result<String, String> {
    match lifecycle.of("createRuntime 1")?.state.as_ref().and_then(|s| s["annotations"].as_object())
    {
        None => Ok("there are none: read them from config.json".into()),
        Some(map) => hold(
            map.get(ANNOTATION).and_then(|v| v.as_str()) == Some(&lifecycle.id),
            if map.is_empty() { "none" } else { "" },
        ),
    }
}
