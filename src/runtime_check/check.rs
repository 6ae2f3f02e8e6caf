//! The result of checking one thing that a hook needs from a runtime.

use serde::Serialize;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckVerdict {
    /// The runtime does what is needed.
    Ok,
    /// The runtime does not do what is needed.
    Failed,
}

/// Something that a hook needs, and whether the runtime provides it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HookCheck {
    /// What it concerns, such as `order` or `limits`.
    pub subject: &'static str,
    /// What a hook needs, in words for the user.
    pub need: &'static str,
    /// Whether the runtime provides it.
    pub verdict: CheckVerdict,
    /// What was observed, in words; may be empty if the verdict is `Ok`.
    pub found: String,
}

/// Turns the result of a check into a [`HookCheck`].
pub(super) fn check(
    subject: &'static str,
    need: &'static str,
    found: Result<String, String>,
) -> HookCheck {
    let (verdict, found) = match found {
        Ok(found) => (CheckVerdict::Ok, found),
        Err(found) => (CheckVerdict::Failed, found),
    };
    HookCheck { subject, need, verdict, found }
}

/// `Ok` with `found` if the condition holds, else `Err` with it.
pub(super) fn hold(holds: bool, found: impl Into<String>) -> Result<String, String> {
    if holds { Ok(found.into()) } else { Err(found.into()) }
}
