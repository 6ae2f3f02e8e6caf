//! Calls a runtime's command line as an engine does.

use super::bundle::ProbeBundle;
use super::probe::observations;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that a call may take; after that it is ended and counts as failed.
const DEADLINE: Duration = Duration::from_secs(20);
/// How often a state is polled that has no event.
const TICK: Duration = Duration::from_millis(5);

/// The result of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RuntimeOutput {
    /// Whether it exited with status 0.
    pub success: bool,
    /// How it ended, and the end of its stderr.
    pub text: String,
}

/// The container of a bundle. Dropping it kills and deletes the container, whatever
/// state the runtime reports.
pub(super) struct ProbedContainer<'a> {
    runtime: &'a Path,
    /// The bundle that it was created from.
    pub bundle: &'a ProbeBundle,
}

impl Drop for ProbedContainer<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.call(&["delete", "--force", &self.bundle.id]) {
            log::warn!("cannot delete the container {}, ignoring: {e:#}", self.bundle.id);
        }
    }
}

impl<'a> ProbedContainer<'a> {
    /// Calls `create`. The container may exist or not.
    pub(super) fn create(
        runtime: &'a Path,
        bundle: &'a ProbeBundle,
    ) -> Result<(Self, RuntimeOutput)> {
        bundle.write()?;
        let container = ProbedContainer { runtime, bundle };
        let directory = bundle.path("bundle");
        let said =
            container.call(&["create", "--bundle", &directory.to_string_lossy(), &bundle.id])?;
        Ok((container, said))
    }

    /// Runs the runtime's `start`, and returns what it said.
    pub(super) fn start(&self) -> Result<RuntimeOutput> {
        self.call(&["start", &self.bundle.id])
    }

    /// Runs the runtime's `kill` with SIGKILL.
    pub(super) fn kill(&self) -> Result<RuntimeOutput> {
        self.call(&["kill", &self.bundle.id, "KILL"])
    }

    pub(super) fn delete(&self) -> Result<RuntimeOutput> {
        self.call(&["delete", &self.bundle.id])
    }

    /// Calls `state`; `None` if the runtime does not know the container.
    pub(super) fn state(&self) -> Result<Option<Value>> {
        let said = self.call(&["state", &self.bundle.id])?;
        if !said.success {
            return Ok(None);
        }
        Ok(serde_json::from_slice(&fs::read(self.bundle.path("stdout"))?).ok())
    }

    /// Waits, at most as long as a call may take, until the program has reported.
    /// `false` if it never does.
    pub(super) fn wait_for_program(&self) -> Result<bool> {
        let seen = || observations(&self.bundle.report()).iter().any(|s| s.stage == "program");
        let until = Instant::now() + DEADLINE;
        while !seen() && Instant::now() < until {
            // Checks once more, since it may have reported while the runtime was asked.
            if self.stopped()? {
                return Ok(seen());
            }
            std::thread::sleep(TICK);
        }
        Ok(seen())
    }

    /// Waits, at most as long as a call may take, until the runtime reports that the container is
    /// stopped or does not know it any more.
    pub(super) fn wait_until_stopped(&self) -> Result<bool> {
        let until = Instant::now() + DEADLINE;
        while !self.stopped()? {
            if Instant::now() > until {
                return Ok(false);
            }
            std::thread::sleep(TICK);
        }
        Ok(true)
    }

    fn stopped(&self) -> Result<bool> {
        Ok(self.state()?.is_none_or(|s| s["status"] == "stopped"))
    }

    /// Calls the runtime. Its output goes to files: the container inherits them, and would keep a
    /// pipe open for as long as it lives.
    fn call(&self, args: &[&str]) -> Result<RuntimeOutput> {
        let (out, err) = (self.bundle.path("stdout"), self.bundle.path("stderr"));
        let mut child = Command::new(self.runtime)
            .arg("--root")
            .arg(self.bundle.path("state"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()
            .with_context(|| format!("start {}", self.runtime.display()))?;
        let until = Instant::now() + DEADLINE;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() > until => {
                    child.kill()?;
                    child.wait()?;
                    break None;
                }
                None => std::thread::sleep(TICK),
            }
        };
        let printed = fs::read(&err).unwrap_or_default();
        let printed = String::from_utf8_lossy(&printed);
        let last =
            printed.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("nothing on stderr");
        let how = status
            .map_or_else(|| format!("no end within {} s", DEADLINE.as_secs()), |s| s.to_string());
        let verb = args.first().copied().unwrap_or_default();
        Ok(RuntimeOutput {
            success: status.is_some_and(|s| s.success()),
            text: format!("{verb}: {how}: {last}"),
        })
    }
}
