//! A sysctl.d(5) file with our values, so that they hold from boot on, and again after
//! systemd-sysctl has run. It sorts after the files of systemd and the distributions, 50- and 60-.

use crate::sys::file;
use std::path::Path;

/// `kernel.core_pipe_limit` while the pattern is ours: how many crashes the kernel may have with
/// the helper at once, waiting for each. With 0 it would not wait; beyond the limit a crash leaves
/// nothing. So it is far above what a host can run.
pub(crate) const OUR_PIPE_LIMIT: u32 = 65_535;

const NAME: &str = "61-oci-coredump.conf";

/// How long the values should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Until the next boot: /run/sysctl.d.
    Boot,
    /// Until it is removed: /etc/sysctl.d.
    Removed,
}

impl Until {
    fn directory(self) -> &'static str {
        match self {
            Until::Boot => "/run/sysctl.d",
            Until::Removed => "/etc/sysctl.d",
        }
    }
}

/// Writes the file if systemd runs; the one in /etc/sysctl.d also if that directory exists for
/// another program. A failure is only logged, since the kernel has the pattern already.
pub(crate) fn write(until: Until, pattern: &str) {
    let systemd = Path::new("/run/systemd/system").is_dir();
    let directory = Path::new(until.directory());
    if !systemd && (until == Until::Boot || !directory.is_dir()) {
        return;
    }
    let text = format!(
        "# Written by oci-coredump, removed by `oci-coredump uninstall`.\n\
         kernel.core_pattern={pattern}\nkernel.core_pipe_limit={OUR_PIPE_LIMIT}\n"
    );
    let written = file::make_path(directory, 0o755)
        .and_then(|dir| file::replace(dir, NAME.as_ref(), text.as_bytes(), 0o644));
    if let Err(e) = written {
        log::warn!("cannot write {}/{NAME}, ignoring: {e:#}", directory.display());
    }
}

pub(super) fn remove() {
    for until in [Until::Boot, Until::Removed] {
        let Ok(dir) = file::open_dir(Path::new(until.directory())) else { continue };
        if let Err(e) = file::unlink(dir, NAME.as_ref()) {
            log::warn!("cannot remove {}/{NAME}, ignoring: {e:#}", until.directory());
        }
    }
    // It was made for this file, as a rule.
    let run = file::open_dir(Path::new("/run"));
    let _ = run.and_then(|run| file::remove_empty_dir(run, "sysctl.d".as_ref()));
}
