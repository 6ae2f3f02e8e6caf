//! What is there of a core whose writer was killed: with its container, or by the container's
//! memory limit.

use crate::dump::crash::facts::Facts;
use crate::dump::policy::plan::CorePlan;
use crate::dump::slots::Slot;
use crate::dump::writer::as_crasher::{self, Charge, Urgency};
use crate::dump::writer::create_file::OpenedDirectory;
use crate::dump::writer::protocol::{CreatedFile, Finished};
use crate::sys::sandbox::SandboxBounds;
use crate::sys::{AsFd, OwnedFd, file, proc};
use std::time::Duration;

const BOUNDS: SandboxBounds = SandboxBounds {
    memory: 256 << 20,
    cpu: 1,
    time: Duration::from_secs(2),
    output: 4096,
    file: 0,
};

/// The size, the bytes on disk and the identity of the file, if it still has its name. `core_file`:
/// by its number. `store`: the container's directory in the host's store.
pub(crate) fn measure(
    facts: &Facts,
    core_file: &CorePlan,
    made: CreatedFile,
    store: Option<&OwnedFd>,
    slot: Option<&Slot>,
) -> Option<Finished> {
    let files: Vec<_> =
        slot.iter().flat_map(|t| t.fds()).chain(store.map(OwnedFd::as_fd)).collect();
    let found = as_crasher::run::<Finished>(
        facts,
        core_file,
        &BOUNDS,
        Urgency::Now,
        Charge::Nobody,
        &files,
        |_, out| {
            // What is missing by now is not made for this.
            let core_file = &CorePlan { made_below: None, ..core_file.clone() };
            let Ok(directory) = OpenedDirectory::of(core_file, store, facts.status.umask) else {
                return;
            };
            let name = proc::os(directory.name);
            let Ok(identity) = file::identity_at(&directory.dir, name) else { return };
            let Ok(stat) = file::stat_at(&directory.dir, name) else { return };
            if Some(stat.id) == made.id && stat.id == identity.id {
                let (size, disk_size) = (Some(stat.size), Some(stat.allocated));
                let identity = Some(identity);
                as_crasher::say(
                    out,
                    &Finished { size, disk_size, identity, ..Finished::default() },
                );
            }
        },
    );
    found.ok()?.into_iter().next()
}
