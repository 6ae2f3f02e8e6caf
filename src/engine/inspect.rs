//! The checks of `doctor` for an engine: how it starts this program, whether that is complete, and
//! whether annotations reach the hook.
//!
//! In: the engine's configuration, which is read but never run, and the files that it
//! names. Nothing is changed.

use super::nri::{self, NriInUse};
use super::{Engine, Program, change, containerd, crio, docker, hooks_dir};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// As it should be.
    Good,
    /// It may be intended.
    Doubtful,
    /// Containers that request cores get none.
    Broken,
}

/// One finding in a line, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub state: Severity,
    pub text: String,
    /// What to do, if anything.
    pub hint: Option<String>,
}

fn good(text: impl Into<String>) -> Finding {
    Finding { state: Severity::Good, text: text.into(), hint: None }
}

fn doubtful(text: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { state: Severity::Doubtful, text: text.into(), hint: Some(hint.into()) }
}

fn broken(text: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { state: Severity::Broken, text: text.into(), hint: Some(hint.into()) }
}

/// Checks one engine. `config`: its configuration file, if it is not at the usual path.
pub(crate) fn inspect(engine: Engine, config: Option<&Path>, program: &Program) -> Vec<Finding> {
    let usual = config.is_none();
    let config = config.unwrap_or(engine.config());
    let found = match engine {
        Engine::Docker => docker(config, program),
        Engine::Containerd => containerd(config, usual, program),
        Engine::Podman => podman(config, program),
        Engine::Crio => crio(config, program),
    };
    found.unwrap_or_else(|e| {
        vec![doubtful(format!("{e:#}"), "correct the file, or run doctor as root")]
    })
}

/// A finding if a path that should lead to this program does not.
fn leads_to_us(path: &Path, program: &Program) -> Option<Finding> {
    match std::fs::canonicalize(path) {
        Ok(there) if there == program.path => None,
        Ok(there) => Some(doubtful(
            format!(
                "{} leads to {}, not to this program, {}",
                path.display(),
                there.display(),
                program.path.display()
            ),
            "run `oci-coredump install ENGINE` by the path that shall stay",
        )),
        Err(e) => Some(broken(
            format!("{}: {e}", path.display()),
            "run `make install`, or correct the path",
        )),
    }
}

/// podman: by a hook.
fn podman(config: &Path, program: &Program) -> Result<Vec<Finding>> {
    let main = [Path::new("/usr/share/containers/containers.conf"), config];
    let files = hooks_dir::all_files(&main, &config.with_file_name("containers.conf.d"))?;
    let dirs = directories(&files, &["engine"])?;
    let found = by_hooks(&dirs, program)?;
    Ok(if found.is_empty() { vec![no_hook(&dirs)] } else { found })
}

/// CRI-O: by a hook, by the NRI plugin, or by both.
fn crio(config: &Path, program: &Program) -> Result<Vec<Finding>> {
    let files = hooks_dir::all_files(&[config], &config.with_file_name("crio.conf.d"))?;
    let dirs = directories(&files, &crio::TABLES)?;
    let mut found = by_hooks(&dirs, program)?;
    let switch = "set `enable_nri = true` in its table [crio.nri]";
    found.extend(by_nri(Engine::Crio, config, &crio::nri(&files)?, switch, program));
    Ok(if found.is_empty() { vec![no_hook(&dirs)] } else { found })
}

/// The directories that an engine reads hooks from.
fn directories(files: &[(PathBuf, String)], tables: &[&str]) -> Result<Vec<String>> {
    let set = hooks_dir::in_force(files, tables)?;
    Ok(set.unwrap_or_else(|| vec![hooks_dir::STANDARD.to_owned()]))
}

fn no_hook(dirs: &[String]) -> Finding {
    doubtful(
        format!("no {} in {}, where it looks for hooks", hooks_dir::FILE, dirs.join(", ")),
        "run `make install`, or `oci-coredump install ENGINE`",
    )
}

/// Which of the directories that podman or CRI-O reads have our file. They silently skip a file
/// whose program is missing.
fn by_hooks(dirs: &[String], program: &Program) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for file in dirs.iter().map(|dir| Path::new(dir).join(hooks_dir::FILE)) {
        let Some(text) = change::read(&file)? else { continue };
        let value: serde_json::Value =
            serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        let stages: Vec<&str> =
            value["stages"].as_array().into_iter().flatten().filter_map(|s| s.as_str()).collect();
        match value["hook"]["path"].as_str() {
            None => found
                .push(broken(format!("{} names no program", file.display()), "run `make install`")),
            Some(path) => found.push(leads_to_us(Path::new(path), program).unwrap_or_else(|| {
                good(format!(
                    "by the hook {} ({}); every annotation arrives",
                    file.display(),
                    stages.join(", ")
                ))
            })),
        }
    }
    Ok(found)
}

/// The NRI plugin: the one that the engine starts, and the one that connects to it. `switch`: what
/// switches NRI on.
fn by_nri(
    engine: Engine,
    config: &Path,
    nri: &NriInUse,
    switch: &str,
    program: &Program,
) -> Vec<Finding> {
    let started = plugin_in(&nri.plugins).map(|path| match leads_to_us(&path, program) {
        Some(wrong) => wrong,
        None if !nri.is_on => broken(
            format!(
                "the plugin {} is in place, but NRI is switched off in {}",
                path.display(),
                config.display()
            ),
            switch,
        ),
        None if runs(&path) => good(format!(
            "by the NRI plugin {}, which runs; every annotation arrives",
            path.display()
        )),
        None => doubtful(
            format!("by the NRI plugin {}, but it does not run", path.display()),
            format!("`systemctl restart {}` starts it", engine.name()),
        ),
    });
    let connected = (nri.is_on && connects(&nri.socket, program)).then(|| {
        good(format!(
            "by the NRI plugin that connects to {}; every annotation arrives",
            nri.socket.display()
        ))
    });
    started.into_iter().chain(connected).collect()
}

