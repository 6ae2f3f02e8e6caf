//! The cores that a container has already, as the crashed process sees them, and removing some of them with its rights: a core that it may not remove stays.

use super::quota::Kept;
use crate::sys::file::Identity;
use crate::sys::proc::os;
use crate::sys::{Errno, OwnedFd, file, resolve};

/// `store`: the container's directory in the host's store, if its cores go there.
///
/// Which of the cores are there, and which have gone: removed, renamed, replaced by another file.
pub fn look(cores: &[Kept], root: &[u8], store: Option<&OwnedFd>) -> (Vec<Kept>, Vec<Identity>) {
    let (there, gone): (Vec<_>, Vec<_>) =
        cores.iter().cloned().partition(|core| !matches!(find(core, root, store), Found::Gone));
    (there, gone.iter().map(|core| core.identity).collect())
}

/// Removes a core, if what has its name is that very file.
///
/// # Errors
/// Why it stays.
pub fn remove(core: &Kept, root: &[u8], store: Option<&OwnedFd>) -> Result<(), String> {
    match find(core, root, store) {
        Found::Gone => Ok(()),
        Found::There(dir, name) => file::unlink(dir, os(name)).map_err(|e| format!("{e:#}")),
        Found::Unknown(why) => Err(why),
    }
}

enum Found<'a> {
    There(OwnedFd, &'a [u8]),
    Gone,
    Unknown(String),
}

fn find<'a>(core: &'a Kept, root: &[u8], store: Option<&OwnedFd>) -> Found<'a> {
    let Some(path) =
        core.path.as_deref().filter(|_| core.root.as_bytes() == root).map(str::as_bytes)
    else {
        return Found::Unknown("it was written by a process with another root".into());
    };
    let at = path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
    let (dir, name) = path.split_at(at);
    let found = resolve::open_dir_as_process(dir)
        .map(|dir| super::writer::from_the_hosts_side(dir, store))
        .and_then(|dir| file::identity_at(&dir, os(name)).map(|found| (dir, found)));
    match found {
        Ok((dir, found)) if found.is_same_file(&core.identity) => Found::There(dir, name),
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Found::Gone,
        Err(e) => Found::Unknown(format!("{}: {e}", path.escape_ascii())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let core = |name: &str| {
            std::fs::write(path(name), name).unwrap();
            let identity =
                file::identity_at(file::open_dir(dir.path()).unwrap(), name.as_ref()).unwrap();
            Kept {
                path: Some(path(name).to_str().unwrap().into()),
                root: "/".into(),
                identity,
                size: 4,
            }
        };
        let cores = ["kept", "replaced", "renamed", "linked", "elsewhere", "again"].map(core);
        // Very likely under the same number.
        std::fs::remove_file(path("again")).unwrap();
        std::fs::write(path("again"), "mine").unwrap();
        std::fs::write(path("other"), "").unwrap();
        std::fs::rename(path("other"), path("replaced")).unwrap();
        std::fs::rename(path("renamed"), path("mine")).unwrap();
        std::fs::rename(path("linked"), path("target")).unwrap();
        std::os::unix::fs::symlink("target", path("linked")).unwrap();
        let elsewhere = Kept { root: "/jail".into(), ..cores[4].clone() };
        let cores = [&cores[..4], &[elsewhere], &cores[5..]].concat();

        let (there, gone) = look(&cores, b"/", None);
        assert_eq!(there, [cores[0].clone(), cores[4].clone()]);
        assert_eq!(gone, [1, 2, 3, 5].map(|i| cores[i].identity));
        assert!(remove(&cores[4], b"/", None).is_err());
        for i in [0, 1, 2, 3, 5] {
            remove(&cores[i], b"/", None).unwrap();
        }
        let left: Vec<_> = ["kept", "replaced", "mine", "linked", "target", "elsewhere", "again"]
            .iter()
            .filter(|n| path(n).symlink_metadata().is_ok())
            .copied()
            .collect();
        assert_eq!(left, ["replaced", "mine", "linked", "target", "elsewhere", "again"]);
    }
}
