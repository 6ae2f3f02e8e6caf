//! `verify`: does an OCI runtime do for its hooks what a hook like ours needs?
//!
//! ```text
//! runtime --life--> Life --order, state, namespaces, mounts, limits--> Check
//!    |  (one container, its hooks and program are this program: each writes what it sees)
//!    '----refuse, limits: containers of their own----> Check
//! ```
//!
//! Nothing here reads what the runtime says of itself: what counts is what its hooks and its container saw.

mod bundle;
mod check;
mod life;
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

pub use check::{Check, Verdict};
pub use probe::{Deed, Sight, probe};

/// Checks a runtime: starts and removes a few containers with it, in a scratch directory of its own. Root of the host only.
///
/// # Errors
/// The runtime cannot be started at all, or the scratch directory cannot be made.
pub fn run(runtime: &Path) -> Result<Vec<Check>> {
    let runtime =
        std::fs::canonicalize(runtime).with_context(|| format!("runtime {}", runtime.display()))?;
    let life = life::live(&runtime)?;
    let mut checks = order::checks(&life);
    checks.extend(state::checks(&life));
    checks.extend(namespaces::checks(&life));
    checks.extend(mounts::checks(&life));
    checks.extend(limits::checks(&life, &runtime)?);
    checks.extend(refuse::checks(&runtime)?);
    Ok(checks)
}
