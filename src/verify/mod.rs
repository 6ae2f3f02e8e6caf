//! `verify`: does an OCI runtime do for its hooks what a hook like ours needs?
//!
//! ```text
//! runtime --lifecycle--> Lifecycle --order, state, namespaces, mounts, limits--> Check
//!    |  (one container, its hooks and program are this program: each writes what it sees)
//!    '----refuse, limits: containers of their own----> Check
//! ```
//!
//! Nothing here reads what the runtime says of itself: what counts is what its
//! hooks and its container saw.

mod bundle;
mod lifecycle;
mod limits;
mod mounts;
mod namespaces;
mod order;
mod probe;
mod refuse;
mod runtime;
mod state;

use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;

pub use probe::{Action, Observation, probe};

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The runtime does what is needed.
    Ok,
    /// It does not.
    Failed,
}

/// Something that a hook needs, and whether the runtime provides it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it concerns, such as `order` or `limits`.
    pub subject: &'static str,
    /// What a hook needs.
    pub need: &'static str,
    /// Whether the runtime provides it.
    pub verdict: Verdict,
    /// What was observed.
    pub found: String,
}

/// Turns the result of a check into a [`Check`].
fn check(subject: &'static str, need: &'static str, found: Result<String, String>) -> Check {
    let (verdict, found) = match found {
        Ok(found) => (Verdict::Ok, found),
        Err(found) => (Verdict::Failed, found),
    };
    Check { subject, need, verdict, found }
}

/// `Ok` with `found` if the condition holds, else `Err` with it.
fn hold(holds: bool, found: impl Into<String>) -> Result<String, String> {
    if holds { Ok(found.into()) } else { Err(found.into()) }
}

/// Checks a runtime: starts and removes a few containers with it, in a scratch directory.
/// Only for root of the host.
///
/// # Errors
/// The runtime cannot be started at all, or the scratch directory cannot be made.
pub fn run(runtime: &Path) -> Result<Vec<Check>> {
    let runtime =
        std::fs::canonicalize(runtime).with_context(|| format!("runtime {}", runtime.display()))?;
    let lifecycle = lifecycle::live(&runtime)?;
    let mut checks = order::checks(&lifecycle);
    checks.extend(state::checks(&lifecycle));
    checks.extend(namespaces::checks(&lifecycle));
    checks.extend(mounts::checks(&lifecycle));
    checks.extend(limits::checks(&lifecycle, &runtime)?);
    checks.extend(refuse::checks(&runtime)?);
    Ok(checks)
}
