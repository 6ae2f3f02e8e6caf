//! The state that a runtime passes to its hooks, and the stage that it is for.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::path::PathBuf;

/// Largest state that is read, in bytes.
pub(super) const MAX: usize = 1 << 20;

/// The state of the OCI runtime-spec, as far as it is needed and as the runtimes really write it:
/// Kata's status is empty, crun's may be `starting`, and the PID may be missing, 0 or -1. (So the
/// strict type of `oci-spec` cannot be used; it accepts `{}` and refuses these.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct State {
    #[serde(default)]
    pub id: String,
    /// Status, such as `creating`; see [`Stage::of`].
    #[serde(default)]
    pub status: String,
    /// PID of the container process in the runtime namespace. Only meaningful at
    /// createRuntime, prestart and poststart.
    #[serde(default)]
    pub pid: Option<i64>,
    /// Absolute path of the bundle.
    #[serde(default)]
    pub bundle: PathBuf,
}

impl State {
    /// Parses and checks the text from stdin.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let state: State =
            serde_json::from_slice(text).context("the state on stdin is no OCI state")?;
        crate::registry::check_id(&state.id)?;
        ensure!(
            state.bundle.is_absolute(),
            "the state's bundle {:?} is not an absolute path",
            state.bundle
        );
        Ok(state)
    }

    /// The PID, if it can be that of a container's process.
    ///
    /// # Errors
    /// The PID is missing or not above 1.
    pub fn process(&self) -> Result<i32> {
        let pid = self.pid.and_then(|p| i32::try_from(p).ok()).filter(|p| *p > 1);
        pid.with_context(|| format!("the state names no container process (pid {:?})", self.pid))
    }
}

/// The stage of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// createRuntime, and its deprecated form prestart.
    CreateRuntime,
    /// poststart: the container's program runs.
    Poststart,
    /// poststop: the container is being deleted.
    Poststop,
}

impl Stage {
    /// The stage with this name on the command line.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "createRuntime" | "prestart" => Some(Stage::CreateRuntime),
            "poststart" => Some(Stage::Poststart),
            "poststop" => Some(Stage::Poststop),
            _ => None,
        }
    }

    /// The stage if the command line names none, as in a hooks.d file, which has one list of
    /// arguments for all its stages. The status alone does not distinguish createRuntime
    /// from poststart (both can be `created`), so it also matters whether this container
    /// process is registered already.
    pub fn of(state: &State, registered: bool) -> Self {
        match state.status.as_str() {
            "stopped" => Stage::Poststop,
            // Kata's status is empty, and a process that is gone has no PID.
            "" if state.process().is_err() => Stage::Poststop,
            _ if registered => Stage::Poststart,
            _ => Stage::CreateRuntime,
        }
    }

    /// Whether a failure may stop the container, which is never the case after it has started.
    pub fn may_fail(self) -> bool {
        self == Stage::CreateRuntime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_dialects() {
        let runc = br#"{"ociVersion":"1.0.2","id":"a","status":"creating","pid":12,
            "bundle":"/b","annotations":{"x":"y"}}"#;
        assert_eq!(State::parse(runc).unwrap().process().unwrap(), 12);
        let crun = b"{\n \"id\": \"a\", \"pid\": 12, \"root\": \"\\/b\\/rootfs\", \
            \"bundle\": \"\\/b\", \"status\": \"created\"\n}";
        assert_eq!(State::parse(crun).unwrap().bundle, PathBuf::from("/b"));
        for stopped in [
            r#"{"id":"a","status":"stopped","bundle":"/b"}"#,
            r#"{"id":"a","status":"stopped","pid":0,"bundle":"/b"}"#,
            r#"{"id":"a","status":"","pid":-1,"bundle":"/b"}"#,
        ] {
            assert!(State::parse(stopped.as_bytes()).unwrap().process().is_err(), "{stopped}");
        }
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "{}",
            r#"{"id":"../a","bundle":"/b"}"#,
            r#"{"id":"a","bundle":"b"}"#,
            r#"{"id":"a","bundle":"/b","pid":"x"}"#,
        ] {
            assert!(State::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn stages() {
        let with = |status: &str| State { status: status.into(), ..State::default() };
        assert_eq!(Stage::of(&with("creating"), false), Stage::CreateRuntime);
        assert_eq!(Stage::of(&with("created"), false), Stage::CreateRuntime);
        assert_eq!(Stage::of(&with("created"), true), Stage::Poststart);
        assert_eq!(Stage::of(&with("running"), true), Stage::Poststart);
        assert_eq!(Stage::of(&with("stopped"), true), Stage::Poststop);
        assert_eq!(Stage::of(&with(""), false), Stage::Poststop);
        assert_eq!(Stage::of(&State { pid: Some(7), ..with("") }, false), Stage::CreateRuntime);
    }
}
