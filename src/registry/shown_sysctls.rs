//! The files that a container sees as its sysctls.

use super::{Registry, check_id};
use crate::sys::file;
use anyhow::Result;
use std::os::fd::OwnedFd;

/// A sysctl of `kernel` of which a container has a view of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sysctl {
    CorePattern,
    /// Whether the PID is appended.
    CoreUsesPid,
}

impl Sysctl {
    pub(crate) const ALL: [Sysctl; 2] = [Sysctl::CorePattern, Sysctl::CoreUsesPid];

    /// Its file in /proc/sys/kernel.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Sysctl::CorePattern => "core_pattern",
            Sysctl::CoreUsesPid => "core_uses_pid",
        }
    }

    /// The file of a container's view. No container ID begins with a dot.
    fn view(self, id: &str) -> String {
        match self {
            Sysctl::CorePattern => id.to_owned(),
            Sysctl::CoreUsesPid => format!(".pid-{id}"),
        }
    }
}

impl Registry {
    /// Writes the file that the container sees as one of its sysctls, and opens it.
    pub(crate) fn make_view(&self, id: &str, of: Sysctl, value: &str) -> Result<OwnedFd> {
        check_id(id)?;
        let (views, name) = (file::make_dir(&self.run, "views".as_ref(), 0o700)?, of.view(id));
        file::replace(&views, name.as_ref(), format!("{value}\n").as_bytes(), 0o444)?;
        Ok(file::open_read(&views, name.as_ref())?.into())
    }

    /// Removes the files that [`Registry::make_view`] wrote. A mount of them stays readable.
    pub(crate) fn remove_views(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let views = file::make_dir(&self.run, "views".as_ref(), 0o700)?;
        let remove = |of: Sysctl| file::unlink(&views, of.view(id).as_ref());
        // Each by itself.
        Sysctl::ALL.map(remove).into_iter().collect()
    }
}
