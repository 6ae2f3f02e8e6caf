//! Configures podman, which reads hooks.d by itself. The precreate hook, which sets RLIMIT_CORE
//! before the runtime starts, is in a directory of its own: CRI-O refuses to start when it finds
//! that stage in the directory that they share.

use super::change::{Change, EngineChanges};
use super::options::{Options, Program};
use super::{hooks_dir, spec};
use anyhow::Result;
use serde_json::json;
use std::path::Path;

/// The directory of the precreate hook.
pub const PRECREATE: &str = "/etc/oci-coredump/podman-hooks.d";

/// The hooks.d file of the precreate hook. It applies to every container, since the program decides
/// which ones request a pattern, taking the default pattern into account.
pub fn precreate_file(program: &str) -> Result<String> {
    let hook = json!({
        "version": "1.0.0",
        "hook": {
            "path": program, "args": ["oci-coredump", "hook", "precreate"],
            "timeout": spec::HOOK_TIMEOUT,
        },
        "when": {"always": true},
        "stages": ["precreate"],
    });
    Ok(serde_json::to_string_pretty(&hook)? + "\n")
}

/// Plans the changes of `install podman`.
pub fn plan(config: &Path, options: &Options, program: &Program) -> Result<EngineChanges> {
    let mut plan = EngineChanges::default();
    let drop_ins = config.with_file_name("containers.conf.d");
    hooks_dir::add_hook_file(&mut plan, program)?;
    let mut wanted = vec![hooks_dir::STANDARD];
    if options.precreate {
        plan.add(Change::file(
            &Path::new(PRECREATE).join("oci-coredump.json"),
            precreate_file(program.text()?)?,
        )?);
        wanted.push(PRECREATE);
    }
    let files =
        hooks_dir::files(&[Path::new("/usr/share/containers/containers.conf"), config], &drop_ins)?;
    let ours = hooks_dir::own_file(&drop_ins, "oci-coredump.conf", &files, &["engine"])?;
    if let Some(text) =
        hooks_dir::drop_in(hooks_dir::in_force(&files, &["engine"])?, &wanted, "engine")
    {
        plan.add(Change::file(&ours, text)?);
    }
    Ok(plan)
}
