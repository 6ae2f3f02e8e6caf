//! `node`: installs on a Kubernetes node from a pod of a DaemonSet. Copies the program to the host;
//! the host's copy configures the engine and serves as its NRI plugin for as long as the pod runs.
//! `uninstall` undoes all of it.
//!
//! ```text
//! pod:          node serve --root /host   places a copy on the host, chroot, exec
//! host's copy:  node serve                install ENGINE, then NRI plugin until it is ended
//! ```

use super::install;
use crate::config::Config;
use crate::engine::{self, Options, detect};
use crate::sys::file;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the program is placed on a host, the same directory as `make install` uses.
const DIRECTORY: &str = "/usr/libexec/oci/hooks.d";
const PROGRAM: &str = "/usr/libexec/oci/hooks.d/oci-coredump";
/// What `node` has placed on the host, and so may remove: a JSON array of paths in the
/// order in which they were made.
const PLACED: &str = "/usr/libexec/oci/hooks.d/.oci-coredump-node.json";
/// Links to the program: path and target.
const LINKS: [(&str, &str); 3] = [
    ("/usr/libexec/oci/hooks.d/oci-coredump-runtime", "oci-coredump"),
    ("/usr/bin/oci-coredump", "../libexec/oci/hooks.d/oci-coredump"),
    ("/usr/bin/oci-coredump-runtime", "../libexec/oci/hooks.d/oci-coredump"),
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Action {
    /// Copy the program to the host and configure the engine. containerd needs a restart then.
    Install,
    /// The same, but serve as the engine's NRI plugin, so that it needs no
    /// restart. Runs until stopped.
    Serve,
    /// Undo all of it.
    Uninstall,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Install => "install",
            Action::Serve => "serve",
            Action::Uninstall => "uninstall",
        }
    }
}

/// Runs an action. `root` is where the host's root directory is mounted, seen from the pod; without
/// it this is the host's own copy.
///
/// # Errors
/// What cannot be read, understood or written.
pub(super) fn run(
    out: &mut impl Write,
    action: Action,
    root: Option<&Path>,
    stay: bool,
) -> Result<()> {
    if let Some(root) = root {
        return enter(out, action, root, stay);
    }
    match action {
        Action::Install => tell(out, false)?,
        Action::Serve => {
            tell(out, true)?;
            out.flush()?;
            std::thread::spawn(keep_the_pattern);
            match engine::nri::run_connecting(Path::new(engine::nri::SOCKET))? {}
        }
        Action::Uninstall => {
            install::uninstall(out, false, false)?;
            take_away(out)?;
        }
    }
    out.flush()?;
    if stay && action == Action::Install {
        keep_the_pattern();
    }
    finish(out, stay)
}

/// Restores `core_pattern` in a loop, as oci-coredump.service does on other hosts.
fn keep_the_pattern() {
    if let Err(e) = super::watch::run() {
        log::error!("kernel.core_pattern is not watched: {e:#}");
    }
}

/// With `stay` never returns, since a DaemonSet starts again what has ended.
fn finish(out: &mut impl Write, stay: bool) -> Result<()> {
    out.flush()?;
    if stay {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    Ok(())
}

/// Leaves the pod and executes the host's own copy of this program, which
/// sees only the host's paths.
fn enter(out: &mut impl Write, action: Action, root: &Path, stay: bool) -> Result<()> {
    let own = File::open("/proc/self/exe").context("open this program")?;
    let dir =
        file::open_dir(root).with_context(|| format!("the host's root at {}", root.display()))?;
    file::change_root(&dir)?;
    std::env::set_current_dir("/").context("chdir(\"/\") on the host")?;
    ensure!(
        Path::new("/proc/self/exe").exists(),
        "{}/proc is not the host's /proc: mount the host's / with all that is mounted below it",
        root.display()
    );
    if action == Action::Uninstall && !Path::new(PROGRAM).exists() {
        writeln!(out, "nothing was installed")?;
        return finish(out, stay);
    }
    if action != Action::Uninstall {
        place(out, own)?;
    }
    out.flush()?;
    let mut command = Command::new(PROGRAM);
    command.args(["node", action.name()]).args(stay.then_some("--stay"));
    Err(command.env_clear().env("PATH", PATH).exec())
        .with_context(|| format!("execve({PROGRAM:?}) on the host"))
}

/// The paths placed before; none if the list does not exist.
fn placed() -> Result<Vec<PathBuf>> {
    match fs::read(PLACED) {
        Ok(text) => serde_json::from_slice(&text).context(PLACED),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).context(PLACED),
    }
}

