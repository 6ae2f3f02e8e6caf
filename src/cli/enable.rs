//! `enable` and `disable`: give a running container its own core pattern, and undo that.

use super::tools;
use crate::annotation::Annotations;
use crate::config::Config;
use crate::hook::live::{self, RunningContainer};
use crate::record::Names;
use crate::registry::check_id;
use crate::report::one_line;
use crate::sys::proc::Proc;
use crate::sys::user;
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;

/// Enables a container's core pattern.
pub(super) fn run(
    out: &mut impl Write,
    container: Option<&str>,
    pid: Option<i32>,
    by: Option<&str>,
    wishes: &Annotations,
) -> Result<()> {
    need_root()?;
    let target = match (pid, container) {
        (Some(pid), name) => by_pid(pid, name)?,
        (None, Some(name)) => tools::find(name, by)?,
        (None, None) => bail!("expected a container or --pid"),
    };
    let notes = live::enable(&target, wishes, &Config::load()?)
        .with_context(|| format!("container {}", target.names.container_id))?;
    writeln!(
        out,
        "container {} has the core pattern {}",
        target.names.container_id,
        one_line(wishes.get("oci-coredump/pattern").map_or("", |p| p))
    )?;
    for note in notes {
        writeln!(out, "note: {}", one_line(&note))?;
    }
    Ok(())
}

/// Undoes [`run`] for a container.
pub(super) fn disable(out: &mut impl Write, word: &str) -> Result<()> {
    need_root()?;
    let id = live::find(word)?;
    live::disable(&id, &Config::load()?)?;
    writeln!(out, "container {id} is as it was before")?;
    Ok(())
}

fn by_pid(pid: i32, name: Option<&str>) -> Result<RunningContainer> {
    let id = match name {
        Some(name) => name.to_owned(),
        None => Proc::open(pid)
            .and_then(|p| p.cgroups())?
            .iter()
            .find_map(|g| id_of_group(&g.path))
            .unwrap_or_else(|| format!("pid-{pid}")),
    };
    check_id(&id)?;
    Ok(RunningContainer { names: Names { container_id: id, ..Names::default() }, pid })
}

/// The container's ID, if its engine named the cgroup after it:
/// `libpod-ID.scope`, `docker-ID.scope`, `ID`.
fn id_of_group(path: &[u8]) -> Option<String> {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let mut words = std::str::from_utf8(path).ok()?.split(['/', '-', '.', ':']);
    words.rfind(is_id).map(str::to_owned)
}

fn need_root() -> Result<()> {
    ensure!(
        user::is_host_root(),
        "only root of the host may do it; run it with sudo, outside of any container"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_groups() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/machine.slice/libpod-{id}.scope"),
            format!("/docker/{id}"),
            format!("/kubepods/pod1/cri-containerd:x:{id}"),
        ] {
            assert_eq!(id_of_group(path.as_bytes()).as_deref(), Some(id.as_str()), "{path}");
        }
        assert_eq!(id_of_group(b"/user.slice"), None);
    }
}
