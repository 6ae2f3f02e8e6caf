//! What a hook is told: the state on stdin, config.json, its own variables.

use super::check::{Check, check, hold};
use super::life::Life;
use super::probe::{ANNOTATION, Sight};

const SUBJECT: &str = "state";
const ALL: [&str; 6] =
    ["prestart", "createRuntime 1", "createContainer", "startContainer", "poststart", "poststop"];

/// The checks.
pub fn checks(life: &Life) -> Vec<Check> {
    let bundle = life.bundle.to_string_lossy();
    vec![
        check(
            SUBJECT,
            "the state comes whole on stdin, and ends there",
            all(life, &ALL, |s| s.state.is_some()),
        ),
        check(SUBJECT, "id is the container's", all(life, &ALL, |s| text(s, "id") == life.id)),
        check(
            SUBJECT,
            "bundle is the absolute path of the bundle",
            all(
                life,
                &["prestart", "createRuntime 1", "createContainer", "poststart", "poststop"],
                |s| text(s, "bundle") == bundle,
            ),
        ),
        check(
            SUBJECT,
            "status is creating or created at createRuntime",
            status(life, "createRuntime 1", &["creating", "created"]),
        ),
        check(
            SUBJECT,
            "status is created or running at poststart",
            status(life, "poststart", &["created", "running"]),
        ),
        check(SUBJECT, "status is stopped at poststop", status(life, "poststop", &["stopped"])),
        check(
            SUBJECT,
            "pid at createRuntime is the container's, on the host",
            pid(life, "createRuntime 1"),
        ),
        check(SUBJECT, "pid at poststart is the same", pid(life, "poststart")),
        check(
            SUBJECT,
            "config.json in the bundle can be read, with its annotations",
            configs(life),
        ),
        check(
            SUBJECT,
            "annotations of the state, if there are any, are the container's",
            annotations(life),
        ),
        check(
            SUBJECT,
            "a hook's env arrives",
            all(life, &ALL, |s| s.variable.as_deref() == Some(life.id.as_str())),
        ),
    ]
}

fn text<'a>(sight: &'a Sight, key: &str) -> &'a str {
    sight.state.as_ref().and_then(|s| s[key].as_str()).unwrap_or_default()
}

/// Whether it holds in each of the stages; names those in which it does not.
fn all(life: &Life, stages: &[&str], holds: impl Fn(&Sight) -> bool) -> Result<String, String> {
    let not: Vec<String> = stages
        .iter()
        .filter_map(|stage| match life.of(stage) {
            Ok(sight) if holds(sight) => None,
            Ok(_) => Some(format!("not in {stage}")),
            Err(missing) => Some(missing),
        })
        .collect();
    hold(not.is_empty(), not.join(", "))
}

fn status(life: &Life, stage: &str, expected: &[&str]) -> Result<String, String> {
    let found = text(life.of(stage)?, "status");
    hold(
        expected.contains(&found),
        if found.is_empty() { "none".to_owned() } else { found.to_owned() },
    )
}

fn pid(life: &Life, stage: &str) -> Result<String, String> {
    let number = life.of(stage)?.state.as_ref().and_then(|s| s["pid"].as_i64());
    let expected = life.state["pid"].as_i64();
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

fn configs(life: &Life) -> Result<String, String> {
    all(life, &["createRuntime 1", "poststart", "poststop"], |s| {
        s.annotation.as_deref() == Some(life.id.as_str())
    })
}

fn annotations(life: &Life) -> Result<String, String> {
    match life.of("createRuntime 1")?.state.as_ref().and_then(|s| s["annotations"].as_object()) {
        None => Ok("there are none: read them from config.json".into()),
        Some(map) => hold(
            map.get(ANNOTATION).and_then(|v| v.as_str()) == Some(&life.id),
            if map.is_empty() { "none" } else { "" },
        ),
    }
}
