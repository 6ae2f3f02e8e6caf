//! What is below a container's directory of the store: cores, and the directories that the pattern
//! named for them. No link is followed.

use crate::sys::resolve::{Below, Want, resolve};
use crate::sys::{OwnedFd, file};
use anyhow::Result;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// How deep directories are looked at. A pattern of 127 bytes names fewer.
const DEPTH: usize = 64;

/// Most files and directories that are looked at: with `store_view = "rw"` the container makes
/// them.
const MOST: usize = 100_000;

/// Opens the directory that a file below `dir` is in, and returns the file's name in it.
pub(crate) fn parent<'a>(dir: &OwnedFd, below: &'a Path) -> Option<(OwnedFd, &'a OsStr)> {
    let below = below.strip_prefix("/").unwrap_or(below);
    let (parent, name) = (below.parent()?, below.file_name()?);
    let parent = if parent == Path::new("") { Path::new(".") } else { parent };
    Some((resolve(dir, parent.as_os_str(), Below::NoLinks, Want::Directory).ok()?, name))
}

/// The paths of the regular files below `dir`. One directory is open at a time, however many there
/// are; one that cannot be read is left out.
///
/// # Errors
/// `dir` cannot be read.
pub(crate) fn files(dir: &OwnedFd) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    let mut seen = 0;
    let mut left = vec![PathBuf::from(".")];
    let mut names = file::names(file::reopen_dir(dir)?)?;
    while let Some(path) = left.pop() {
        let Ok(here) = resolve(dir, path.as_os_str(), Below::NoLinks, Want::Directory) else {
            continue;
        };
        if path != Path::new(".") {
            names = file::reopen_dir(&here).and_then(file::names).unwrap_or_default();
        }
        for name in std::mem::take(&mut names) {
            seen += 1;
            if seen > MOST {
                return Ok(out);
            }
            let Ok(stat) = file::stat_at(&here, &name) else { continue };
            let path = path.join(&name);
            if stat.regular {
                out.push(path.strip_prefix(".").map_or_else(|_| path.clone(), Path::to_owned));
            } else if path.components().count() <= DEPTH && file::open_subdir(&here, &name).is_ok()
            {
                left.push(path);
            }
        }
    }
    Ok(out)
}

/// Removes the directory `name` if nothing but empty directories is in it. Returns whether it did.
///
/// # Errors
/// It cannot be removed, for another reason than that something is in it.
pub(crate) fn remove_if_empty(dir: &OwnedFd, name: &OsStr) -> Result<bool> {
    remove(dir, name, 0, &mut 0)
}

fn remove(dir: &OwnedFd, name: &OsStr, depth: usize, seen: &mut usize) -> Result<bool> {
    if file::remove_empty_dir(dir, name)? {
        return Ok(true);
    }
    let Ok(inner) = file::open_subdir(dir, name) else { return Ok(false) };
    for name in file::names(file::reopen_dir(&inner)?)? {
        *seen += 1;
        let is_dir = depth < DEPTH && *seen < MOST && file::open_subdir(&inner, &name).is_ok();
        if !is_dir || !remove(&inner, &name, depth + 1, seen)? {
            return Ok(false);
        }
    }
    file::remove_empty_dir(dir, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_empty_directories() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join("c").join(path);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir_all(at("empty/x/y")).unwrap();
        for path in ["core", "a/core", "a/b/core"] {
            std::fs::write(at(path), path).unwrap();
        }
        std::os::unix::fs::symlink("/etc", at("link")).unwrap();
        let top = file::open_dir(dir.path()).unwrap();
        let mut found = files(&file::open_dir(&at("")).unwrap()).unwrap();
        found.sort_unstable();
        assert_eq!(found, ["a/b/core", "a/core", "core"].map(PathBuf::from));
        // More directories than a process may have descriptors.
        for n in 0..1100 {
            std::fs::create_dir_all(at(&format!("many/{n}"))).unwrap();
        }
        assert_eq!(files(&file::open_dir(&at("")).unwrap()).unwrap().len(), 3);
        let (parent, name) =
            parent(&file::open_dir(&at("")).unwrap(), Path::new("/a/b/core")).unwrap();
        assert!(file::identity_at(parent, name).is_ok());
        assert!(super::parent(&top, Path::new("c/link/passwd")).is_none());

        assert!(!remove_if_empty(&top, "c".as_ref()).unwrap());
        assert!(at("a/b/core").exists());
        std::fs::remove_file(at("link")).unwrap();
        for path in ["core", "a/core", "a/b/core"] {
            std::fs::remove_file(at(path)).unwrap();
        }
        assert!(remove_if_empty(&top, "c".as_ref()).unwrap());
        assert!(!at("").exists() && Path::new("/etc").exists());
        assert!(!remove_if_empty(&top, "c".as_ref()).unwrap(), "it was not there");
    }
}
