//! `debug`: opens a crash in a debugger, with the files that the process had under the paths that
//! they had in its container.
//!
//! All of these files were written by a container, and debuggers are large programs. So the
//! debugger works on copies, separate from the caller's terminal, environment and settings, and
//! reads no script or setting that came with the core. If root starts it, it runs under a user ID
//! that no other process has.

use super::crash_bundle::CrashBundle;
use super::debuginfod::Debuginfod;
use super::private::Private;
use super::programs::{self, SEARCH};
use super::selection::{MATCH, Which};
use super::source::{CrashSource, Packed};
use super::subject::{self, Subject};
use super::table;
use crate::sys::{file, isolated_terminal, kernel, user};
use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Open the newest matching crash in a debugger, with the executable and libraries that it had.
///
/// They are copied to a temporary directory, laid out as in the container, and removed when
/// the debugger ends. Only files with the build-id in the core are used. A MATCH that ends in
/// .tar.zst is a bundle that `export` has written, and one such as s3://BUCKET/... an uploaded
/// one, which oci-coredump-ship fetches. All of these files come from a container and are not
/// trusted: the debugger reads no settings and no scripts, has an empty HOME as
/// its working directory and a terminal of its own, and if root starts it, it runs as a user
/// ID that nothing else uses.
///
/// Example: oci-coredump debug nginx -A -batch -A -ex -A bt
#[derive(Debug, clap::Args)]
#[command(after_help = MATCH)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    from: Subject,
    #[command(flatten)]
    debugger: Debugger,
}

/// The debugger and how it is started.
#[derive(Debug, clap::Args)]
pub(super) struct Debugger {
    /// The debugger: gdb, lldb, or the path of one.
    #[arg(id = "debugger", long, value_name = "PROGRAM", default_value = "gdb")]
    pub program: PathBuf,
    /// Pass one more argument to the debugger; may be repeated.
    #[arg(short = 'A', value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
    /// Run the debugger as root, if you are root. Whatever the core makes
    /// it do is then done as root.
    #[arg(long)]
    pub as_root: bool,
    #[command(flatten)]
    pub debuginfod: Debuginfod,
}

impl Debugger {
    /// Root of a user namespace is excluded: it has no other IDs to give, and no
    /// more rights than its user.
    fn gives_up_rights(&self) -> bool {
        user::is_host_root() && !self.as_root
    }

    fn find(&self) -> Result<PathBuf> {
        programs::find(&self.program).with_context(|| {
            let name = self.program.display();
            format!("start {name}: install gdb, or name another debugger with --debugger")
        })
    }

    fn private(&self) -> Result<Private> {
        file::set_umask(0o077);
        Private::new(self.gives_up_rights())
    }
}

/// Opens the bundle that is named, else the newest matching crash.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let debugger = &args.debugger;
    // Before anything is copied.
    debugger.find()?;
    let others = [("--sysroot", args.from.sysroot.is_some())];
    let (chosen, query) = match args.which.source(&others)? {
        CrashSource::Packed(packed) => return run_packed(packed, debugger),
        CrashSource::Records(chosen, query) => (chosen, query),
    };
    let mut bundle =
        CrashBundle::collect(subject::open(&chosen, &query, &args.from, debugger.debuginfod)?)?;
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
        if let Some(words) = announced.shortened(&"debug: the core") {
            log::warn!("{words}");
        }
    } else {
        to.set_len(announced.size).context("ftruncate")?;
    }
    bundle.write(&mut tree, true)?;
    start(dir, &path, debugger)
}

pub(super) fn run_packed(packed: Packed<'_>, debugger: &Debugger) -> Result<ExitCode> {
    let (dir, at) = packed.unpack(|| debugger.private())?;
    start(dir, &at, debugger)
}

