//! The part of `verify` that runs as a hook or as the container's program: performs the actions
//! that it is told, and reports what it observes.

use crate::sys::file;
use crate::sys::proc::{self, CORE_LIMIT, Proc};
use crate::sys::resolve::{self, Below, Want};
use crate::sys::rlimit::{self, SoftAndHard};
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

/// The directory in the container that holds what this program needs there.
pub(super) const INSIDE: &str = "/verify";
/// The directory in the container that a hook makes and mounts on.
const VOLUME: &str = "verify/volume";
/// The file in the container that a hook mounts on.
const VIEW: &str = "proc/sys/kernel/core_pattern";
/// The environment variable that config.json gives a hook.
pub(super) const VARIABLE: &str = "OCI_COREDUMP_VERIFY";
/// The annotation of the container.
pub(super) const ANNOTATION: &str = "oci-coredump.verify/token";

const NAMESPACES: [&str; 6] = ["mnt", "pid", "net", "ipc", "uts", "user"];

/// How long the program, or a hook that is told to hang, lives: longer than
/// any runtime waits for it.
const LIFE: Duration = Duration::from_secs(60);

/// An action of a hook besides observing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeAction {
    /// Mount this directory of the host at `VOLUME` in the container, which is made for it, and the
    /// file `view` beside it over `VIEW`.
    Mount(PathBuf),
    /// Set the container's soft RLIMIT_CORE, in bytes.
    Limit(u64),
    /// Exit with this status, after reporting.
    Exit(u8),
    /// Keep running until killed, after reporting.
    Hang,
}

impl FromStr for ProbeAction {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let number = |n: &str| n.parse::<u64>().map_err(|e| format!("{word:?}: {e}"));
        match word.split_once(':').unwrap_or((word, "")) {
            ("mount", path) => Ok(ProbeAction::Mount(path.into())),
            ("limit", n) => Ok(ProbeAction::Limit(number(n)?)),
            ("exit", n) => {
                Ok(ProbeAction::Exit(u8::try_from(number(n)?).map_err(|e| e.to_string())?))
            }
            ("hang", "") => Ok(ProbeAction::Hang),
            _ => Err(format!("{word:?}: expected mount:DIR, limit:N, exit:N or hang")),
        }
    }
}

/// What one hook, or the container's program, saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Observation {
    /// Its stage, with a number if there are several; `program` for the container's own program.
    pub stage: String,
    /// The state that the runtime passed on stdin, if it was JSON.
    pub state: Option<Value>,
    /// Its namespaces, by inode number.
    pub namespaces: BTreeMap<String, u64>,
    /// Its soft RLIMIT_CORE in bytes.
    pub core: Option<u64>,
    /// Value of the environment variable from config.json.
    pub variable: Option<String>,
    /// Whether it has the container's root as `/`.
    pub inside: bool,
    /// Whether it can see the scratch directory of the host.
    pub outside: bool,
    /// The annotation in the bundle's config.json.
    pub annotation: Option<String>,
    /// The container's process that the state names.
    pub init: Option<ProbeInit>,
    /// The file that it reads in the volume that a hook mounted.
    pub volume: Option<String>,
    /// The content of the file that a hook mounted over.
    pub view: Option<String>,
    /// Actions and readings that failed.
    pub errors: Vec<String>,
}

/// The process that a state names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ProbeInit {
    /// Its namespaces, by inode number.
    pub namespaces: BTreeMap<String, u64>,
    /// The mount points in its mount namespace.
    pub mounts: Vec<PathBuf>,
    /// Content of the /proc/PID/cgroup of the observing process.
    pub cgroup: String,
}

