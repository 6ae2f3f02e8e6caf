//! Finds the files of a core's modules: in the container while it runs, in a directory with its
//! files, among the kept binaries. The files are only opened here; the sandboxed reader decides
//! whether they are the right ones. Files in the container are opened with the rights of the
//! crashed process, since its core may name, and its mounts may show, any file of the host.

use super::identity::{is_name, is_name_of};
use super::results::Module;
use crate::sys::cred::{self, Credentials};
use crate::sys::resolve::{self, Below};
use crate::sys::{OwnedFd, file};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

/// Where a module's file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// Among the kept binaries in the store.
    Kept,
    /// In the running container, or in the directory given in its place.
    Root,
}

/// A module's file and its debug information, opened.
#[derive(Debug, Default)]
pub(crate) struct OpenedFiles {
    /// The file.
    pub file: Option<(Origin, File)>,
    /// Its separate debug information.
    pub debug: Option<File>,
}

/// Where to look. Any of these may be missing.
#[derive(Debug, Default)]
pub(crate) struct SearchPaths {
    /// The root directory of the container, or one like it. Links in it do not lead out of it.
    pub root: Option<OwnedFd>,
    /// `<store>/binaries`: files named by their build-id in hexadecimal and a hash of their
    /// content.
    pub kept: Option<OwnedFd>,
    /// The kept binaries that may be used, by the path of the module: those that the crashed
    /// process itself could read. Whoever gets the core gets these files, and a core can name any.
    pub own: Option<BTreeMap<String, String>>,
    /// Directories of debug information on the host, in gdb's layout: `.build-id/ab/cdef.debug`.
    pub debug: Vec<OwnedFd>,
    /// The credentials with which files below `root` are opened; `None` for the caller's own.
    pub reader: Option<Credentials>,
}

/// The directory of debug information in a container.
const DEBUG: &str = "usr/lib/debug";

impl SearchPaths {
    /// The usual places: `root`, the kept binaries of `store`, and the debug information installed
    /// in the container and on the host.
    pub(crate) fn usual(root: Option<OwnedFd>, store: Option<&Path>) -> Self {
        let host = |path: &Path| file::open_dir(path).ok();
        let debug = host(Path::new("/").join(DEBUG).as_path()).into_iter().collect();
        let kept = store.and_then(|s| host(&s.join("binaries")));
        SearchPaths { root, kept, own: None, debug, reader: None }
    }

    /// Opens a file below the container's root.
    fn in_root(&self, path: &str) -> Option<File> {
        let root = self.root.as_ref()?;
        match &self.reader {
            None => below(root, path, Below::InRoot),
            Some(reader) => cred::run_as(reader, || below(root, path, Below::InRoot)).ok()?,
        }
    }

    /// Opens the files of a module that can be opened. A kept binary is preferred: it was copied at
    /// the crash, while the container's file may have been replaced since.
    pub(crate) fn open(&self, module: &Module) -> OpenedFiles {
        let id = module
            .build_id
            .as_deref()
            .filter(|id| id.len() > 2 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        let kept = || {
            Some((
                Origin::Kept,
                below(self.kept.as_ref()?, &self.kept_name(module)?, Below::NoLinks)?,
            ))
        };
        let path = module.path.trim_end_matches(" (deleted)");
        let in_root = || Some((Origin::Root, self.in_root(path.strip_prefix('/')?)?));
        let debug = id.and_then(|id| {
            let name = format!(".build-id/{}/{}.debug", &id[..2], &id[2..]);
            self.in_root(&format!("{DEBUG}/{name}"))
                .or_else(|| self.debug.iter().find_map(|d| below(d, &name, Below::InRoot)))
        });
        OpenedFiles { file: kept().or_else(in_root), debug }
    }

    /// The name under which the module's file is kept: the one in the record. Without a record, the
    /// one with the build-id if it is the only one, since anyone may have made another.
    fn kept_name(&self, module: &Module) -> Option<String> {
        if let Some(own) = &self.own {
            return own.get(&module.path).filter(|name| is_name(name)).cloned();
        }
        let id = module.build_id.as_deref()?;
        let all = file::names(file::reopen_dir(self.kept.as_ref()?).ok()?).ok()?;
        let mut all = all
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .filter(|name| is_name_of(name, id));
        all.next().filter(|_| all.next().is_none())
    }
}

fn below(dir: &OwnedFd, path: &str, how: Below) -> Option<File> {
    resolve::open_file_below(dir, OsStr::new(path), how).ok()
}
