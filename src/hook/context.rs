//! What the steps of a plan, and their undo, work on.

use crate::config::Config;
use crate::registry::{InitProcess, Registry};
use crate::sys::proc::Proc;
use crate::sys::user::RunBy;

/// A container, and what its changes are recorded in.
pub(super) struct HookContext<'a> {
    pub registry: &'a Registry,
    pub config: &'a Config,
    /// The user whose hook this is.
    pub run_by: RunBy,
    pub id: &'a str,
    /// The container's first process, by its directory in /proc.
    pub process: Proc,
    /// What the dispatcher knows that process by.
    pub init: InitProcess,
    /// The processes whose settings are changed.
    pub targets: Targets,
}

/// The processes that a setting is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Targets {
    /// The first one, of a container that is about to start. The others inherit.
    Init,
    /// All of a container that runs.
    All,
}
