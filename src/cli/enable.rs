//! `enable`: gives a running container its own core pattern.

use super::completions::candidates;
use super::root::need_root;
use super::tools;
use crate::annotation::Annotations;
use crate::config::Config;
use crate::hook::running_container::{self, RunningContainer};
use crate::record::Names;
use crate::registry::check_id;
use crate::report::one_line;
use crate::sys::file;
use crate::sys::proc::Proc;
use anyhow::{Context, Result, anyhow, bail};
use clap_complete::ArgValueCompleter;
use std::io::Write;
use std::process::ExitCode;

/// Give a running container its own core pattern, without a restart.
///
/// Does now what the hook would have done when the container started: makes the dump directory,
/// mounts the container's view of core_pattern, sets RLIMIT_CORE of all its processes and
/// registers it. podman, docker, nerdctl, crictl, ctr, runc, crun and youki are asked for it at
/// once, as far as they are installed, for three seconds at most; with --by only the given
/// command; with --pid none. Each difference from a container that was started this way is
/// printed on a line.
///
/// Example: oci-coredump enable web --pattern /pod/data/dump/core-eci --limit 2G
#[derive(Debug, clap::Args)]
#[command(group(
    clap::ArgGroup::new("target").args(["container", "pid"]).multiple(true).required(true)
))]
pub(super) struct Args {
    /// Name or ID of the container, the beginning of the ID, or POD/NAME.
    #[arg(add = ArgValueCompleter::new(candidates::running))]
    container: Option<String>,
    /// Process ID of one of its processes. CONTAINER is then only the name to register it
    /// under, and may be omitted.
    #[arg(long, value_name = "PID", conflicts_with = "by")]
    pid: Option<i32>,
    /// Look it up with this command and its options, such as "runc --root /run/x".
    #[arg(long, value_name = "COMMAND")]
    by: Option<String>,
    /// The pattern, as in the annotation: a core(5) template.
    #[arg(long)]
    pattern: String,
    /// Most bytes of one core: 0, 200K, 512Mi, 2G, unlimited.
    #[arg(long, value_name = "SIZE")]
    limit: Option<String>,
    /// coredump_filter of its processes, such as 0x33.
    #[arg(long, value_name = "MASK")]
    filter: Option<String>,
    /// Compression of the cores: none or zstd.
    #[arg(long, value_name = "HOW")]
    compress: Option<String>,
}

impl Args {
    /// What is asked for, as the annotations that a container would have.
    fn wishes(&self) -> Annotations {
        let keys = [
            ("pattern", Some(&self.pattern)),
            ("limit", self.limit.as_ref()),
            ("filter", self.filter.as_ref()),
            ("compress", self.compress.as_ref()),
        ];
        let key = |(key, value): (&str, Option<&String>)| {
            Some((format!("oci-coredump/{key}"), value?.clone()))
        };
        keys.into_iter().filter_map(key).collect()
    }
}

/// Enables a container's core pattern.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    need_root()?;
    let target = match (args.pid, args.container.as_deref()) {
        (Some(pid), name) => by_pid(pid, name)?,
        (None, Some(name)) => tools::find(name, args.by.as_deref())?,
        (None, None) => bail!("expected a container or --pid"),
    };
    let notes = running_container::enable(&target, &args.wishes(), &Config::load()?)
        .with_context(|| format!("container {}", target.names.container_id))?;
    writeln!(
        out,
        "container {} has the core pattern {}",
        target.names.container_id,
        one_line(&args.pattern)
    )?;
    for note in notes {
        writeln!(out, "note: {}", one_line(&note))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn by_pid(pid: i32, name: Option<&str>) -> Result<RunningContainer> {
    let process = Proc::open(pid).map_err(|e| match file::is_missing(&e) {
        true => anyhow!("--pid {pid}: there is no such process"),
        false => e.context(format!("--pid {pid}")),
    })?;
    let id = match name {
        Some(name) => name.to_owned(),
        None => process
            .cgroups()
            .with_context(|| format!("--pid {pid}"))?
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
