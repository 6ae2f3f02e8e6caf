//! The hook's and the container's side: this program again, which does the actions that it is told,
//! and writes down what it sees.

use crate::sys::file;
use crate::sys::limit::{self, Limit};
use crate::sys::proc::Proc;
use crate::sys::resolve::{self, Below};
use crate::sys::{filesystem, mount, ns};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Where the container has what it needs for us.
pub const INSIDE: &str = "/verify";
/// The directory that a hook makes and mounts on, inside.
pub const VOLUME: &str = "verify/volume";
/// The file that it mounts on, inside.
pub const VIEW: &str = "proc/sys/kernel/core_pattern";
/// The variable that config.json gives a hook.
pub const VARIABLE: &str = "OCI_COREDUMP_VERIFY";
/// The annotation by which a container asks.
pub const ANNOTATION: &str = "oci-coredump.verify/token";

const NAMESPACES: [&str; 6] = ["mnt", "pid", "net", "ipc", "uts", "user"];
const CORE: &str = "Max core file size";

/// How long the program lives, and a hook that is told to hang: longer than anybody waits for it.
const LIFE: Duration = Duration::from_secs(60);

/// What a hook does besides looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Mounts this directory of the host at [`VOLUME`] of the container, which it makes; and the
    /// file beside it, `view`, over [`VIEW`].
    Mount(PathBuf),
    /// Sets the container's soft RLIMIT_CORE.
    Limit(u64),
    /// Ends with this exit status.
    Exit(u8),
    /// Does not end.
    Hang,
}

impl FromStr for Action {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let number = |n: &str| n.parse::<u64>().map_err(|e| format!("{word:?}: {e}"));
        match word.split_once(':').unwrap_or((word, "")) {
            ("mount", path) => Ok(Action::Mount(path.into())),
            ("limit", n) => Ok(Action::Limit(number(n)?)),
            ("exit", n) => Ok(Action::Exit(u8::try_from(number(n)?).map_err(|e| e.to_string())?)),
            ("hang", "") => Ok(Action::Hang),
            _ => Err(format!("{word:?}: expected mount:DIR, limit:N, exit:N or hang")),
        }
    }
}

/// What one hook, or the container's program, saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    /// Its stage, with a number where there are several; `program` for the container's own.
    pub stage: String,
    /// The state on stdin.
    pub state: Option<Value>,
    /// Its namespaces, by inode number.
    pub namespaces: BTreeMap<String, u64>,
    /// Its soft RLIMIT_CORE.
    pub core: Option<u64>,
    /// The variable that config.json gave it.
    pub variable: Option<String>,
    /// It sees the container's root as `/`.
    pub inside: bool,
    /// It sees the host's scratch directory.
    pub outside: bool,
    /// The annotation in the bundle's config.json.
    pub annotation: Option<String>,
    /// The container's process, as the state names it.
    pub init: Option<Init>,
    /// What it reads in the volume that a hook has mounted.
    pub volume: Option<String>,
    /// What it reads in the file that a hook has mounted something on.
    pub view: Option<String>,
    /// What went wrong.
    pub errors: Vec<String>,
}

/// The process that a state names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Init {
    /// Its namespaces.
    pub namespaces: BTreeMap<String, u64>,
    /// Where something is mounted in its mount namespace.
    pub mounts: Vec<PathBuf>,
    /// Its /proc/PID/cgroup.
    pub cgroup: String,
}

/// Looks, does, writes one line to the end of `report`.
///
/// # Errors
/// The report cannot be written.
pub fn probe(stage: &str, report: &Path, scratch: &Path, actions: &[Action]) -> Result<u8> {
    let mut observation = look(stage, scratch);
    let pid = observation
        .state
        .as_ref()
        .and_then(|s| s["pid"].as_i64())
        .and_then(|p| i32::try_from(p).ok())
        .filter(|p| *p > 1);
    let mut code = 0;
    for action in actions {
        let done = match (action, pid) {
            (Action::Mount(directory), Some(pid)) => mount_into(pid, directory, &observation),
            (Action::Limit(soft), Some(pid)) => set_limit(pid, *soft),
            (Action::Exit(status), _) => {
                code = *status;
                Ok(())
            }
            (Action::Hang, _) => Ok(()),
            (_, None) => Err(anyhow::anyhow!("the state names no process for {action:?}")),
        };
        if let Err(e) = done {
            observation.errors.push(format!("{e:#}"));
        }
    }
    // One write to the end of the file: lines of several processes stay whole.
    let line = serde_json::to_string(&observation)? + "\n";
    let mut file = OpenOptions::new()
        .append(true)
        .open(report)
        .with_context(|| format!("open {}", report.display()))?;
    file.write_all(line.as_bytes()).with_context(|| format!("write {}", report.display()))?;
    drop(file);
    // Not for ever: a runtime that forgets about it must not leave it behind.
    if stage == "program" || actions.contains(&Action::Hang) {
        std::thread::sleep(LIFE);
    }
    Ok(code)
}

