//! The OCI runtime wrapper: edits the bundle of a container that requests a pattern, then
//! executes the real runtime.
//!
//! In: the command line of an OCI runtime, of any version. Out: the real runtime with the same
//! command line. No failure here keeps the runtime from being started, and whatever is not
//! understood is passed on unchanged.

use super::{Program, spec};
use crate::config::Config;
use crate::registry::Registry;
use crate::sys::file;
use crate::sys::proc::Proc;
use anyhow::{Context, Result, bail, ensure};
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

/// Largest config.json or process file that is read, in bytes.
const MAX: usize = 16 << 20;

/// Where the real runtime is looked for. PATH is not used.
const DIRECTORIES: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
const NAMES: [&str; 2] = ["runc", "crun"];

/// Options of runc, crun and youki that take the next word as their value, without dashes:
/// before the verb and after it.
const GLOBAL: [&str; 8] = ["root", "r", "log", "l", "log-format", "log-level", "criu", "rootless"];
const GLOBAL_CRUN: [&str; 1] = ["cgroup-manager"];
const CREATE: [&str; 7] =
    ["bundle", "b", "pid-file", "console-socket", "preserve-fds", "config", "f"];
const EXEC: [&str; 19] = [
    "process",
    "p",
    "console-socket",
    "cwd",
    "env",
    "e",
    "user",
    "u",
    "additional-gids",
    "g",
    "pid-file",
    "process-label",
    "apparmor",
    "cap",
    "c",
    "preserve-fds",
    "cgroup",
    "console",
    "seccomp",
];

/// What a command line asks for, as far as it concerns the wrapper.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    /// `create` and `run`, with the container's config.json.
    Create(PathBuf),
    /// `exec --process`, with the file of the process and the container's ID.
    Exec { process: PathBuf, id: String },
    /// Any other command.
    Other,
}

/// An option with its value, or a word that is no option.
enum ArgumentKind<'a> {
    Option(&'a str, Option<&'a OsStr>),
    Plain(&'a OsStr),
}

/// Takes the next option or word off the front. `valued`: the options that take a value.
fn next<'a>(args: &mut &'a [OsString], valued: &[&str]) -> Option<ArgumentKind<'a>> {
    let (first, rest) = args.split_first()?;
    *args = rest;
    let Some(name) = first.to_str().filter(|f| f.starts_with('-') && f.len() > 1) else {
        return Some(ArgumentKind::Plain(first));
    };
    let name = name.trim_start_matches('-');
    if let Some((name, value)) = name.split_once('=') {
        return Some(ArgumentKind::Option(name, Some(OsStr::new(value))));
    }
    if !valued.contains(&name) {
        return Some(ArgumentKind::Option(name, None));
    }
    let (value, rest) = args.split_first()?;
    *args = rest;
    Some(ArgumentKind::Option(name, Some(value)))
}

fn call(args: &[OsString]) -> Call {
    let mut rest = args;
    let global: Vec<&str> = GLOBAL.into_iter().chain(GLOBAL_CRUN).collect();
    let verb = loop {
        match next(&mut rest, &global) {
            None => return Call::Other,
            Some(ArgumentKind::Plain(verb)) => break verb,
            // `runtime --help create` does not create anything.
            Some(ArgumentKind::Option("help" | "h" | "version" | "v", _)) => return Call::Other,
            Some(ArgumentKind::Option(..)) => {}
        }
    };
    match verb.to_str() {
        Some("create" | "run") => create(rest),
        Some("exec") => exec(rest),
        _ => Call::Other,
    }
}

fn create(mut args: &[OsString]) -> Call {
    let (mut bundle, mut config, mut named) =
        (PathBuf::from("."), PathBuf::from("config.json"), false);
    while let Some(word) = next(&mut args, &CREATE) {
        match word {
            ArgumentKind::Option("bundle" | "b", Some(value)) => bundle = value.into(),
            ArgumentKind::Option("config" | "f", Some(value)) => config = value.into(),
            ArgumentKind::Option("help" | "h", _) => return Call::Other,
            ArgumentKind::Option(..) => {}
            // crun and youki accept options after the ID; runc refuses them.
            ArgumentKind::Plain(_) => named = true,
        }
    }
    if named { Call::Create(bundle.join(config)) } else { Call::Other }
}

fn exec(mut args: &[OsString]) -> Call {
    let mut process = None;
    while let Some(word) = next(&mut args, &EXEC) {
        match word {
            ArgumentKind::Option("process" | "p", Some(value)) => {
                process = Some(PathBuf::from(value))
            }
            ArgumentKind::Option(..) => {}
            ArgumentKind::Plain(id) => {
                return match (process, id.to_str()) {
                    (Some(process), Some(id)) => Call::Exec { process, id: id.to_owned() },
                    _ => Call::Other,
                };
            }
        }
    }
    Call::Other
}

/// Edits what has to be edited, then executes the real runtime. `args`: without the program's name.
/// Returns only if there is no runtime to execute.
pub fn run(args: &[OsString]) -> anyhow::Error {
    let config = Config::load().unwrap_or_else(|e| {
        log::error!("runtime: {e:#}, using the defaults");
        Config::default()
    });
    if let Err(e) = prepare(call(args), &config) {
        log::warn!("runtime: {e:#}, handing it on as it is");
    }
    become_real(args, &config)
}

