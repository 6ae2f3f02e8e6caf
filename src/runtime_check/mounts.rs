//! Checks the mounts that a createRuntime hook makes in the container.

use super::check::{HookCheck, check, hold};
use super::lifecycle::Lifecycle;
use super::probe::Observation;

const SUBJECT: &str = "mounts";

/// The checks, on one container.
pub(super) fn checks(lifecycle: &Lifecycle) -> Vec<HookCheck> {
    let done = || {
        lifecycle.of("createRuntime 1").and_then(|s| hold(s.errors.is_empty(), s.errors.join("; ")))
    };
    let reads = |what: fn(&Observation) -> &Option<String>| {
        done().and_then(|_| lifecycle.of("program")).and_then(|s| match what(s) {
            Some(text) if text.trim_end() == lifecycle.id => Ok(String::new()),
            Some(_) => Err("the program reads something else there".into()),
            None => Err("the program finds nothing there".into()),
        })
    };
    vec![
        check(
            SUBJECT,
            "createRuntime can make a directory in a read-only root, and mount on it",
            done(),
        ),
        check(SUBJECT, "the program sees that mount", reads(|s| &s.volume)),
        check(
            SUBJECT,
            "a file mounted over one of /proc/sys stays, when /proc/sys becomes read-only",
            reads(|s| &s.view),
        ),
    ]
}
