//! `debug`: opens a crash in a debugger, with the files that the process had under the paths that
//! they had in its container.
//!
//! All of these files were written by a container, and debuggers are large programs. So the
//! debugger works on copies, separate from the caller's terminal, environment and settings, and
//! reads no script or setting that came with the core. If root starts it, it runs under a user ID
//! that no other process has.

use super::bundle::Bundle;
use super::private::Private;
use super::query::Query;
use super::selection::Chosen;
use super::subject::{self, Subject};
use super::{table, unpack};
use crate::corefile::decompress::{decompressed, is_compressed};
use crate::sys::{apart, file, kernel, user};
use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The debugger and how it is started.
#[derive(Debug)]
pub(super) struct Debugger {
    /// Its name or path.
    pub program: PathBuf,
    /// Further arguments for it.
    pub arguments: Vec<OsString>,
    /// Whether it stays root if root starts it.
    pub as_root: bool,
    /// Whether it may query the servers in DEBUGINFOD_URLS.
    pub debuginfod: bool,
}

impl Debugger {
    /// Root of a user namespace is excluded: it has no other IDs to give, and no
    /// more rights than its user.
    fn gives_up_rights(&self) -> bool {
        user::is_host_root() && !self.as_root
    }

    fn private(&self) -> Result<Private> {
        file::set_umask(0o077);
        Private::new(self.gives_up_rights())
    }
}

/// Opens the newest matching crash.
pub(super) fn run(
    chosen: &Chosen,
    query: &Query,
    subject: &Subject,
    debugger: &Debugger,
) -> Result<ExitCode> {
    let (core, record, paths) = subject::open(chosen, query, subject)?;
    let mut bundle = Bundle::collect(core, record, &paths)?;
    for path in &bundle.lacking {
        log::warn!("debug: {path:?}: the file that was mapped is not found, going on without it");
    }
    let dir = debugger.private()?;
    let (mut tree, path) = dir.tree("crash")?;
    let (needed, free) = (bundle.size(), kernel::free_bytes(&path).unwrap_or(0));
    ensure!(
        needed < free / 2,
        "{} of {} that are free would be needed for copies: half of that is the most",
        table::size(needed),
        table::size(free)
    );
    // Blocks are shared with the original if the file system can do that. Only
    // the recorded size is copied.
    let to = tree.create(Path::new("core"))?;
    let announced = bundle.core();
    let cloned = file::clone_of(announced.inner(), &to).is_ok();
    if !cloned || to.metadata().context("fstat")?.len() < announced.size {
        announced.copy_to(&to).context("copy the core")?;
        if announced.lacking > 0 {
            log::warn!(
                "debug: the core was made shorter while it was copied: {} of its {} bytes are \
                 zeros here",
                announced.lacking,
                announced.size
            );
        }
    } else {
        to.set_len(announced.size).context("ftruncate")?;
    }
    bundle.write(&mut tree, true)?;
    start(dir, &path, debugger)
}

/// Opens a bundle that `export` has written.
pub(super) fn run_bundle(path: &Path, debugger: &Debugger) -> Result<ExitCode> {
    let unpacked = subject::open_named(path).and_then(|packed| unpack_for(packed, debugger));
    let (dir, at) = unpacked.with_context(|| format!("unpack {}", path.display()))?;
    start(dir, &at, debugger)
}

/// Opens a bundle that was fetched from a storage.
pub(super) fn run_fetched(packed: File, debugger: &Debugger) -> Result<ExitCode> {
    let (dir, at) = unpack_for(packed, debugger).context("unpack")?;
    start(dir, &at, debugger)
}

/// Unpacks a bundle into a directory of the debugger's.
fn unpack_for(packed: File, debugger: &Debugger) -> Result<(Private, PathBuf)> {
    ensure!(is_compressed(&packed), "it is not compressed with zstd");
    // Decompressed in a sandbox, up to a maximum size.
    let tar = decompressed(packed)?;
    let dir = debugger.private()?;
    let (tree, at) = dir.tree("crash")?;
    let room = kernel::free_bytes(&at).unwrap_or(0) / 10 * 9;
    unpack::unpack(&tar, &tree, room)?;
    Ok((dir, at))
}

