//! The kernel's one `core_pattern`: takes it over, repairs it and restores it.
//!
//! The previous values are saved once, in the store, and put back by [`restore`].
//! Every write is read back and compared: since Linux 6.17 the kernel accepts a
//! pattern that it will refuse to use.

mod drop_in;

pub(crate) use drop_in::{OUR_PIPE_LIMIT, Until, write as write_drop_in};

use crate::config::{Config, Mode};
use crate::pattern::{Handler, MAX_LEN, Template};
use crate::registry::Registry;
use crate::store::Store;
use crate::sys::process::{self, Who};
use crate::sys::{OwnedFd, file, ns};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;

const PATTERN: &str = "/proc/sys/kernel/core_pattern";
const USES_PID: &str = "/proc/sys/kernel/core_uses_pid";
const PIPE_LIMIT: &str = "/proc/sys/kernel/core_pipe_limit";

/// The arguments of the dispatcher, in this order. `dump::crash::arguments` parses them.
pub(crate) const HANDLE_ARGUMENTS: &str =
    "handle v1 %P %p %I %i %u %g %d %s %t %c %C %F %h %e %f %E";

const SAVED: &str = "sysctl.json";

/// A second copy, written before the first: a power failure damages at most one of them.
const COPY: &str = "sysctl.json.copy";

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

    fn save(&self, store: &Store) -> Result<()> {
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
            Handler::Socket if self.core_pattern.contains("/systemd/coredump") => {
                systemd_pipe().map_or(Handler::Socket, |pattern| Handler::of(pattern.as_bytes()))
            }
            other => other,
        }
    }

    /// `kernel.core_pipe_limit` for the earlier handler, if it is a program.
    pub(crate) fn pipe_limit(&self) -> u32 {
        match self.core_pattern.starts_with('@') {
            true => SYSTEMD_PIPE_LIMIT,
            false => self.core_pipe_limit,
        }
    }
}