/// Docker: the runtime in daemon.json. All annotations of its containers reach the hook.
fn docker(config: &Path, program: &Program) -> Result<Vec<Finding>> {
    let text = change::read(config)?.unwrap_or_default();
    let (path, default) = docker::runtime(&text).with_context(|| config.display().to_string())?;
    let Some(path) = path else {
        return Ok(vec![doubtful(
            format!("{} does not name the runtime {}", config.display(), docker::NAME),
            "run `oci-coredump install docker`",
        )]);
    };
    if let Some(wrong) = leads_to_us(&path, program) {
        return Ok(vec![wrong]);
    }
    Ok(vec![match default.as_deref() {
        Some(docker::NAME) => good(format!(
            "by the default runtime {}, {}; every annotation arrives",
            docker::NAME,
            path.display()
        )),
        other => doubtful(
            format!(
                "by the runtime {}, {}; the default one is {}",
                docker::NAME,
                path.display(),
                other.unwrap_or("runc")
            ),
            format!(
                "start containers with `docker run --runtime {}`, or make it default-runtime",
                docker::NAME
            ),
        ),
    }])
}

/// containerd: through NRI, a base specification, or not at all.
fn containerd(config: &Path, usual: bool, program: &Program) -> Result<Vec<Finding>> {
    let text = change::read(config)?.unwrap_or_default();
    let seen = containerd::seen(config, &text, usual)?;
    let switch = "run `oci-coredump install containerd --way nri`";
    let mut found = by_nri(Engine::Containerd, config, &seen.nri, switch, program);
    for runtime in &seen.runtimes {
        let Some(base) = &runtime.base else { continue };
        let name = &runtime.name;
        let hooks = match change::read(base)? {
            None => vec![format!("{} does not exist, so no pod starts", base.display())],
            Some(text) => hooks_of(&text, program).with_context(|| base.display().to_string())?,
        };
        found.extend(hooks.iter().map(|what| {
            broken(
                format!("runtime {name}: {what}"),
                "run `oci-coredump install containerd --way spec`",
            )
        }));
        if hooks.is_empty() && runtime.missing.is_empty() {
            found.push(good(format!(
                "pods of runtime {name} by the base specification {}; the annotations are let \
                 through",
                base.display()
            )));
        } else if hooks.is_empty() {
            found.push(broken(
                format!(
                    "runtime {name}: pod_annotations and container_annotations do not let {} \
                     through",
                    runtime.missing.join(", ")
                ),
                "run `oci-coredump install containerd --way spec`",
            ));
        }
    }
    if found.is_empty() {
        found.push(doubtful(
            format!(
                "neither a plugin in {} nor a base specification of ours in {}",
                seen.nri.plugins.display(),
                config.display()
            ),
            "run `oci-coredump install containerd`",
        ));
    }
    Ok(found)
}

/// Our plugin in an engine's directory: `NN-oci-coredump`.
fn plugin_in(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?.flatten().map(|e| e.path());
    entries.into_iter().find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(nri::SUFFIX))
    })
}

/// Whether a process was started from this path.
fn runs(path: &Path) -> bool {
    command_lines().any(|words| {
        words.first().is_some_and(|word| word.as_slice() == path.as_os_str().as_encoded_bytes())
    })
}

/// Whether this program runs as a plugin that connects to the socket: `nri`, or `node serve`.
fn connects(socket: &Path, program: &Program) -> bool {
    let same = |other: &Path| {
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or(path.to_owned());
        real(other) == real(socket)
    };
    command_lines().any(|words| {
        let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
        let words: Vec<&str> = words.iter().map(|word| word.as_ref()).collect();
        let Some((own, verb)) = words.split_first() else { return false };
        Path::new(own).file_name() == program.path.file_name()
            && plugin_socket(verb).is_some_and(|socket| same(Path::new(socket)))
    })
}

/// The socket to which this program connects as a plugin, when it is called with these words.
fn plugin_socket<'w>(words: &[&'w str]) -> Option<&'w str> {
    match words {
        ["nri", "--socket", socket] => Some(socket),
        ["nri", option] => option.strip_prefix("--socket="),
        ["nri"] | ["node", "serve", ..] => Some(nri::SOCKET),
        _ => None,
    }
}

/// The words of every process's command line that can be read.
fn command_lines() -> impl Iterator<Item = Vec<Vec<u8>>> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| {
        let line = line.strip_suffix(b"\0").unwrap_or(&line);
        line.split(|b| *b == 0).map(<[u8]>::to_vec).collect()
    })
}

/// What is wrong with the hooks of a base specification, one line each.
fn hooks_of(text: &str, program: &Program) -> Result<Vec<String>> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    let ours = program.text()?;
    let has = |stage: &&&str| {
        value["hooks"][**stage].as_array().into_iter().flatten().any(|hook| hook["path"] == ours)
    };
    Ok(super::spec::STAGES
        .iter()
        .filter(|stage| !has(stage))
        .map(|stage| format!("its base specification does not call {ours} at {stage}"))
        .collect())
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
