//! CRI-O: it reads hooks.d by itself; where the administrator has set other directories, a drop-in adds the standard one to them.
//!
//! A value of a later drop-in replaces the earlier ones, lists included (crio.conf.d(5)), so ours repeats the list that is in force.

use super::change::{Change, Plan};
use super::{Program, hooks_dir};
use anyhow::Result;
use std::path::Path;

const TABLE: &str = "crio.runtime";

/// What installing does.
pub fn plan(config: &Path, program: &Program) -> Result<Plan> {
    let mut plan = Plan::default();
    let drop_ins = config.with_file_name("crio.conf.d");
    let ours = drop_ins.join("99-oci-coredump.conf");
    hooks_dir::add_hook_file(&mut plan, program)?;
    let files = hooks_dir::files(&[config], &drop_ins, &ours)?;
    let in_force = hooks_dir::in_force(&files, &["crio", "runtime"])?;
    if let Some(text) = hooks_dir::drop_in(in_force, &[hooks_dir::STANDARD], TABLE) {
        plan.add(Change::file(&ours, text)?);
        plan.notes.push("`systemctl restart crio` makes the directory known; running containers go on".into());
    }
    Ok(plan)
}
