//! The kernel's one `core_pattern`: takes it over, repairs it and restores it. The previous values
//! are saved once, in the store, and put back by [`restore`].

mod drop_in;
mod interface;
mod saved;
mod values;

pub(crate) use drop_in::{OUR_PIPE_LIMIT, Until, write as write_drop_in};
pub(crate) use interface::{
    SOCKET, SOCKET_PATTERN, dispatch_pattern, has_socket, helper, is_served, is_socket, wanted,
};
pub(crate) use saved::Saved;
pub(crate) use values::{core_pattern, core_pipe_limit, core_uses_pid};

use crate::config::{Config, KernelInterface, Mode};
use crate::pattern::Pattern;
use crate::registry::Registry;
use crate::store::Store;

use crate::sys::user::{self, RunBy};
use crate::sys::{file, ns};
use anyhow::{Context, Result, bail};
use saved::{COPY, SAVED, read};
use std::path::Path;
use values::{PATTERN, PIPE_LIMIT, USES_PID, write};

/// Whether a pattern starts this program, wherever it is installed, or leads to its socket. Such a
/// pattern is never taken for the earlier handler, or the two would start each other.
pub(crate) fn is_ours(pattern: &str) -> bool {
    if pattern == SOCKET_PATTERN {
        return true;
    }
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

/// Dispatch mode: makes the kernel hand every crash to `helper`, by the pattern `ours`, which is
/// its own or the socket's ([`wanted`]). The previous pattern, if it is not ours, becomes the
/// earlier handler. Returns whether anything was written. The caller holds the registry's lock.
pub(crate) fn take_over(store: &Store, helper: &Path, ours: &str) -> Result<bool> {
    let at_boot = dispatch_pattern(helper)?;
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
        Some(s) if !foreign => Saved { ours: ours.to_owned(), owners: vec![], ..s },
        // The kernel has our pattern already, but the previous values are lost.
        None if !foreign => Saved { ours: ours.to_owned(), ..Saved::unknown() },
        old => {
            // A `core_pipe_limit` that still is ours was not set by whoever wrote the pattern.
            let before = old.map_or(0, |s| s.core_pipe_limit);
            let core_pipe_limit = if limit == OUR_PIPE_LIMIT { before } else { limit };
            Saved {
                core_pattern: now.clone(),
                core_uses_pid: core_uses_pid()?,
                core_pipe_limit,
                owners: vec![],
                ours: ours.to_owned(),
            }
        }
    };
    saved.save(store)?;
    // The limit first: a helper that the kernel does not wait for may find its process gone.
    if limit < OUR_PIPE_LIMIT {
        write(PIPE_LIMIT, &OUR_PIPE_LIMIT.to_string())?;
    }
    if let Err(e) = write(PATTERN, ours) {
        let _ = write(PATTERN, &now);
        return Err(e);
    }
    // When systemd applies the file, no server of the socket runs yet.
    drop_in::write(drop_in::Until::Boot, &at_boot);
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
    pattern: &Pattern,
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
        let before = saved.to_put_back();
        write(PATTERN, &before)?;
        write(USES_PID, &saved.core_uses_pid.to_string())?;
        said = format!("kernel.core_pattern = {before:?}");
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
/// program's pattern becomes the earlier handler. Also changes to the socket when a server runs
/// there, and back to the pipe when none does. Cheap if nothing has to be done. Returns whether
/// another program's was replaced.
///
/// # Errors
/// It cannot be written.
pub(crate) fn mend(config: &Config) -> Result<bool> {
    if config.mode != Mode::Dispatch || user::run_by() != RunBy::Root {
        return Ok(false);
    }
    let now = core_pattern()?;
    let is_settled = config.kernel_interface == KernelInterface::Pipe && now != SOCKET_PATTERN;
    if is_ours(&now) && is_settled {
        return Ok(false);
    }
    let helper = helper()?;
    let ours = wanted(config, &helper)?;
    // Which copy of this program a pipe starts is not looked at here.
    if is_ours(&now) && (now == SOCKET_PATTERN) == (ours == SOCKET_PATTERN) {
        return Ok(false);
    }
    let Some(store) = Store::open_existing(&config.store)? else { return Ok(false) };
    // Nothing was taken over, or it was put back.
    if Saved::load(&store).is_ok_and(|saved| saved.is_none()) {
        return Ok(false);
    }
    let registry = Registry::create()?;
    let _lock = registry.lock()?;
    let mended = take_over(&store, &helper, &ours)?;
    match (mended, is_ours(&now)) {
        (false, _) => {}
        (true, false) => log::warn!(
            "another program had set kernel.core_pattern to {now:?}: put back; containers whose \
             processes crashed meanwhile have no core here"
        ),
        (true, true) if ours == SOCKET_PATTERN => {
            log::info!("{SOCKET} is served: crashes come through it from now on")
        }
        (true, true) => log::warn!(
            "{SOCKET} is not served, or not configured any more: crashes come through the pipe \
             again; those since the server's end have no core"
        ),
    }
    Ok(mended && !is_ours(&now))
}

/// The pipe's pattern instead of the socket's, whatever is configured: the server ends. Returns
/// whether it was necessary.
///
/// # Errors
/// It cannot be written.
pub(crate) fn leave_socket(config: &Config) -> Result<bool> {
    if !is_socket()? {
        return Ok(false);
    }
    let (store, helper) = (Store::open(config)?, helper()?);
    let registry = Registry::create()?;
    let _lock = registry.lock()?;
    take_over(&store, &helper, &dispatch_pattern(&helper)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::MAX_LEN;

    #[test]
    fn patterns_that_start_us() {
        let p = dispatch_pattern(Path::new("/usr/libexec/oci/hooks.d/oci-coredump")).unwrap();
        assert!(p.len() <= MAX_LEN && is_ours(&p), "{p}");
        assert!(is_ours("|/opt/x/oci-coredump handle %P"));
        assert_eq!(SOCKET_PATTERN, format!("@@{SOCKET}"));
        assert!(is_ours(SOCKET_PATTERN));
        for other in [
            "core",
            "|/usr/lib/systemd/systemd-coredump %P",
            "/var/oci-coredump handle",
            "|/bin/oci-coredump list",
            "@@/run/systemd/coredump",
            "@/run/oci-coredump/coredump.socket",
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