/// Starts the debugger on the crash in `at`, which lies in `dir`, and
/// removes `dir` when it has ended.
fn start(dir: Private, at: &Path, debugger: &Debugger) -> Result<ExitCode> {
    let (_, home) = dir.tree("home")?;
    let command = command(at, &home, debugger)?;
    let end = apart::run(command, dir.owner)
        .with_context(|| format!("start {}", debugger.program.display()));
    drop(dir);
    match end? {
        apart::End::Interrupted(signal) => apart::die_of(signal),
        apart::End::Exited(status) => {
            ensure!(status.code().is_some(), "{} was killed: {status}", debugger.program.display());
            Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
        }
    }
}

/// Environment variables of the caller that the debugger gets, besides LC_*.
const KEPT: [&str; 5] = ["TERM", "LANG", "COLUMNS", "LINES", "TZ"];
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Finds the program that the caller's shell would start.
fn find(program: &Path) -> Result<PathBuf> {
    if program.as_os_str().as_bytes().contains(&b'/') {
        return std::path::absolute(program).context("its path");
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| SEARCH.into());
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("start {}: it is in no directory of PATH", program.display()))
}

fn command(at: &Path, home: &Path, debugger: &Debugger) -> Result<Command> {
    let mut command = Command::new(find(&debugger.program)?);
    command.current_dir(home).env_clear().env("PATH", SEARCH);
    for (name, value) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if KEPT.contains(&text.as_ref()) || text.starts_with("LC_") {
            command.env(&name, value);
        }
    }
    for name in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"]
        .into_iter()
        .chain(["XDG_STATE_HOME", "XDG_RUNTIME_DIR"])
    {
        command.env(name, home);
    }
    if let Some(urls) = std::env::var_os("DEBUGINFOD_URLS").filter(|_| debugger.debuginfod) {
        command.env("DEBUGINFOD_URLS", urls);
    }
    let has_exe = std::fs::symlink_metadata(at.join("exe")).is_ok();
    let at = |name: &str| at.join(name).display().to_string();
    let is_lldb =
        debugger.program.file_name().is_some_and(|n| n.to_string_lossy().starts_with("lldb"));
    if is_lldb {
        command.arg("--no-lldbinit");
        for setting in [
            "target.load-cwd-lldbinit false".to_owned(),
            "target.load-script-from-symbol-file false".to_owned(),
            format!("symbols.enable-external-lookup {}", debugger.debuginfod),
            format!("target.exec-search-paths {:?}", at("lib")),
            format!("target.debug-file-search-paths {:?}", at("debug")),
        ] {
            command.arg("-O").arg(format!("settings set {setting}"));
        }
        command.arg("--core").arg(at("core"));
        if has_exe {
            command.arg(at("exe"));
        }
    } else {
        command.args(["-nx", "-nh"]);
        for setting in [
            // The executables come from a container; gdb must not run what they ask for.
            "set auto-load off".to_owned(),
            // An empty path would mean the default again.
            "set auto-load safe-path /dev/null/none".to_owned(),
            format!("set debuginfod enabled {}", if debugger.debuginfod { "on" } else { "off" }),
            "set history save off".to_owned(),
            // The paths made here consist of plain characters, so that nothing needs quoting.
            format!("set sysroot {}", at("root")),
            format!("set solib-search-path {}", at("lib")),
            format!("set debug-file-directory {}:/usr/lib/debug", at("debug")),
        ] {
            command.arg("-iex").arg(setting);
        }
        if has_exe {
            command.arg("-se").arg(at("exe"));
        }
        command.arg("-core").arg(at("core"));
    }
    command.args(&debugger.arguments);
    Ok(command)
}
