//! The engines: how each starts this program, and whether that is in place.

use super::check::{Check, Verdict, failure, ok, warning};
use crate::config::Config;
use crate::engine::{self, Engine, Program, detect, inspect};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// For each engine that is found or configured, or for the only one, with its configuration file if
/// that is not at the usual path.
pub(super) fn ways(config: &Config, only: Option<Engine>, file: Option<&Path>) -> Vec<Check> {
    let program = match Program::own() {
        Ok(program) => program,
        Err(e) => return vec![failure("engines", format!("{e:#}"), "/proc must be mounted")],
    };
    let told: Vec<Engine> = engine::told(config).into_iter().map(|(engine, _)| engine).collect();
    let meant =
        |e: &Engine| only.map_or_else(|| detect::is_there(*e) || told.contains(e), |o| o == *e);
    let mut all = Vec::new();
    for engine in Engine::ALL.into_iter().filter(meant) {
        let found = inspect::inspect(engine, file, &program);
        all.extend(found.into_iter().map(|f| Check {
            check: engine.name(),
            verdict: match f.state {
                inspect::Severity::Good => Verdict::Ok,
                inspect::Severity::Doubtful => Verdict::Warning,
                inspect::Severity::Broken => Verdict::Failure,
            },
            text: f.text,
            hint: f.hint.map(|h| h.replace("ENGINE", engine.name())),
        }));
    }
    if all.is_empty() {
        all.push(warning(
            "engines",
            "no podman, CRI-O, containerd or Docker is here",
            "give a runtime's containers the hooks in config.json",
        ));
    }
    all
}

/// What `install ENGINE` changed must still be there: upgrades of an engine may replace its files.
pub(super) fn changed(config: &Config) -> Vec<Check> {
    const CHECK: &str = "engine";
    let of = |(engine, state): (Engine, Result<Vec<PathBuf>>)| {
        let name = engine.name();
        match state {
            Ok(paths) if paths.is_empty() => {
                ok(CHECK, format!("{name}: as `install {name}` left it"))
            }
            Ok(paths) => {
                let list: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
                warning(
                    CHECK,
                    format!("{name}: changed since `install {name}`: {}", list.join(", ")),
                    &format!("run `oci-coredump install {name}` again"),
                )
            }
            Err(e) => warning(CHECK, format!("{name}: {e:#}"), "run doctor as root"),
        }
    };
    engine::told(config).into_iter().map(of).collect()
}

/// What is called in no build, if there is an engine that builds images.
pub(super) fn builds() -> Option<Check> {
    let is_there = [Engine::Podman, Engine::Docker].into_iter().any(detect::is_there);
    is_there.then(|| Check {
        hint: Some("docs/engines.md, \"Builds\", has the line that keeps a core".into()),
        ..ok(
            "builds",
            "`podman build` and `docker build` call no hook: a crash there goes to the host's own \
             handler",
        )
    })
}
