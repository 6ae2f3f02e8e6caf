//! Whether a core is where its path on the host leads.

use crate::sys::child::{self, Ended};
use crate::sys::file::FileId;
use crate::sys::{descriptor, file, proc, resolve};
use std::path::Path;
use std::time::Duration;

/// Whether the file `id` is what its path on the host leads to.
///
/// The path on the host follows from what the hook saw when the container was made. Since then the
/// container may have changed its directories, and a process of it can have another root or other
/// mounts: the path is the core's only if it leads to the very file that was written.
///
/// `volume`: the directory on the host below which the container chooses what the path leads to. It
/// is not followed out of that.
pub(crate) fn is_at(host: Option<&[u8]>, volume: Option<&str>, id: Option<FileId>) -> bool {
    let found = host
        .and_then(|path| resolve::on_host(Path::new(proc::os(path)), volume.map(Path::new)).ok());
    found.is_some_and(|found| file::stat(found).is_ok_and(|stat| Some(stat.id) == id))
}

/// The same, checked by a child, since the volume may not answer any more. A child that hangs keeps
/// the slot.
pub(crate) fn answers_at(host: Option<&[u8]>, volume: Option<&str>, id: Option<FileId>) -> bool {
    const PATIENCE: Duration = Duration::from_secs(5);
    let child = child::fork(|| {
        descriptor::release_stdin();
        i32::from(!is_at(host, volume, id))
    });
    matches!(child.and_then(|child| child.end_within(PATIENCE)), Ok(Some(Ended::Exit(0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_the_container_do_not_lead_out_of_its_volume() {
        let host = tempfile::tempdir().unwrap();
        let volume = host.path().join("volume");
        fs::create_dir_all(volume.join("real")).unwrap();
        fs::write(volume.join("real/core"), "").unwrap();
        fs::write(host.path().join("core"), "").unwrap();
        symlink("/real", volume.join("inside")).unwrap();
        symlink(host.path(), volume.join("outside")).unwrap();
        symlink("..", volume.join("up")).unwrap();
        let id = |path: &Path| Some(file::stat(fs::File::open(path).unwrap()).unwrap().id);
        let leads = |name: &str, to: &Path| {
            let path = volume.join(name);
            is_at(path.to_str().map(str::as_bytes), volume.to_str(), id(to))
        };
        let core = volume.join("real/core");
        assert!(leads("real/core", &core));
        assert!(leads("inside/core", &core));
        for out in ["outside/core", "up/core", "../core"] {
            assert!(!leads(out, &host.path().join("core")), "{out}");
        }
        assert!(!is_at(None, volume.to_str(), id(&core)));
    }
}
