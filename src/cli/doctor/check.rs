//! The result of one check.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it is to be.
    Ok,
    /// Cores may be lost.
    Warning,
    /// Cores are lost.
    Failure,
}

/// What was looked at, and what to do about it.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    /// What was looked at, in a word or two.
    pub check: &'static str,
    pub verdict: Verdict,
    pub text: String,
    pub hint: Option<String>,
}

/// A check that found nothing wrong.
pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Check {
    Check { check, verdict: Verdict::Ok, text: text.into(), hint: None }
}

/// A check with a warning.
pub(super) fn warning(check: &'static str, text: impl Into<String>, hint: &str) -> Check {
    Check { check, verdict: Verdict::Warning, text: text.into(), hint: Some(hint.into()) }
}

pub(super) fn failure(check: &'static str, text: impl Into<String>, hint: &str) -> Check {
    Check { check, verdict: Verdict::Failure, text: text.into(), hint: Some(hint.into()) }
}