fn look(stage: &str, scratch: &Path) -> Observation {
    let mut observation = Observation {
        stage: stage.to_owned(),
        variable: std::env::var(VARIABLE).ok(),
        ..Observation::default()
    };
    observation.inside = Path::new(INSIDE).join("inside").exists();
    observation.outside = scratch.join("outside").exists();
    observation.namespaces = own_namespaces();
    observation.core = File::open("/proc/self/limits")
        .ok()
        .and_then(|f| core(&file::read_bounded(f, 1 << 16, "limits").ok()?));
    if stage == "program" {
        observation.volume =
            std::fs::read_to_string(Path::new("/").join(VOLUME).join("token")).ok();
        observation.view = std::fs::read_to_string(Path::new("/").join(VIEW)).ok();
        return observation;
    }
    match file::read_bounded(std::io::stdin().lock(), 1 << 20, "the state on stdin")
        .and_then(|text| Ok(serde_json::from_slice::<Value>(&text)?))
    {
        Ok(state) => observation.state = Some(state),
        Err(e) => observation.errors.push(format!("the state on stdin: {e:#}")),
    }
    let text = |key: &str| observation.state.as_ref().and_then(|s| s[key].as_str());
    observation.annotation =
        text("bundle").and_then(|bundle| annotation(&Path::new(bundle).join("config.json")));
    // Elsewhere the number is of another PID namespace than /proc, or of nobody.
    if ["prestart", "createRuntime", "poststart"].iter().any(|s| stage.starts_with(s)) {
        let pid = observation.state.as_ref().and_then(|s| s["pid"].as_i64());
        match pid.and_then(|p| i32::try_from(p).ok()).context("the state has no pid").and_then(init)
        {
            Ok(init) => observation.init = Some(init),
            Err(e) => observation.errors.push(format!("the process of the state: {e:#}")),
        }
    }
    observation
}

/// The lines of a report.
pub fn observations(report: &str) -> Vec<Observation> {
    report.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The namespaces of this process, by inode number.
pub fn own_namespaces() -> BTreeMap<String, u64> {
    NAMESPACES.iter().filter_map(|n| Some(((*n).to_owned(), ns::own(n).ok()?))).collect()
}

fn core(limits: &[u8]) -> Option<u64> {
    crate::sys::proc::limit(limits, CORE).map(|l| l.soft.unwrap_or(u64::MAX))
}

/// The soft RLIMIT_CORE of a process; `u64::MAX` for unlimited.
pub fn core_of(pid: i32) -> Result<u64> {
    core(&Proc::open(pid)?.read("limits")?).context("/proc/PID/limits is not understood")
}

fn annotation(config: &Path) -> Option<String> {
    let config: Value = serde_json::from_slice(&std::fs::read(config).ok()?).ok()?;
    config["annotations"][ANNOTATION].as_str().map(str::to_owned)
}

fn init(pid: i32) -> Result<Init> {
    let process = Proc::open(pid)?;
    let namespaces = NAMESPACES
        .iter()
        .map(|n| Ok(((*n).to_owned(), ns::inode(process.namespace(n)?)?)))
        .collect::<Result<_>>()?;
    let mounts = String::from_utf8_lossy(&process.read("mountinfo")?)
        .lines()
        .filter_map(|l| l.split(' ').nth(4).map(PathBuf::from))
        .collect();
    Ok(Init {
        namespaces,
        mounts,
        cgroup: String::from_utf8_lossy(&process.read("cgroup")?).into_owned(),
    })
}

/// As the real hook does it: what is to be mounted is opened on the host, and put onto a descriptor
/// below the container's root.
fn mount_into(pid: i32, directory: &Path, observation: &Observation) -> Result<()> {
    let bundle = observation
        .state
        .as_ref()
        .and_then(|s| s["bundle"].as_str())
        .context("the state has no bundle")?;
    let rootfs = Path::new(bundle).join("rootfs");
    let tree = mount::clone_tree(file::open_dir(directory)?, false)?;
    let parent = file::open_dir(directory.parent().unwrap_or(directory))?;
    let view = mount::clone_tree(
        file::open_read(&parent, "view".as_ref()).context("open the view")?,
        true,
    )?;
    ns::inside_mount_ns(Proc::open(pid)?.namespace("mnt")?, || {
        let root = file::open_dir(&rootfs)?;
        let (parent, name) = VOLUME.split_once('/').unwrap_or((VOLUME, ""));
        let parent = resolve::resolve(&root, parent.as_ref(), Below::NoLinks, true)
            .context("openat2 of the directory in the container")?;
        file::mkdirat(&parent, name.as_ref(), 0o755).context("mkdirat in the container")?;
        let target = resolve::resolve(&parent, name.as_ref(), Below::NoLinks, true)
            .context("openat2 of the new directory")?;
        mount::attach(&tree, &target)?;
        let sysctl = resolve::resolve(&root, VIEW.as_ref(), Below::NoLinks, false)
            .context("openat2 of the container's sysctl")?;
        ensure!(
            filesystem::fs_type(&sysctl)? == filesystem::FsType::Proc,
            "the container's /proc is not there yet"
        );
        mount::attach(&view, &sysctl)
    })
}

fn set_limit(pid: i32, soft: u64) -> Result<()> {
    let hard = Proc::open(pid)?.limit(CORE)?.hard;
    if hard.is_some_and(|h| h < soft) {
        bail!(
            "the container's hard RLIMIT_CORE is {}, lower than {soft}: start this with a higher \
             one",
            hard.unwrap_or_default()
        );
    }
    limit::set_core_of(pid, Limit { soft: Some(soft), hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions() {
        assert_eq!("limit:5".parse(), Ok(Action::Limit(5)));
        assert_eq!("mount:/a:b".parse(), Ok(Action::Mount("/a:b".into())));
        assert_eq!("exit:3".parse(), Ok(Action::Exit(3)));
        for bad in ["", "limit:", "limit:x", "exit:300", "hang:1", "dance"] {
            assert!(bad.parse::<Action>().is_err(), "{bad}");
        }
    }
}