/// Observes, performs the actions, and appends one line to `report`.
///
/// # Errors
/// The report cannot be written.
pub(crate) fn probe(
    stage: &str,
    report: &Path,
    scratch: &Path,
    actions: &[ProbeAction],
) -> Result<u8> {
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
            (ProbeAction::Mount(directory), Some(pid)) => mount_into(pid, directory, &observation),
            (ProbeAction::Limit(soft), Some(pid)) => set_limit(pid, *soft),
            (ProbeAction::Exit(status), _) => {
                code = *status;
                Ok(())
            }
            (ProbeAction::Hang, _) => Ok(()),
            (_, None) => Err(anyhow::anyhow!("the state names no process for {action:?}")),
        };
        if let Err(e) = done {
            observation.errors.push(format!("{e:#}"));
        }
    }
    // One write at the end of the file, so that lines of several processes stay whole.
    let line = serde_json::to_string(&observation)? + "\n";
    let mut file = OpenOptions::new()
        .append(true)
        .open(report)
        .with_context(|| format!("open {}", report.display()))?;
    file.write_all(line.as_bytes()).with_context(|| format!("write {}", report.display()))?;
    drop(file);
    // For a bounded time: a runtime that forgets the process must not leave it behind.
    if stage == "program" || actions.contains(&ProbeAction::Hang) {
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
    // In other stages the number is of another PID namespace than /proc, or of no process.
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

/// Parses the lines of a report.
pub(super) fn observations(report: &str) -> Vec<Observation> {
    report.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The namespaces of this process, by inode number.
pub(super) fn own_namespaces() -> BTreeMap<String, u64> {
    NAMESPACES.iter().filter_map(|n| Some(((*n).to_owned(), ns::own(n).ok()?))).collect()
}

fn core(limits: &[u8]) -> Option<u64> {
    proc::limit(limits, CORE_LIMIT).map(|l| l.soft.unwrap_or(u64::MAX))
}

/// The soft RLIMIT_CORE of a process; `u64::MAX` for unlimited.
pub(super) fn core_of(pid: i32) -> Result<u64> {
    core(&Proc::open(pid)?.read("limits")?).context("/proc/PID/limits is not understood")
}

fn annotation(config: &Path) -> Option<String> {
    let config: Value = serde_json::from_slice(&std::fs::read(config).ok()?).ok()?;
    config["annotations"][ANNOTATION].as_str().map(str::to_owned)
}

fn init(pid: i32) -> Result<ProbeInit> {
    let process = Proc::open(pid)?;
    let namespaces = NAMESPACES
        .iter()
        .map(|n| Ok(((*n).to_owned(), ns::inode(process.namespace(n)?)?)))
        .collect::<Result<_>>()?;
    let mounts = String::from_utf8_lossy(&process.read("mountinfo")?)
        .lines()
        .filter_map(|l| l.split(' ').nth(4).map(PathBuf::from))
        .collect();
    Ok(ProbeInit {
        namespaces,
        mounts,
        cgroup: String::from_utf8_lossy(&process.read("cgroup")?).into_owned(),
    })
}

/// As the real hook does it: opens what is to be mounted on the host, and attaches it to a
/// descriptor below the container's root.
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
    ns::in_mount_ns(Proc::open(pid)?.namespace("mnt")?, || {
        let root = file::open_dir(&rootfs)?;
        let (parent, name) = VOLUME.split_once('/').unwrap_or((VOLUME, ""));
        let parent = resolve::resolve(&root, parent.as_ref(), Below::NoLinks, Want::Directory)
            .context("openat2 of the directory in the container")?;
        file::mkdirat(&parent, name.as_ref(), 0o755).context("mkdirat in the container")?;
        let target = resolve::resolve(&parent, name.as_ref(), Below::NoLinks, Want::Directory)
            .context("openat2 of the new directory")?;
        mount::attach(&tree, &target)?;
        let sysctl = resolve::resolve(&root, VIEW.as_ref(), Below::NoLinks, Want::Any)
            .context("openat2 of the container's sysctl")?;
        ensure!(
            filesystem::fs_type(&sysctl)? == filesystem::FsType::Proc,
            "the container's /proc is not there yet"
        );
        mount::attach(&view, &sysctl)
    })
}

fn set_limit(pid: i32, soft: u64) -> Result<()> {
    let hard = Proc::open(pid)?.core_limit()?.hard;
    if hard.is_some_and(|h| h < soft) {
        bail!(
            "the container's hard RLIMIT_CORE is {}, lower than {soft}: start this with a higher \
             one",
            hard.unwrap_or_default()
        );
    }
    rlimit::set_core_of(pid, SoftAndHard { soft: Some(soft), hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions() {
        assert_eq!("limit:5".parse(), Ok(ProbeAction::Limit(5)));
        assert_eq!("mount:/a:b".parse(), Ok(ProbeAction::Mount("/a:b".into())));
        assert_eq!("exit:3".parse(), Ok(ProbeAction::Exit(3)));
        for bad in ["", "limit:", "limit:x", "exit:300", "hang:1", "dance"] {
            assert!(bad.parse::<ProbeAction>().is_err(), "{bad}");
        }
    }
}
