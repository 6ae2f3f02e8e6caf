//! The user ID that only the program has.

use crate::sys::child;
use crate::sys::cred::{self, Credentials};
use anyhow::{Context, Result, ensure};

/// Takes on this user and group ID for good, without any capability.
pub(super) fn become_user(uid: u32) -> Result<()> {
    let own = Credentials {
        uid: [uid; 4],
        gid: [uid; 4],
        groups: Vec::new(),
        effective: 0,
        permitted: 0,
    };
    cred::assume(&own, None)
}

/// Kills all processes with this user ID, which is the program's own, including those
/// that a debugger has started.
///
/// # References
/// kill(2): -1 signals all processes that the caller may signal, except itself.
pub(crate) fn end_all_of(uid: u32) {
    // The processes may be quick enough to kill the child that kills them, but not ten times.
    for _ in 0..10 {
        let attempt = || -> Result<()> {
            become_user(uid)?;
            let ids = [rustix::process::getuid().as_raw(), rustix::process::geteuid().as_raw()];
            ensure!(uid > 0 && ids == [uid; 2], "setresuid did not take");
            // SAFETY: kill touches no memory. All IDs of this child are the program's own.
            match unsafe { libc::kill(-1, libc::SIGKILL) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()).context("kill(-1)"),
            }
        };
        let Ok(child) = child::fork(|| {
            i32::from(attempt().is_err_and(|e| {
                e.root_cause().downcast_ref::<std::io::Error>().and_then(|e| e.raw_os_error())
                    != Some(libc::ESRCH)
            }))
        }) else {
            return;
        };
        let time = std::time::Duration::from_secs(5);
        if matches!(child.end_within(time), Ok(Some(child::Ended::Exit(0)))) {
            return;
        }
    }
}
