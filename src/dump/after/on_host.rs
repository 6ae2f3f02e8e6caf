//! Whether a core is where its path on the host leads.

use crate::sys::child::{self, Ended};
use crate::sys::{descriptor, proc};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// The path on the host follows from what the hook saw when the container was made. Since then the
/// container may have changed its directories, and a process of it can have another root or other
/// mounts: the path is the core's only if it leads to the very file that was written.
pub(crate) fn is_at(host: Option<&[u8]>, id: Option<(u64, u64)>) -> bool {
    let found = host.and_then(|path| std::fs::symlink_metadata(proc::os(path)).ok());
    found.is_some_and(|meta| Some((meta.dev(), meta.ino())) == id)
}

/// The same, checked by a child, since the volume may not answer any more. A child that hangs keeps
/// the slot.
pub(crate) fn answers_at(host: Option<&[u8]>, id: Option<(u64, u64)>) -> bool {
    const PATIENCE: Duration = Duration::from_secs(5);
    let child = child::fork(|| {
        descriptor::release_stdin();
        i32::from(!is_at(host, id))
    });
    matches!(child.and_then(|child| child.end_within(PATIENCE)), Ok(Some(Ended::Exit(0))))
}
