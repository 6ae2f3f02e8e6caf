//! `verify`: does an OCI runtime do for its hooks what a hook like ours needs?
//!
//! ```text
//! runtime --lifecycle--> Lifecycle --order, state, namespaces, mounts, limits--> HookCheck
//!    |  (one container, its hooks and program are this program: each writes what it sees)
//!    '----refuse, limits: containers of their own----> HookCheck
//! ```
//!
//! Nothing here reads what the runtime says of itself: what counts is what its
//! hooks and its container saw.

mod bundle;
mod check;
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
use std::path::Path;

pub(crate) use check::{CheckVerdict, HookCheck};
pub(crate) use probe::{ProbeAction, probe};

/// Checks a runtime: starts and removes a few containers with it, in a scratch directory.
/// Only for root of the host.
///
/// # Errors
/// The runtime cannot be started at all, or the scratch directory cannot be made.
pub(crate) fn run(runtime: &Path) -> Result<Vec<HookCheck>> {
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
