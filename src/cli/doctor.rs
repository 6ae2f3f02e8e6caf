//! `doctor`: checks everything that a core depends on between the crash and the
//! file, with a verdict for each.

use crate::config::{self, Config, Mode, RUN_DIR};
use crate::engine::look;
use crate::engine::{self, Engine, Program};
use crate::pattern::Handler;
use crate::registry::Registry;
use crate::store::Store;
use crate::sys::user::{self, Who};
use crate::sys::{kernel, ns, text};
use crate::sysctl::{self, Saved};
use crate::users;
use anyhow::Result;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failure,
}

#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    text: String,
    hint: Option<String>,
}

fn ok(check: &'static str, text: impl Into<String>) -> Check {
    Check { check, verdict: Verdict::Ok, text: text.into(), hint: None }
}

fn warning(check: &'static str, text: impl Into<String>, hint: &str) -> Check {
    Check { check, verdict: Verdict::Warning, text: text.into(), hint: Some(hint.into()) }
}

fn failure(check: &'static str, text: impl Into<String>, hint: &str) -> Check {
    Check { check, verdict: Verdict::Failure, text: text.into(), hint: Some(hint.into()) }
}

/// Runs all checks and prints them.
pub(super) fn run(out: &mut impl Write, args: &Args, json: bool) -> Result<ExitCode> {
    let checks = checks(args);
    if json {
        writeln!(out, "{}", text::json(&serde_json::to_string_pretty(&checks)?))?;
    } else {
        for c in &checks {
            let verdict = match c.verdict {
                Verdict::Ok => "ok     ",
                Verdict::Warning => "warning",
                Verdict::Failure => "failure",
            };
            writeln!(out, "{verdict}  {:<12}  {}", c.check, text::one_line(&c.text))?;
            if let Some(hint) = &c.hint {
                writeln!(out, "{:23}hint: {}", "", text::one_line(hint))?;
            }
        }
    }
    let worst = checks.iter().map(|c| c.verdict).max();
    Ok(if worst == Some(Verdict::Failure) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn checks(args: &Args) -> Vec<Check> {
    let mut all = vec![root(), linux()];
    let (mut config, check) = match Config::load() {
        Ok(c) if !c.problems.is_empty() => {
            let what = format!("{}: {}", config::PATH, c.problems.join("; "));
            (c, failure("config", what, "correct it; all other keys hold"))
        }
        Ok(c) => {
            let there = Path::new(config::PATH).exists();
            (
                c,
                ok(
                    "config",
                    if there {
                        config::PATH.to_owned()
                    } else {
                        format!("{} is absent, using the defaults", config::PATH)
                    },
                ),
            )
        }
        Err(e) => (
            Config::default(),
            failure(
                "config",
                format!("{e:#}"),
                "correct the file; until then the defaults are used",
            ),
        ),
    };
    all.push(check);
    all.extend(early(&config));
    if let Err(e) = users::adapt(&mut config) {
        all.push(warning("store", format!("{e:#}"), "run it in an environment as after a login"));
    }
    all.push(helper());
    all.extend(patterns(&config));
    all.push(suid());
    all.extend(ways(&config, args));
    all.extend(engines(&config));
    all.push(store(&config));
    all.extend(containers());
    all
}

/// The cost of early release, if it is allowed.
fn early(config: &Config) -> Option<Check> {
    let told = "containers may ask for it: the memory of a crashed process then stays in use until \
                its core is whole, and counts as nobody's";
    config.allow_early_release.then(|| ok("release", told))
}

fn root() -> Check {
    if user::is_host_root() {
        let own = std::env::current_exe().unwrap_or_default();
        match ns::check_initial(&own) {
            Ok(()) => ok("privileges", "root of the host"),
            Err(e) => failure("privileges", format!("{e:#}"), "run it on the host itself"),
        }
    } else {
        warning(
            "privileges",
            "not root of the host: some checks cannot look everywhere",
            "run it with sudo, outside of any container",
        )
    }
}

fn linux() -> Check {
    let version = kernel::version();
    let text = format!("Linux {}.{}", version.0, version.1);
    match version {
        v if v < (5, 12) => failure(
            "kernel",
            format!("{text}: mount_setattr(2) is missing"),
            "Linux 5.12 or newer is needed",
        ),
        v if v < (6, 16) => ok(
            "kernel",
            format!(
                "{text}; the crasher is known by its PID and CoreDumping, not by a pidfd (Linux \
                 6.16)"
            ),
        ),
        _ => ok("kernel", format!("{text}, with pidfds for crashers")),
    }
}

fn helper() -> Check {
    let own = std::env::current_exe().unwrap_or_default();
    match sysctl::dispatch_pattern(&own).and_then(|_| sysctl::check_helper(&own)) {
        Ok(()) => ok("helper", own.display().to_string()),
        Err(e) => failure(
            "helper",
            format!("{e:#}"),
            "install it with `make install`, where only root can write",
        ),
    }
}

fn patterns(config: &Config) -> Vec<Check> {
    const CHECK: &str = "core_pattern";
    let mut all = Vec::new();
    let now = match sysctl::core_pattern() {
        Ok(p) => p,
        Err(e) => {
            return vec![failure(CHECK, format!("{e:#}"), "kernel.core_pattern must be readable")];
        }
    };
    if let Who::User(uid) = user::who() {
        return vec![match config.mode {
            Mode::Dispatch if sysctl::is_ours(&now) => ok(CHECK, "crashes come to this program"),
            _ => failure(
                CHECK,
                format!("{now:?}, so that containers of user {uid} get no cores"),
                "the administrator must run `oci-coredump install` once, as root",
            ),
        }];
    }
    let saved = Store::peek(config).and_then(|s| Saved::load(&s).ok()).flatten();
    let own = std::env::current_exe().ok().and_then(|p| sysctl::dispatch_pattern(&p).ok());
    all.push(match (&saved, config.mode) {
        (_, Mode::Dispatch) if Some(&now) == own.as_ref() => {
            ok(CHECK, "crashes come to this program")
        }
        (_, Mode::Dispatch) if sysctl::is_ours(&now) => {
            let program = now[1..].split(' ').next().unwrap_or_default().to_owned();
            if Path::new(&program).exists() {
                warning(
                    CHECK,
                    format!("crashes go to another copy of this program, {program}"),
                    "run `oci-coredump install` by the path that shall stay",
                )
            } else {
                failure(
                    CHECK,
                    format!("{program} does not exist: every core on this host is lost"),
                    "run `oci-coredump install`, or `oci-coredump uninstall` to undo it",
                )
            }
        }
        (Some(s), Mode::Kernel) if s.ours == now && !s.owners.is_empty() => {
            ok(CHECK, format!("{now:?}, for container {}", s.owners.join(", ")))
        }
        (_, Mode::Kernel) => ok(
            CHECK,
            format!("{now:?}; a container's own goes there when it starts (mode = \"kernel\")"),
        ),
        (Some(_), _) => warning(
            CHECK,
            format!("something has overwritten it with {now:?}"),
            "oci-coredump.service repairs it within seconds, else the next hook of any container; \
             `oci-coredump install` does it now",
        ),
        (None, _) => ok(CHECK, format!("{now:?}; the first container that asks takes it over")),
    });
    if sysctl::is_ours(&now) {
        match sysctl::core_pipe_limit() {
            Ok(limit) if limit >= sysctl::OUR_PIPE_LIMIT => {}
            Ok(limit) => all.push(warning(
                "pipe limit",
                format!(
                    "kernel.core_pipe_limit is {limit}: with 0 the kernel does not wait, over it \
                     crashes are lost"
                ),
                "run `oci-coredump install`",
            )),
            Err(e) => all.push(warning(
                "pipe limit",
                format!("{e:#}"),
                "kernel.core_pipe_limit must be readable",
            )),
        }
        all.push(match saved.as_ref().map(Saved::handler) {
            None => warning(
                "forwarding",
                "what core_pattern was before is not known: crashes of the host's go to the \
                 distribution's handler, or to a file",
                "run `oci-coredump uninstall`, set core_pattern, run `oci-coredump install`",
            ),
            Some(Handler::Socket) => warning(
                "forwarding",
                "the earlier handler is a socket, which only the kernel can connect to",
                "configure that handler as a pipe program",
            ),
            Some(Handler::Pipe(args)) => {
                let program =
                    args.first().map(|a| PathBuf::from(a.to_string())).unwrap_or_default();
                if program.exists() {
                    ok("forwarding", format!("other crashes go on to {}", program.display()))
                } else {
                    warning(
                        "forwarding",
                        format!(
                            "the earlier handler {} is gone: cores of the host's processes are \
                             lost",
                            program.display()
                        ),
                        "run `oci-coredump uninstall`, set core_pattern, run `oci-coredump \
                         install`",
                    )
                }
            }
            Some(Handler::File(t)) => ok(
                "forwarding",
                format!("other crashes write the file {:?}, as before", t.to_string()),
            ),
            Some(Handler::Nothing) => ok("forwarding", "other crashes write nothing, as before"),
        });
    }
    all
}

fn suid() -> Check {
    match std::fs::read_to_string("/proc/sys/fs/suid_dumpable")
        .map(|s| s.trim().to_owned())
        .as_deref()
    {
        Ok("1") => warning(
            "suid",
            "fs.suid_dumpable is 1: cores of set-user-ID programs belong to whoever started them",
            "set it to 0 or 2",
        ),
        Ok(v) => ok("suid", format!("fs.suid_dumpable is {v}")),
        Err(e) => {
            warning("suid", format!("/proc/sys/fs/suid_dumpable: {e}"), "it must be readable")
        }
    }
}

/// Selects the engines to check: those found or configured, or the one that was named.
#[derive(Clone, Debug, Default)]
pub(super) struct Args {
    /// Check only this engine.
    pub engine: Option<Engine>,
    /// Its configuration file, if it is not at the usual path.
    pub config: Option<PathBuf>,
}

/// For each engine, how it starts this program and whether that is in place.
fn ways(config: &Config, args: &Args) -> Vec<Check> {
    let program = match Program::own() {
        Ok(program) => program,
        Err(e) => return vec![failure("engines", format!("{e:#}"), "/proc must be mounted")],
    };
    let told: Vec<Engine> = engine::told(config).into_iter().map(|(engine, _)| engine).collect();
    let meant = |e: &Engine| {
        args.engine.map_or_else(|| look::is_there(*e) || told.contains(e), |only| only == *e)
    };
    let mut all = Vec::new();
    for engine in Engine::ALL.into_iter().filter(meant) {
        let found = look::look(engine, args.config.as_deref(), &program);
        all.extend(found.into_iter().map(|f| Check {
            check: engine.name(),
            verdict: match f.state {
                look::Severity::Good => Verdict::Ok,
                look::Severity::Doubtful => Verdict::Warning,
                look::Severity::Broken => Verdict::Failure,
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
fn engines(config: &Config) -> Vec<Check> {
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

fn store(config: &Config) -> Check {
    let path = &config.store;
    match std::fs::symlink_metadata(path) {
        Err(_) => ok("store", format!("{} is made when it is needed", path.display())),
        Ok(meta) => {
            use std::os::unix::fs::MetadataExt;
            let own = user::effective_uid();
            if !meta.is_dir() || meta.uid() != own || meta.mode() & 0o077 != 0 {
                return failure(
                    "store",
                    format!(
                        "{} is not a directory of user {own}'s alone (mode 0700)",
                        path.display()
                    ),
                    "chown, chmod 0700",
                );
            }
            match kernel::free_bytes(path) {
                Ok(free) if free < 1 << 30 => warning(
                    "store",
                    format!("{}: {} MiB free", path.display(), free >> 20),
                    "make room, or set `store` in the configuration to another disk",
                ),
                Ok(free) => ok("store", format!("{}: {} GiB free", path.display(), free >> 30)),
                Err(e) => warning(
                    "store",
                    format!("{}: {e:#}", path.display()),
                    "its file system must answer",
                ),
            }
        }
    }
}

fn containers() -> Vec<Check> {
    let Some(registry) = Registry::own() else {
        return vec![ok("containers", format!("none is registered ({RUN_DIR} is not there)"))];
    };
    let entries: Vec<_> = registry
        .ids()
        .unwrap_or_default()
        .iter()
        .filter_map(|id| registry.get(id))
        .filter(|e| e.init_lives())
        .collect();
    let mut all = vec![ok(
        "containers",
        format!("{} registered", entries.iter().filter(|e| e.refused.is_none()).count()),
    )];
    for e in entries.iter() {
        if let Some(why) = &e.refused {
            all.push(warning(
                "containers",
                format!("{} asked, and was refused: {why}", e.names.container_id),
                "correct the annotation and start it anew",
            ));
        }
    }
    all
}