/// Copies the program and its links to the host. Every path is recorded before it is made.
fn place(out: &mut impl Write, mut own: File) -> Result<()> {
    let mut placed = placed()?;
    let missing: Vec<&Path> =
        Path::new(DIRECTORY).ancestors().take_while(|p| !p.exists()).collect();
    for directory in missing.into_iter().rev() {
        fs::DirBuilder::new()
            .mode(0o755)
            .create(directory)
            .with_context(|| format!("mkdir {}", directory.display()))?;
        placed.push(directory.to_owned());
    }
    let known = |path: &str, placed: &[PathBuf]| placed.iter().any(|p| p == Path::new(path));
    let there = |path: &str| Path::new(path).symlink_metadata().is_ok();
    if there(PROGRAM) && !known(PROGRAM, &placed) {
        bail!(
            "{PROGRAM} is there and was not put there by this: remove that installation first \
             (`make uninstall`)"
        );
    }
    // A new file and a rename, since the kernel may be running the old one.
    let new = format!("{PROGRAM}.new");
    let _ = fs::remove_file(&new);
    let mut copy = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&new)
        .with_context(|| format!("create {new}"))?;
    std::io::copy(&mut own, &mut copy)
        .and_then(|_| copy.sync_all())
        .with_context(|| format!("write {new}"))?;
    fs::rename(&new, PROGRAM).with_context(|| format!("rename {new}"))?;
    if !known(PROGRAM, &placed) {
        placed.push(PROGRAM.into());
    }
    write_down(&placed)?;
    for (link, target) in LINKS {
        if !there(link) && Path::new(link).parent().is_some_and(Path::is_dir) {
            symlink(target, link).with_context(|| format!("symlink {link}"))?;
            placed.push(link.into());
            write_down(&placed)?;
        }
    }
    writeln!(out, "{PROGRAM} is this program, version {}", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}

fn write_down(placed: &[PathBuf]) -> Result<()> {
    let dir = file::open_dir(Path::new(DIRECTORY))?;
    let name = Path::new(PLACED).file_name().unwrap_or_default();
    file::replace(&dir, name, &serde_json::to_vec(placed)?, 0o644).context(PLACED)
}

/// Removes what was placed, the last first. A directory that has other files in it stays.
fn take_away(out: &mut impl Write) -> Result<()> {
    let placed = placed()?;
    if placed.is_empty() {
        writeln!(out, "{PROGRAM} stays: it was not put there by this")?;
        return Ok(());
    }
    fs::remove_file(PLACED).context(PLACED)?;
    for path in placed.iter().rev() {
        let result = if path.is_dir() && !path.is_symlink() {
            fs::remove_dir(path)
        } else {
            fs::remove_file(path)
        };
        match result {
            Ok(()) => writeln!(out, "removed {}", path.display())?,
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty
                ) => {}
            Err(e) => return Err(e).with_context(|| format!("remove {}", path.display())),
        }
    }
    Ok(())
}

/// Configures the Kubernetes engines that are found. `plugin`: this process will be
/// their NRI plugin; they must not start another one, since two plugins that set the
/// same limit would fail containers.
fn tell(out: &mut impl Write, plugin: bool) -> Result<()> {
    let engines = detect::of_kubernetes();
    ensure!(!engines.is_empty(), "neither containerd nor CRI-O is on this host");
    let options = Options::default();
    let told = engine::told(&Config::load()?);
    for engine in engines {
        if plugin && engine::takes_plugin(engine, &options)? {
            ensure!(
                told.iter().all(|(e, _)| *e != engine),
                "{} starts this plugin by itself already (`oci-coredump install`): `oci-coredump \
                 uninstall {0}` and restart it first",
                engine.name()
            );
            writeln!(out, "{}: by NRI, as long as this runs", engine.name())?;
        } else {
            install::install_engine(out, engine, &options, false)?;
        }
    }
    Ok(())
}
