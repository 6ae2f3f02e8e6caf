//! A need of a hook, and whether a runtime meets it.

use serde::Serialize;

/// What came of one need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The runtime does it.
    Ok,
    /// It does not.
    Failed,
}

/// One need of a hook, and whether the runtime meets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is about.
    pub subject: &'static str,
    /// What a hook needs.
    pub need: &'static str,
    /// Whether it has it.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
}

/// A need that is met, or not; with what was found.
pub fn check(subject: &'static str, need: &'static str, found: Result<String, String>) -> Check {
    let (verdict, found) = match found {
        Ok(found) => (Verdict::Ok, found),
        Err(found) => (Verdict::Failed, found),
    };
    Check { subject, need, verdict, found }
}

/// `found` where it holds.
pub fn hold(holds: bool, found: impl Into<String>) -> Result<String, String> {
    if holds { Ok(found.into()) } else { Err(found.into()) }
}