/// Starts the debugger on the crash in `at`, which lies in `dir`, and
/// removes `dir` when it has ended.
fn start(dir: Private, at: &Path, debugger: &Debugger) -> Result<ExitCode> {
    let (_, home) = dir.tree("home")?;
    let command = command(at, &home, debugger)?;
    let end = isolated_terminal::run(command, dir.owner)
        .with_context(|| format!("start {}", debugger.program.display()));
    drop(dir);
    match end? {
        isolated_terminal::End::Interrupted(signal) => isolated_terminal::die_of(signal),
        isolated_terminal::End::Exited(status) => {
            ensure!(status.code().is_some(), "{} was killed: {status}", debugger.program.display());
            Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
        }
    }
}

/// Environment variables of the caller that the debugger gets, besides LC_*.
const KEPT: [&str; 5] = ["TERM", "LANG", "COLUMNS", "LINES", "TZ"];

/// Where the debugger has its home, instead of the caller's.
const HOMES: [&str; 7] = [
    "HOME",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
];

fn command(at: &Path, home: &Path, debugger: &Debugger) -> Result<Command> {
    let mut command = Command::new(debugger.find()?);
    command.current_dir(home).env_clear().env("PATH", SEARCH);
    for (name, value) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if KEPT.contains(&text.as_ref()) || text.starts_with("LC_") {
            command.env(&name, value);
        }
    }
    command.envs(HOMES.map(|name| (name, home)));
    let downloads = debugger.debuginfod.debuginfod;
    if let Some(urls) = std::env::var_os("DEBUGINFOD_URLS").filter(|_| downloads) {
        command.env("DEBUGINFOD_URLS", urls);
    }
    let name = debugger.program.file_name().map(|name| name.to_string_lossy());
    command.args(match name.is_some_and(|name| name.starts_with("lldb")) {
        true => of_lldb(at, downloads),
        false => of_gdb(at, downloads),
    });
    command.args(&debugger.arguments);
    Ok(command)
}

/// The program of the crash, if it is there.
fn executable(at: &Path) -> Option<String> {
    let path = at.join("exe");
    path.symlink_metadata().is_ok().then(|| path.display().to_string())
}

/// The arguments for lldb. `downloads`: it may ask debuginfod servers.
fn of_lldb(at: &Path, downloads: bool) -> Vec<String> {
    let name = |name: &str| at.join(name).display().to_string();
    let settings = [
        "target.load-cwd-lldbinit false".to_owned(),
        "target.load-script-from-symbol-file false".to_owned(),
        format!("symbols.enable-external-lookup {downloads}"),
        format!("target.exec-search-paths {:?}", name("lib")),
        format!("target.debug-file-search-paths {:?}", name("debug")),
    ];
    let mut out = vec!["--no-lldbinit".to_owned()];
    out.extend(settings.into_iter().flat_map(|s| ["-O".to_owned(), format!("settings set {s}")]));
    out.extend(["--core".to_owned(), name("core")]);
    out.extend(executable(at));
    out
}

/// The arguments for gdb. `downloads`: it may ask debuginfod servers.
fn of_gdb(at: &Path, downloads: bool) -> Vec<String> {
    let name = |name: &str| at.join(name).display().to_string();
    let settings = [
        // The executables come from a container; gdb must not run what they ask for.
        "auto-load off".to_owned(),
        // An empty path would mean the default again.
        "auto-load safe-path /dev/null/none".to_owned(),
        format!("debuginfod enabled {}", if downloads { "on" } else { "off" }),
        "history save off".to_owned(),
        // The paths made here consist of plain characters, so that nothing needs quoting.
        format!("sysroot {}", name("root")),
        format!("solib-search-path {}", name("lib")),
        format!("debug-file-directory {}:/usr/lib/debug", name("debug")),
    ];
    let mut out = vec!["-nx".to_owned(), "-nh".to_owned()];
    out.extend(settings.into_iter().flat_map(|s| ["-iex".to_owned(), format!("set {s}")]));
    out.extend(executable(at).into_iter().flat_map(|path| ["-se".to_owned(), path]));
    out.extend(["-core".to_owned(), name("core")]);
    out
}
