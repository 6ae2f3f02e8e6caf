//! `debug`: a debugger on a crash, with the files that the process had, in the place that they had in its container.
//!
//! All of that is what a container wrote, and debuggers are large programs: one that root starts runs as the user that owns nothing, on copies.

use super::Chosen;
use super::bundle::{Bundle, Directory};
use super::export::{Subject, open};
use super::query::Query;
use super::table;
use crate::corefile::plain::copy_sparse;
use crate::sys::{file, kernel, process};
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Which debugger, and its further arguments.
#[derive(Debug)]
pub struct Debugger {
    /// Its name or path.
    pub program: PathBuf,
    /// What is added to its command line.
    pub arguments: Vec<OsString>,
    /// As root, if root starts it.
    pub as_root: bool,
}

/// The user and group that own nothing.
const NOBODY: u32 = 65534;

impl Debugger {
    fn gives_up_rights(&self) -> bool {
        process::effective_uid() == 0 && !self.as_root
    }
}

/// Opens the newest crash that matches.
pub fn run(
    chosen: &Chosen,
    query: &Query,
    subject: &Subject,
    debugger: &Debugger,
) -> Result<ExitCode> {
    let (core, record, places) = open(chosen, query, subject)?;
    let bundle = Bundle::collect(core, record, &places)?;
    for path in &bundle.lacking {
        log::warn!("debug: {path:?}: the file that was mapped is not found, going on without it");
    }
    // Whoever can write to the directory decides what the debugger loads: it is new, and ours alone.
    let dir = temporary()?;
    let core = bundle.core().try_clone().context("dup")?;
    // The core stays where it is, and open here until the debugger has ended: its path may be a container's. Only who may not open it again needs a copy.
    let link = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), process::number(&core)));
    let copy = dir.path().join("core.copy");
    if debugger.gives_up_rights() {
        let (needed, free) =
            (file::stat(&core)?.allocated, kernel::free_bytes(dir.path()).unwrap_or(0));
        ensure!(
            needed < free / 2,
            "{} of {} would be needed for a copy of the core: --as-root opens it where it is, with a debugger that is root",
            table::size(needed),
            table::size(free)
        );
        let to = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&copy)
            .context("copy the core")?;
        file::clone_of(&core, &to).or_else(|_| copy_sparse(&core, &to)).context("copy the core")?;
    }
    bundle.write(
        &mut Directory(dir.path().to_owned()),
        Some(if debugger.gives_up_rights() { Path::new("core.copy") } else { &link }),
    )?;
    start(dir.path(), dir.path(), debugger)
}

/// Opens a bundle that `export` has written.
pub fn run_bundle(path: &Path, debugger: &Debugger) -> Result<ExitCode> {
    let dir = temporary()?;
    let unpack = || -> Result<()> {
        let mut archive = tar::Archive::new(zstd::stream::read::Decoder::new(File::open(path)?)?);
        archive.set_preserve_mtime(false);
        // Names that lead out of the directory, also through links, are refused by the crate.
        Ok(archive.unpack(dir.path())?)
    };
    unpack().with_context(|| format!("unpack {}", path.display()))?;
    let top = std::fs::read_dir(dir.path())?.next().transpose()?.map(|e| e.path());
    match top {
        Some(top) if top.join("core").is_file() => start(&top, dir.path(), debugger),
        _ => bail!(
            "{} is no bundle of `oci-coredump export`: there is no core in it",
            path.display()
        ),
    }
}

fn temporary() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("oci-coredump-")
        .tempdir_in("/var/tmp")
        .or_else(|_| tempfile::tempdir())
        .context("make a temporary directory")
}

/// Starts it on the crash in `dir`, which is or is in `own`.
fn start(dir: &Path, own: &Path, debugger: &Debugger) -> Result<ExitCode> {
    let mut command = command(dir, debugger);
    if debugger.gives_up_rights() {
        give_away(own).context("give the copies away")?;
        // Its settings are root's no more.
        command.uid(NOBODY).gid(NOBODY).env("HOME", own).current_dir(own);
    }
    let status = process::run_in_foreground(&mut command)
        .with_context(|| format!("start {}", debugger.program.display()))?;
    ensure!(status.code().is_some(), "{} was killed: {status}", debugger.program.display());
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}

/// To the user that the debugger will be. Links are not followed.
fn give_away(path: &Path) -> std::io::Result<()> {
    lchown(path, Some(NOBODY), Some(NOBODY))?;
    if std::fs::symlink_metadata(path)?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_away(&entry?.path())?;
        }
    }
    Ok(())
}

fn command(dir: &Path, debugger: &Debugger) -> Command {
    let mut command = Command::new(&debugger.program);
    let at = |name: &str| dir.join(name);
    let is_lldb =
        debugger.program.file_name().is_some_and(|n| n.to_string_lossy().starts_with("lldb"));
    let has_exe = std::fs::symlink_metadata(at("exe")).is_ok();
    if is_lldb {
        command.arg("-O").arg(format!("settings set target.exec-search-paths {:?}", at("lib")));
        command
            .arg("-O")
            .arg(format!("settings set target.debug-file-search-paths {:?}", at("debug")));
        command.arg("--core").arg(at("core"));
        if has_exe {
            command.arg(at("exe"));
        }
    } else {
        for setting in [
            // The binaries are a container's: what they would have gdb run is not run.
            "set auto-load off".to_owned(),
            format!("set sysroot {}", at("root").display()),
            format!("set solib-search-path {}", at("lib").display()),
            format!("set debug-file-directory {}:/usr/lib/debug", at("debug").display()),
        ] {
            command.arg("-iex").arg(setting);
        }
        if has_exe {
            command.arg("-se").arg(at("exe"));
        }
        command.arg("-core").arg(at("core"));
    }
    command.args(&debugger.arguments);
    command
}
