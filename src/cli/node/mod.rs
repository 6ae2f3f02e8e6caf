//! `node`: installs on a Kubernetes node from a pod of a DaemonSet. Copies the program to the host;
//! the host's copy configures the engine and serves as its NRI plugin for as long as the pod runs.
//! `uninstall` undoes all of it.
//!
//! ```text
//! pod:          node serve --root /host   places a copy on the host, chroot, exec
//! host's copy:  node serve                install ENGINE, then NRI plugin until it is ended
//! ```

mod place;

use super::{install, uninstall, watch};
use crate::config::Config;
use crate::engine::{self, Options, detect};
use crate::sys::file;
use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Where the DaemonSet mounts the host's root.
const ROOT: &str = "/host";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum NodeAction {
    /// Copy the program to the host and configure the engine. containerd needs a restart then.
    Install,
    /// The same, but serve as the engine's NRI plugin, so that it needs no
    /// restart. Runs until stopped.
    Serve,
    /// Undo all of it.
    Uninstall,
    /// Run a command of this program on the host: `node run -- list`.
    Run,
}

/// Install on a Kubernetes node, or run a command there, from a pod: see deploy/.
///
/// The program is copied to the host, whose root is mounted at DIR. The host's copy configures
/// containerd or CRI-O, whichever is there, and with `serve` runs as its NRI plugin for as long
/// as the pod runs. A program that somebody else has installed is not replaced.
///
/// Example: oci-coredump node serve --root /host
///
/// Example: kubectl exec POD -- /oci-coredump node run -- export web-0 -o - > web-0.tar.zst
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to do.
    action: NodeAction,
    /// With `run`: the command, as it would be typed on the node.
    #[arg(last = true)]
    words: Vec<OsString>,
    /// Where the host's root is mounted; for `run` it is /host. Without it, this is the host
    /// and the program is in its place already.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The directory on the host for the program. Without it the first of
    /// /usr/libexec/oci/hooks.d, /opt/oci-coredump, /home/kubernetes/bin/oci-coredump and
    /// /var/lib/oci-coredump-node whose file system takes files and lets programs run.
    #[arg(long, value_name = "PATH")]
    directory: Option<PathBuf>,
    /// Make this file the host's /etc/oci-coredump/config.toml; `uninstall` removes it.
    #[arg(long, value_name = "FILE", requires = "root")]
    config: Option<PathBuf>,
    /// Keep running when done, so that a DaemonSet does not start the pod again.
    #[arg(long)]
    stay: bool,
}

impl Args {
    /// The verb and its action, for messages.
    pub(super) fn name(&self) -> &'static str {
        match self.action {
            NodeAction::Install => "node install",
            NodeAction::Serve => "node serve",
            NodeAction::Uninstall => "node uninstall",
            NodeAction::Run => "node run",
        }
    }

    /// The command that is to run on the node, from its root: `node run -- WORDS`.
    pub(super) fn command(&self) -> Option<(&Path, &[OsString])> {
        let root = self.root.as_deref().unwrap_or(Path::new(ROOT));
        (self.action == NodeAction::Run).then_some((root, self.words.as_slice()))
    }
}

/// Runs an action other than `run`.
///
/// # Errors
/// What cannot be read, understood or written.
pub(super) fn run(out: &mut impl Write, args: &Args) -> Result<ExitCode> {
    let (action, stay) = (args.action, args.stay);
    if let Some(root) = &args.root {
        return enter(out, root, args);
    }
    match action {
        NodeAction::Install | NodeAction::Run => tell(out, false)?,
        NodeAction::Serve => {
            tell(out, true)?;
            out.flush()?;
            // As oci-coredump.service does on other hosts.
            std::thread::spawn(|| watch::keep());
            match engine::nri::run_connecting(Path::new(engine::nri::SOCKET))? {}
        }
        NodeAction::Uninstall => {
            uninstall::all(out, false, false)?;
            let own = std::env::current_exe().context("readlink(/proc/self/exe)")?;
            place::take_away(out, own.parent().unwrap_or(Path::new("/")))?;
        }
    }
    out.flush()?;
    if stay && action == NodeAction::Install {
        watch::keep();
    }
    finish(out, stay)
}

/// With `stay` never returns, since a DaemonSet starts again what has ended.
fn finish(out: &mut impl Write, stay: bool) -> Result<ExitCode> {
    out.flush()?;
    if stay {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Leaves the pod: from here on every path is the host's.
///
/// # Errors
/// `root` is not a host's root with all that is mounted below it.
pub(super) fn step_in(root: &Path) -> Result<()> {
    let dir =
        file::open_dir(root).with_context(|| format!("the host's root at {}", root.display()))?;
    file::change_root(&dir)?;
    std::env::set_current_dir("/").context("chdir(\"/\") on the host")?;
    ensure!(
        Path::new("/proc/self/exe").exists(),
        "{}/proc is not the host's /proc: mount the host's / with all that is mounted below it",
        root.display()
    );
    Ok(())
}

/// Leaves the pod and executes the host's own copy of this program, which
/// sees only the host's paths.
fn enter(out: &mut impl Write, root: &Path, args: &Args) -> Result<ExitCode> {
    let own = File::open("/proc/self/exe").context("open this program")?;
    let config = args
        .config
        .as_ref()
        .map(|path| fs::read_to_string(path).with_context(|| format!("read {}", path.display())));
    let config = config.transpose()?;
    if let Some(text) = &config {
        Config::parse(text).context("the configuration for the node")?;
    }
    step_in(root)?;
    let given = args.directory.as_deref();
    let there = place::find(given);
    let directory = match (args.action, there) {
        (NodeAction::Uninstall, None) => {
            writeln!(out, "nothing was installed")?;
            return finish(out, args.stay);
        }
        (NodeAction::Uninstall, Some(there)) => there,
        (_, there) => {
            let directory = place::choose(given, there)?;
            place::place(out, own, directory)?;
            if let Some(text) = &config {
                place::place_config(out, text, directory)?;
            }
            directory
        }
    };
    out.flush()?;
    let program = directory.join(place::NAME);
    let mut command = Command::new(&program);
    command.args(args.name().split(' ')).args(args.stay.then_some("--stay"));
    Err(command.env_clear().env("PATH", PATH).exec())
        .with_context(|| format!("execve({program:?}) on the host"))
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
        if plugin && (speaks_nri(engine) || engine::takes_plugin(engine, &options)?) {
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

/// Whether a containerd serves NRI now: nothing of its configuration matters then, wherever a
/// distribution keeps or generates it.
fn speaks_nri(engine: engine::Engine) -> bool {
    use std::os::unix::fs::FileTypeExt;
    engine == engine::Engine::Containerd
        && fs::metadata(engine::nri::SOCKET).is_ok_and(|meta| meta.file_type().is_socket())
}