fn read(dir: &OwnedFd, name: &str) -> Result<Option<Saved>> {
    let file = match file::open_read(dir, name.as_ref()) {
        Err(crate::sys::Errno::NOENT) => return Ok(None),
        other => other.with_context(|| format!("open {name}"))?,
    };
    // The file names a program that root will start, so only root may be able to write it.
    let stat = file::stat(&file)?;
    ensure!(
        stat.regular && stat.uid == process::effective_uid() && stat.mode & 0o022 == 0,
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

/// `kernel.core_pattern` now, without its final newline.
pub(crate) fn core_pattern() -> Result<String> {
    let text = std::fs::read(PATTERN).with_context(|| format!("read {PATTERN}"))?;
    let text = String::from_utf8(text).map_err(|e| {
        anyhow::anyhow!("kernel.core_pattern is not UTF-8: {}", e.as_bytes().escape_ascii())
    })?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

/// `kernel.core_uses_pid` now: 0 or 1.
pub(crate) fn core_uses_pid() -> Result<u32> {
    number(USES_PID)
}

/// `kernel.core_pipe_limit` now: a number of processes, 0 for no limit and no waiting.
pub(crate) fn core_pipe_limit() -> Result<u32> {
    number(PIPE_LIMIT)
}

fn number(path: &str) -> Result<u32> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    text.trim().parse().with_context(|| format!("{path} holds {text:?}"))
}

/// Writes a sysctl, reads it back and compares. The newline is needed since an
/// empty write changes nothing.
fn write(path: &str, value: &str) -> Result<()> {
    std::fs::write(path, format!("{value}\n"))
        .with_context(|| format!("write {value:?} to {path}"))?;
    let now = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    ensure!(
        now.trim_end_matches('\n') == value,
        "wrote {value:?} to {path}, the kernel has {now:?}"
    );
    Ok(())
}

/// The pattern that makes the kernel start `helper`.
///
/// # Errors
/// The path cannot be used in a `core_pattern`: white space would split it, `%` starts a specifier,
/// and the whole pattern has at most 127 bytes.
pub(crate) fn dispatch_pattern(helper: &Path) -> Result<String> {
    let path = helper.to_str().with_context(|| format!("helper path {helper:?} is not UTF-8"))?;
    ensure!(path.starts_with('/'), "helper path {path:?} is not absolute");
    ensure!(
        !path.contains(|c: char| c.is_whitespace() || c.is_control() || c == '%'),
        "helper path {path:?} may not hold white space or `%`"
    );
    let pattern = format!("|{path} {HANDLE_ARGUMENTS}");
    ensure!(
        pattern.len() <= MAX_LEN,
        "helper path {path:?} is too long: a core_pattern has {MAX_LEN} bytes, {} would be needed",
        pattern.len()
    );
    Ok(pattern)
}

/// Whether a pattern starts this program, wherever it is installed. Such a pattern is never taken
/// for the earlier handler, or the two would start each other.
pub(crate) fn is_ours(pattern: &str) -> bool {
    let mut words = pattern.strip_prefix('|').unwrap_or("").split_whitespace();
    words.next().is_some_and(|p| p.rsplit('/').next() == Some("oci-coredump"))
        && words.next() == Some("handle")
}

/// Checks that only root can replace the helper, which the kernel runs as root for every crash.
///
/// # Errors
/// Names the part of the path that another user could change.
pub(crate) fn check_helper(helper: &Path) -> Result<()> {
    file::check_own(helper).with_context(|| format!("helper {}", helper.display()))
}

/// Dispatch mode: makes the kernel pipe every crash to `helper`. The previous pattern, if it is
/// not ours, becomes the earlier handler. Returns whether anything was written. The caller
/// holds the registry's lock.
pub(crate) fn take_over(store: &Store, helper: &Path) -> Result<bool> {
    let ours = dispatch_pattern(helper)?;
    let now = core_pattern()?;
    let limit = core_pipe_limit()?;
    if now == ours && limit >= OUR_PIPE_LIMIT {
        // The store is a new one.
        if read(store.dir(), SAVED).is_ok_and(|saved| saved.is_none())
            && let Some(saved) = Saved::load(store).unwrap_or(None)
        {
            saved.save(store)?;
        }
        return Ok(false);
    }
    check_helper(helper)?;
    ns::check_initial(helper)?;
    let old = Saved::load(store).unwrap_or_else(|e| {
        log::warn!("{e:#}: what handled crashes before is not known, using the default");
        None
    });
    let foreign =
        !is_ours(&now) && !old.as_ref().is_some_and(|s| !s.owners.is_empty() && s.ours == now);
    let saved = match old {
        Some(s) if !foreign => Saved { ours: ours.clone(), owners: vec![], ..s },
        // The kernel has our pattern already, but the previous values are lost.
        None if !foreign => Saved { ours: ours.clone(), ..Saved::unknown() },
        old => {
            // A `core_pipe_limit` that still is ours was not set by whoever wrote the pattern.
            let before = old.map_or(0, |s| s.core_pipe_limit);
            let core_pipe_limit = if limit == OUR_PIPE_LIMIT { before } else { limit };
            Saved {
                core_pattern: now.clone(),
                core_uses_pid: core_uses_pid()?,
                core_pipe_limit,
                owners: vec![],
                ours: ours.clone(),
            }
        }
    };
    saved.save(store)?;
    // The limit first: a helper that the kernel does not wait for may find its process gone.
    if limit < OUR_PIPE_LIMIT {
        write(PIPE_LIMIT, &OUR_PIPE_LIMIT.to_string())?;
    }
    if let Err(e) = write(PATTERN, &ours) {
        let _ = write(PATTERN, &now);
        return Err(e);
    }
    drop_in::write(drop_in::Until::Boot, &ours);
    Ok(true)
}

/// Kernel mode: writes a container's own pattern to the kernel. If two containers have different
/// patterns, the first keeps its own. The caller holds the registry's lock.
///
/// # Errors
/// The conflict, naming the container that keeps the pattern.
pub(crate) fn claim(
    store: &Store,
    config: &Config,
    id: &str,
    pattern: &Template,
    lives: impl Fn(&str) -> bool,
) -> Result<()> {
    ns::check_initial_pid()?;
    let text = String::from_utf8(pattern.text().to_vec()).context("pattern is not UTF-8")?;
    let now = core_pattern()?;
    let mut saved = match Saved::load(store).unwrap_or(None) {
        Some(s) if s.ours == now || is_ours(&now) => s,
        _ => Saved {
            core_pattern: now.clone(),
            core_uses_pid: core_uses_pid()?,
            core_pipe_limit: core_pipe_limit()?,
            owners: vec![],
            ours: String::new(),
        },
    };
    saved.owners.retain(|o| o != id && lives(o));
    if let (Some(owner), true) = (saved.owners.first(), saved.ours != text) {
        bail!(
            "the kernel's core_pattern is {:?} for container {owner}, who keeps it (mode = \
             \"kernel\" has one pattern for all)",
            saved.ours
        );
    }
    saved.owners.push(id.to_owned());
    saved.ours = text.clone();
    saved.save(store)?;
    write(USES_PID, if config.core_uses_pid { "1" } else { "0" })?;
    if now != text
        && let Err(e) = write(PATTERN, &text)
    {
        let _ = write(PATTERN, &now);
        return Err(e);
    }
    Ok(())
}

/// Kernel mode: container `id` is gone. After the last owner the earlier pattern is put back.
pub(crate) fn release(store: &Store, id: &str) -> Result<()> {
    let Ok(Some(mut saved)) = Saved::load(store) else { return Ok(()) };
    if !saved.owners.iter().any(|o| o == id) {
        return Ok(());
    }
    saved.owners.retain(|o| o != id);
    if saved.owners.is_empty() {
        return restore(store).map(drop);
    }
    saved.save(store)
}

/// Puts the saved sysctls back, unless another program has changed them since. If the saved values
/// are damaged or missing, the default takes their place. Returns a description of what was put
/// back, `None` if there was nothing to do.
pub(crate) fn restore(store: &Store) -> Result<Option<String>> {
    drop_in::remove();
    let now = core_pattern()?;
    let saved = match Saved::load(store) {
        Ok(None) if !is_ours(&now) => return Ok(None),
        Ok(Some(saved)) => saved,
        Ok(None) | Err(_) => {
            log::warn!("what kernel.core_pattern was before is not known, using the default");
            Saved::unknown()
        }
    };
    let mut said = format!("kernel.core_pattern is {now:?}, which is not ours, left as it is");
    if now == saved.ours || is_ours(&now) {
        write(PATTERN, &saved.core_pattern)?;
        write(USES_PID, &saved.core_uses_pid.to_string())?;
        said = format!("kernel.core_pattern = {:?}", saved.core_pattern);
    }
    if core_pipe_limit()? == OUR_PIPE_LIMIT {
        write(PIPE_LIMIT, &saved.core_pipe_limit.to_string())?;
    }
    let run = Registry::open();
    let copies = [(Some(store.dir()), COPY), (Some(store.dir()), SAVED)];
    for (dir, name) in copies.into_iter().chain([(run.as_ref().map(Registry::dir), SAVED)]) {
        if let Some(dir) = dir
            && let Err(e) = file::unlink(dir, name.as_ref())
        {
            log::warn!("{name} cannot be removed, ignoring: {e:#}");
        }
    }
    Ok(Some(said))
}

/// Writes our pattern again if another program has overwritten it since the take-over; the other
/// program's pattern becomes the earlier handler. Cheap if nothing has to be done. Returns
/// whether it was necessary.
///
/// # Errors
/// It cannot be written.
pub(crate) fn mend(config: &Config) -> Result<bool> {
    if config.mode != Mode::Dispatch || process::who() != Who::Root {
        return Ok(false);
    }
    let now = core_pattern()?;
    if is_ours(&now) {
        return Ok(false);
    }
    let Some(store) = Store::look(&config.store)? else { return Ok(false) };
    // Nothing was taken over, or it was put back.
    if Saved::load(&store).is_ok_and(|saved| saved.is_none()) {
        return Ok(false);
    }
    let registry = Registry::create()?;
    let _lock = registry.lock()?;
    let helper = std::env::current_exe().context("readlink(/proc/self/exe)")?;
    let mended = take_over(&store, &helper)?;
    if mended {
        log::warn!(
            "another program had set kernel.core_pattern to {now:?}: put back; containers whose \
             processes crashed meanwhile have no core here"
        );
    }
    Ok(mended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_start_us() {
        let p = dispatch_pattern(Path::new("/usr/libexec/oci/hooks.d/oci-coredump")).unwrap();
        assert!(p.len() <= MAX_LEN && is_ours(&p), "{p}");
        assert!(is_ours("|/opt/x/oci-coredump handle %P"));
        for other in [
            "core",
            "|/usr/lib/systemd/systemd-coredump %P",
            "/var/oci-coredump handle",
            "|/bin/oci-coredump list",
            "|",
            "",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn helper_paths_that_cannot_stand_in_a_pattern() {
        for bad in [
            "relative/oci-coredump",
            "/opt/my tools/oci-coredump",
            "/opt/100%/oci-coredump",
            &format!("/{}/oci-coredump", "x".repeat(60)),
        ] {
            assert!(dispatch_pattern(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