/// Executes the real runtime without having done anything: all that is left after a defect here.
pub fn hand_on(args: &[OsString]) -> anyhow::Error {
    become_real(args, &Config::load().unwrap_or_default())
}

fn become_real(args: &[OsString], config: &Config) -> anyhow::Error {
    match real(config) {
        Ok(program) => {
            let cause = std::process::Command::new(&program).args(args).exec();
            anyhow::Error::new(cause).context(format!("execve({program:?})"))
        }
        Err(e) => e,
    }
}

fn prepare(call: Call, config: &Config) -> Result<()> {
    match call {
        Call::Other => Ok(()),
        Call::Create(path) => {
            let program = Program::own()?.path;
            let bundle = std::path::absolute(&path).ok().and_then(|p| Some(p.parent()?.to_owned()));
            rewrite(&path, |text| spec::edit(text, bundle.as_deref(), config, &program, reach()?))
        }
        Call::Exec { process, id } => {
            let Some(entry) = Registry::own().and_then(|r| r.get(&id)).filter(|e| e.is_in_force())
            else {
                return Ok(());
            };
            let limit = entry.limit.raw();
            rewrite(&process, |text| spec::edit_process(text, limit, reach()?))
        }
    }
}

/// The hard RLIMIT_CORE of this process, and so of the runtime, in bytes: setting more
/// could fail the container.
pub(super) fn reach() -> Result<u64> {
    Ok(Proc::open(std::process::id() as i32)?.core_limit()?.hard.unwrap_or(u64::MAX))
}

/// Replaces a file with the result of `edit`: a new file beside it and a rename,
/// with the old file's mode.
fn rewrite(path: &Path, edit: impl FnOnce(&[u8]) -> Result<Option<Vec<u8>>>) -> Result<()> {
    let whole = std::fs::canonicalize(path).with_context(|| format!("open {}", path.display()))?;
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
        bail!("{} is no file", path.display())
    };
    let attempt = || -> Result<()> {
        let dir = file::open_dir(parent)?;
        let open = file::open_read(&dir, name).context("open")?;
        let stat = file::stat(&open)?;
        ensure!(stat.regular, "no regular file");
        let text = file::read_bounded(open, MAX, "it")?;
        match edit(&text)? {
            Some(new) => file::replace(&dir, name, &new, stat.mode),
            None => Ok(()),
        }
    };
    attempt().with_context(|| path.display().to_string())
}

/// The path of the real runtime.
fn real(config: &Config) -> Result<PathBuf> {
    let own = std::env::current_exe().ok();
    let usable = |p: &Path| {
        std::fs::canonicalize(p).is_ok_and(|real| real.is_file() && Some(&real) != own.as_ref())
    };
    if let Some(path) = &config.runtime {
        if usable(path) {
            return Ok(path.clone());
        }
        log::error!("runtime: runtime = {path:?} is no program, or this one; looking for another");
    }
    let standard =
        NAMES.iter().flat_map(|name| DIRECTORIES.iter().map(move |dir| Path::new(dir).join(name)));
    standard
        .into_iter()
        .find(|p| usable(p))
        .with_context(|| format!("no {} in {}", NAMES.join(" or "), DIRECTORIES.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Call {
        call(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn command_lines_of_the_engines() {
        for (line, config) in [
            ("create --bundle /b c1", "/b/config.json"),
            (
                "--root /run/runc --log /l.json --log-format json create --bundle /b --pid-file /p \
                 --console-socket /s c1",
                "/b/config.json",
            ),
            ("--systemd-cgroup --debug run -d -b /b --preserve-fds 2 c1", "/b/config.json"),
            ("--root=/r --log-level debug create --bundle=/b c1", "/b/config.json"),
            ("-root /r run -bundle /b c1", "/b/config.json"),
            ("--cgroup-manager=systemd run --config=other.json --bundle /b c1", "/b/other.json"),
            ("run c1", "./config.json"),
            ("--root /r create c1 --bundle /b", "/b/config.json"),
        ] {
            assert_eq!(of(line), Call::Create(config.into()), "{line}");
        }
        let exec = Call::Exec { process: "/tmp/p".into(), id: "c1".into() };
        assert_eq!(
            of("--root /r exec --process /tmp/p --console-socket /s --detach --pid-file /x c1"),
            exec
        );
        assert_eq!(of("exec -d -p /tmp/p c1"), exec);
    }

    #[test]
    fn handed_on() {
        for line in [
            "",
            "--version",
            "-v",
            "features",
            "spec",
            "--root create state c1",
            "delete --force run",
            "kill exec",
            "exec c1 run x",
            "exec -t --user 5 c1 sh -c --process",
            "create --help",
            "create --bundle",
            "--help create c1",
            "create",
        ] {
            assert_eq!(of(line), Call::Other, "{line}");
        }
    }

    #[test]
    fn a_rewrite_keeps_the_mode_and_leaves_nothing_beside() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        rewrite(&path, |_| bail!("no")).unwrap_err();
        rewrite(&path, |_| Ok(None)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        rewrite(&path, |text| Ok(Some([text, b"+new"].concat()))).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old+new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(rewrite(&dir.path().join("none"), |_| unreachable!()).is_err());
    }
}
