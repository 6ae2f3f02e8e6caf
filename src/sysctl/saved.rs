//! The sysctls as they were before this project changed them, kept in the store, with a copy there
//! and one in the run directory.

use super::values::core_uses_pid;
use crate::pattern::Handler;
use crate::registry::Registry;
use crate::store::Store;
use crate::sys::{OwnedFd, file, socket, user};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

pub(super) const SAVED: &str = "sysctl.json";

/// A second copy, written before the first: a power failure damages at most one of them.
pub(super) const COPY: &str = "sysctl.json.copy";

/// What the path of systemd's socket has in it.
const SYSTEMD_SOCKET: &str = "/systemd/coredump";

/// How long a server of it may take to end the connection of a process that has not crashed.
const ANSWER: Duration = Duration::from_secs(2);

/// systemd's `kernel.core_pipe_limit`, from its 50-coredump.conf.
const SYSTEMD_PIPE_LIMIT: u32 = 16;

/// The sysctls as they were before this project changed them, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// `kernel.core_pattern` before the take-over. It names the handler of all crashes that are
    /// no registered container's.
    pub core_pattern: String,
    /// `kernel.core_uses_pid` before the take-over.
    pub core_uses_pid: u32,
    /// `kernel.core_pipe_limit` before the take-over.
    pub core_pipe_limit: u32,
    /// In kernel mode: the containers whose pattern is in the kernel. All have the same one.
    #[serde(default)]
    pub owners: Vec<String>,
    /// The `core_pattern` that this project wrote last.
    pub ours: String,
}

impl Saved {
    /// Reads the saved values, or a copy if the file is damaged or missing; `None` if
    /// nothing was taken over. The last copy is in the run directory, since the store may
    /// have been removed or replaced.
    ///
    /// # Errors
    /// All are damaged: names the first, and the reason.
    pub(crate) fn load(store: &Store) -> Result<Option<Self>> {
        let of_store = match (read(store.dir(), SAVED), read(store.dir(), COPY)) {
            (Ok(Some(saved)), _) | (_, Ok(Some(saved))) => return Ok(Some(saved)),
            (Err(e), _) | (_, Err(e)) => Err(e),
            (Ok(None), Ok(None)) => Ok(None),
        };
        Self::of_run().map_or(of_store, |saved| Ok(Some(saved)))
    }

    /// The copy in the run directory, if it is there and readable.
    pub(crate) fn of_run() -> Option<Self> {
        read(Registry::open()?.dir(), SAVED).unwrap_or(None)
    }

    /// The saved values. If none can be read: what the distribution
    /// configures, or the kernel's default.
    pub(crate) fn load_or_default(store: &Store) -> Self {
        Self::load(store).unwrap_or(None).unwrap_or_else(Self::unknown)
    }

    /// The values to assume where none are saved.
    pub(crate) fn unknown() -> Self {
        let systemd = systemd_pipe();
        Saved {
            core_pipe_limit: if systemd.is_some() { SYSTEMD_PIPE_LIMIT } else { 0 },
            core_pattern: systemd.unwrap_or_else(|| "core".into()),
            core_uses_pid: core_uses_pid().unwrap_or(0),
            owners: vec![],
            ours: String::new(),
        }
    }

    /// Saves them in all three places.
    pub(super) fn save(&self, store: &Store) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context("to JSON")?;
        file::replace_durably(store.dir(), COPY.as_ref(), &text, 0o600)?;
        file::replace_durably(store.dir(), SAVED.as_ref(), &text, 0o600)?;
        Registry::open()
            .map_or(Ok(()), |registry| file::replace(registry.dir(), SAVED.as_ref(), &text, 0o600))
    }

    /// The earlier handler, which gets all crashes that are no registered container's.
    /// systemd's socket, which accepts only the kernel, is replaced by the pipe program
    /// that systemd ships as well.
    pub(crate) fn handler(&self) -> Handler {
        match Handler::of(self.core_pattern.as_bytes()) {
            Handler::Socket if self.core_pattern.contains(SYSTEMD_SOCKET) => {
                systemd_pipe().map_or(Handler::Socket, |pattern| Handler::of(pattern.as_bytes()))
            }
            other => other,
        }
    }

    /// The pattern that is given back. A socket that is listened to and served by nobody would hold
    /// every crash of the host without an end: then systemd's pipe program, where it is systemd's.
    pub(super) fn to_put_back(&self) -> String {
        let Some(path) = self.core_pattern.strip_prefix('@') else {
            return self.core_pattern.clone();
        };
        let path = Path::new(path.trim_start_matches('@'));
        if socket::is_answered(path, ANSWER) {
            return self.core_pattern.clone();
        }
        let instead = self.core_pattern.contains(SYSTEMD_SOCKET).then(systemd_pipe).flatten();
        if instead.is_none() {
            log::warn!(
                "nobody answers at {}, where kernel.core_pattern led before: it leads there again",
                path.display()
            );
        }
        instead.unwrap_or_else(|| self.core_pattern.clone())
    }

    /// `kernel.core_pipe_limit` for the earlier handler, if it is a program.
    pub(crate) fn pipe_limit(&self) -> u32 {
        match self.core_pattern.starts_with('@') {
            true => SYSTEMD_PIPE_LIMIT,
            false => self.core_pipe_limit,
        }
    }
}

/// Reads one of the copies; `None` if it does not exist.
pub(super) fn read(dir: &OwnedFd, name: &str) -> Result<Option<Saved>> {
    let file = match file::open_read(dir, name.as_ref()) {
        Err(crate::sys::Errno::NOENT) => return Ok(None),
        other => other.with_context(|| format!("open {name}"))?,
    };
    // The file names a program that root will start, so only root may be able to write it.
    let stat = file::stat(&file)?;
    ensure!(
        stat.regular && stat.uid == user::effective_uid() && stat.mode & 0o022 == 0,
        "{name} is not root's alone"
    );
    let text = file::read_bounded(file, 1 << 16, name)?;
    serde_json::from_slice(&text).map(Some).with_context(|| format!("{name} is damaged"))
}

/// The pattern that pipes cores to systemd-coredump, as systemd's own configuration has it;
/// `None` if it is not installed.
fn systemd_pipe() -> Option<String> {
    const PROGRAM: &str = "/usr/lib/systemd/systemd-coredump";
    let configured = std::fs::read_to_string("/usr/lib/sysctl.d/50-coredump.conf").ok();
    let configured = configured.iter().flat_map(|text| text.lines()).find_map(|line| {
        let (key, value) = line.trim().trim_start_matches('-').split_once('=')?;
        (key.trim() == "kernel.core_pattern").then(|| value.trim().to_owned())
    });
    let is_there = Path::new(PROGRAM).exists();
    configured
        .filter(|pattern| is_there && pattern.starts_with(&format!("|{PROGRAM} ")))
        .or_else(|| is_there.then(|| format!("|{PROGRAM} %P %u %g %s %t %c %h %d %F")))
}
