//! Checks when the hooks run.

use super::check::{HookCheck, check, hold};
use super::lifecycle::Lifecycle;

const SUBJECT: &str = "order";

/// The checks, on one container.
pub(super) fn checks(lifecycle: &Lifecycle) -> Vec<HookCheck> {
    let [created, started, programmed] = lifecycle.marks;
    let place = |stage: &str| lifecycle.place(stage);
    let during_create = |stage: &str| {
        place(stage).and_then(|at| {
            hold(at < created, if at < created { "" } else { "it ran after create had returned" })
        })
    };
    let before = |a: &str, b: &str| {
        Ok(()).and_then(|()| {
            hold(
                place(a)? < place(b)?,
                format!("{a} ran {} {b}", if place(a)? < place(b)? { "before" } else { "after" }),
            )
        })
    };
    let names: Vec<&str> = lifecycle.observations.iter().map(|s| s.stage.as_str()).collect();
    let twice: Vec<&str> = names
        .iter()
        .enumerate()
        .filter(|(i, n)| names[..*i].contains(n))
        .map(|(_, n)| *n)
        .collect();
    vec![
        check(
            SUBJECT,
            "create, start, kill and delete succeed with a hook in every stage",
            hold(lifecycle.trouble.is_empty(), lifecycle.trouble.join("; ")),
        ),
        check(
            SUBJECT,
            "createRuntime has run when create returns",
            during_create("createRuntime 1"),
        ),
        check(
            SUBJECT,
            "hooks of one stage run in the listed order",
            before("createRuntime 1", "createRuntime 2").map(drop_text),
        ),
        check(
            SUBJECT,
            "prestart runs before createRuntime",
            before("prestart", "createRuntime 1").map(drop_text),
        ),
        check(
            SUBJECT,
            "createContainer runs after createRuntime, in create",
            before("createRuntime 2", "createContainer")
                .and_then(|_| during_create("createContainer")),
        ),
        check(
            SUBJECT,
            "startContainer runs in start, before the program",
            before("startContainer", "program").and_then(|_| {
                let at = place("startContainer")?;
                hold(at >= created, if at >= created { "" } else { "it ran in create" })
            }),
        ),
        check(
            SUBJECT,
            "poststart has run when start returns",
            poststart(lifecycle, created, started),
        ),
        check(
            SUBJECT,
            "poststop runs in delete",
            place("poststop").and_then(|at| {
                hold(
                    at >= programmed,
                    if at >= programmed { "" } else { "it ran before the container was deleted" },
                )
            }),
        ),
        check(SUBJECT, "no hook runs twice", hold(twice.is_empty(), twice.join(", "))),
    ]
}

fn drop_text(_: String) -> String {
    String::new()
}

/// runc up to 1.5.1 runs poststart at the end of create. That is earlier than the specification
/// says, but does no harm to a hook that sets limits.
fn poststart(lifecycle: &Lifecycle, created: usize, started: usize) -> Result<String, String> {
    let at = lifecycle.place("poststart")?;
    if at >= started {
        return Err("it ran after start had returned".into());
    }
    Ok(match lifecycle.place("program") {
        _ if at < created => "at the end of create, not in start as the specification has it",
        Ok(program) if program < at => "after the program had started",
        _ => "before the program had written anything",
    }
    .to_owned())
}
