//! Configures podman, which reads hooks.d by itself.

use super::change::{Change, EngineChanges};
use super::hooks_dir;
use super::options::Program;
use anyhow::Result;
use std::path::Path;

/// Plans the changes of `install podman`.
pub(crate) fn plan(config: &Path, program: &Program) -> Result<EngineChanges> {
    let mut plan = EngineChanges::default();
    let drop_ins = config.with_file_name("containers.conf.d");
    hooks_dir::add_hook_file(&mut plan, program)?;
    let files =
        hooks_dir::files(&[Path::new("/usr/share/containers/containers.conf"), config], &drop_ins)?;
    let ours = hooks_dir::own_file(&drop_ins, "oci-coredump.conf", &files, &["engine"])?;
    if let Some(text) = hooks_dir::drop_in(hooks_dir::in_force(&files, &["engine"])?, "engine") {
        plan.add(Change::file(&ours, text)?);
    }
    Ok(plan)
}
