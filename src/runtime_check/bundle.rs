//! A bundle whose hooks and program are this program. It needs no image,
//! since the binary is static.

use super::probe::{ANNOTATION, INSIDE, VARIABLE};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Seconds that a runtime gives a hook.
const TIMEOUT: u64 = 10;

/// A scratch directory with a bundle. Dropping it removes everything.
pub(super) struct ProbeBundle {
    scratch: TempDir,
    program: PathBuf,
    /// Container ID, which no other container has.
    pub id: String,
    /// The content of config.json, before it is written.
    pub config: Value,
}

impl ProbeBundle {
    /// A container without hooks, with a read-only root and a program that reports what it observes
    /// and then waits to be killed.
    pub(super) fn new() -> Result<Self> {
        let scratch = tempfile::Builder::new()
            .prefix("oci-coredump-verify-")
            .tempdir()
            .context("make a scratch directory")?;
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
        let program = std::env::current_exe().context("readlink(/proc/self/exe)")?;
        let id = scratch
            .path()
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let new = ProbeBundle { config: Value::Null, scratch, program, id };
        for directory in [
            "report",
            "volume",
            "state",
            "bundle/rootfs/verify/report",
            "bundle/rootfs/proc",
            "bundle/rootfs/dev",
            "bundle/rootfs/sys",
        ] {
            fs::create_dir_all(new.path(directory))
                .with_context(|| format!("mkdir {directory}"))?;
        }
        for file in [
            "outside",
            "report/seen",
            "bundle/rootfs/verify/inside",
            "bundle/rootfs/verify/program",
        ] {
            fs::write(new.path(file), "")?;
        }
        fs::write(new.path("volume/token"), &new.id)?;
        fs::write(new.path("view"), &new.id)?;
        let config = new.config();
        Ok(ProbeBundle { config, ..new })
    }

    /// A path in the scratch directory.
    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.scratch.path().join(below)
    }

    /// The lines that hooks and program have written so far, each a JSON object.
    pub(super) fn report(&self) -> String {
        fs::read_to_string(self.path("report/seen")).unwrap_or_default()
    }

    /// The command line of this program as a hook or as the container's program: `verify-probe`,
    /// the name under which it reports, and what it does besides.
    fn arguments(&self, program: &str, stage: &str, report: &Path, actions: &[String]) -> Value {
        let mut arguments = vec![
            program.to_owned(),
            "verify-probe".to_owned(),
            stage.to_owned(),
            report.display().to_string(),
        ];
        arguments.push(self.scratch.path().display().to_string());
        arguments.extend_from_slice(actions);
        json!(arguments)
    }

    /// Adds a hook to a stage. It reports under `name`; `timeout` is in seconds.
    pub(super) fn hook(
        &mut self,
        stage: &str,
        name: &str,
        timeout: Option<u64>,
        actions: &[String],
    ) {
        // Only for this stage is the path one in the container (config.md, "POSIX-platform Hooks").
        let inside = stage == "startContainer";
        let program =
            if inside { PathBuf::from(format!("{INSIDE}/program")) } else { self.program.clone() };
        let report = if inside {
            PathBuf::from(format!("{INSIDE}/report/seen"))
        } else {
            self.path("report/seen")
        };
        let hook = json!({
            "path": program,
            "args": self.arguments("oci-coredump", name, &report, actions),
            "env": [format!("{VARIABLE}={}", self.id)],
            "timeout": timeout.unwrap_or(TIMEOUT),
        });
        let list = &mut self.config["hooks"][stage];
        match list.as_array_mut() {
            Some(list) => list.push(hook),
            None => *list = json!([hook]),
        }
    }

    /// Writes config.json to the bundle.
    pub(super) fn write(&self) -> Result<()> {
        fs::write(self.path("bundle/config.json"), serde_json::to_vec_pretty(&self.config)?)
            .context("write config.json")
    }

    fn config(&self) -> Value {
        let report = PathBuf::from(format!("{INSIDE}/report/seen"));
        let none: [&str; 0] = [];
        json!({
            "ociVersion": "1.0.2",
            "hostname": "verify",
            "root": { "path": "rootfs", "readonly": true },
            "annotations": { ANNOTATION: self.id },
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": self.arguments(&format!("{INSIDE}/program"), "program", &report, &[]),
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": { "bounding": none, "effective": none, "permitted": none },
                "noNewPrivileges": true,
            },
            "hooks": {},
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                {
                    "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "mode=755", "size=65536k"],
                },
                {
                    "destination": format!("{INSIDE}/program"), "type": "bind",
                    "source": self.program, "options": ["bind", "ro"],
                },
                {
                    "destination": format!("{INSIDE}/report"), "type": "bind",
                    "source": self.path("report"), "options": ["bind", "rw"],
                },
            ],
            "linux": {
                "cgroupsPath": format!("/{}", self.id),
                "namespaces": [
                    { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                    { "type": "uts" }, { "type": "mount" },
                ],
                "readonlyPaths": ["/proc/sys"],
            },
        })
    }
}
