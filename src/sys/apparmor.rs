//! AppArmor: the profile that confines a process, and running code under it.
//!
//! A thread cannot leave a profile again, so the code runs in a thread of its own, which then ends.
//! The profile's rules for signals and the like do not apply to the rest of the process, and the
//! other threads may use what this one has opened.

use super::file;
use super::proc::Proc;
use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The file of a task that shows its profile and sets another one, since Linux 5.8.
const CURRENT: &str = "attr/apparmor/current";

/// A profile, or several stacked ones, as the kernel writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile(String);

impl Profile {
    /// The profile of a task. `None` if nothing is enforced: AppArmor is off, the task is not
    /// confined, or its profile is in complain mode.
    ///
    /// # References
    /// aa_getcon(2).
    pub(crate) fn of(task: &Proc) -> Option<Self> {
        enforced(&task.read(CURRENT).ok()?)
    }
}

/// The name in `name (mode)`.
fn enforced(text: &[u8]) -> Option<Profile> {
    let text = std::str::from_utf8(text).ok()?.trim_end_matches(['\n', '\0']);
    let (name, mode) = text.strip_suffix(')')?.rsplit_once(" (")?;
    matches!(mode, "enforce" | "kill" | "mixed").then(|| Profile(name.to_owned()))
}

/// Puts threads of this process under a profile, even after it has changed its root and IDs.
#[derive(Debug)]
pub(crate) struct Confinement<'a> {
    profile: &'a Profile,
    tasks: OwnedFd,
}

impl<'a> Confinement<'a> {
    /// To be called by the process itself while it still has our root directory.
    pub(crate) fn open(profile: &'a Profile) -> Result<Self> {
        Ok(Confinement { profile, tasks: file::open_dir("/proc/self/task".as_ref())? })
    }

    /// Runs `work` in a thread that is under the profile.
    ///
    /// # Errors
    /// The thread could not be put under it, and nothing was done.
    ///
    /// # References
    /// aa_change_profile(2).
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let confined = || self.enter().map(|()| work());
        std::thread::scope(|scope| {
            let thread =
                std::thread::Builder::new().spawn_scoped(scope, confined).context("a thread")?;
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread panicked")))
        })
        .with_context(|| format!("the AppArmor profile {:?} cannot be taken on", self.profile.0))
    }

    fn enter(&self) -> Result<()> {
        let name = format!("{}/{CURRENT}", rustix::thread::gettid().as_raw_nonzero());
        let fd =
            rustix::fs::openat(&self.tasks, &name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .with_context(|| format!("openat({name:?})"))?;
        rustix::io::write(&fd, format!("changeprofile {}", self.profile.0).as_bytes())
            .with_context(|| format!("write({name:?})"))?;
        Ok(())
    }
}

impl AsFd for Confinement<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tasks.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_confines() {
        let table = [
            ("unconfined\n", None),
            ("docker-default (enforce)\n", Some("docker-default")),
            ("docker-default (enforce)\0", Some("docker-default")),
            ("with (brackets) (kill)", Some("with (brackets)")),
            ("docker-default (complain)\n", None),
            ("snap (unconfined)\n", None),
            ("a//&:ns:b (mixed)\n", Some("a//&:ns:b")),
            ("", None),
            ("system_u:system_r:container_t:s0\0", None),
        ];
        for (text, expected) in table {
            assert_eq!(
                enforced(text.as_bytes()),
                expected.map(|name| Profile(name.into())),
                "{text:?}"
            );
        }
    }
}
