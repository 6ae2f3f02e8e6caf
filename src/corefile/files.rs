//! Finding the files of a core's modules: from the container while it is there, from a directory that looks like it, from the kept binaries. Only opened
//! here, never read: whether it is the right one is for the jailed reader to say.

use super::Module;
use super::identity::{is_name, is_name_of};
use crate::sys::OwnedFd;
use crate::sys::file;
use crate::sys::resolve::{self, Below};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

/// Where a module's file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Kept in the store.
    Kept,
    /// In the container, which still runs, or in the directory given instead.
    Root,
}

/// A module's file and its debug information, open.
#[derive(Debug, Default)]
pub struct Opened {
    /// The file.
    pub file: Option<(Origin, File)>,
    /// Its separate debug information.
    pub debug: Option<File>,
}

/// Where to look. None of it need be there.
#[derive(Debug, Default)]
pub struct Places {
    /// The container's root directory, or one like it. Links in it do not lead out of it.
    pub root: Option<OwnedFd>,
    /// `<store>/binaries`: files named by their build-id in hexadecimal, and their content.
    pub kept: Option<OwnedFd>,
    /// Of the kept ones only these, by the path of the module: those that the crashed process could read itself. Whoever gets its core gets them, and a core can
    /// name any.
    pub own: Option<BTreeMap<String, String>>,
    /// Directories of debug information, laid out as gdb has it: `.build-id/ab/cdef.debug`.
    pub debug: Vec<OwnedFd>,
}

impl Places {
    /// The usual places: `root`, the kept binaries of `store`, and the debug information that the container and the host have installed.
    pub fn usual(root: Option<OwnedFd>, store: Option<&Path>) -> Self {
        let host = |path: &Path| file::open_dir(path).ok();
        let debug_in = |root: &OwnedFd| {
            resolve::resolve(root, OsStr::new("usr/lib/debug"), Below::InRoot, true).ok()
        };
        let debug = root
            .as_ref()
            .and_then(debug_in)
            .into_iter()
            .chain(host(Path::new("/usr/lib/debug")))
            .collect();
        Places { root, kept: store.and_then(|s| host(&s.join("binaries"))), own: None, debug }
    }

    /// Opens what can be opened of a module. A kept binary comes first: it was taken at the crash, the container's may have been replaced since.
    pub fn open(&self, module: &Module) -> Opened {
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
        let there = || {
            Some((
                Origin::Root,
                below(self.root.as_ref()?, path.strip_prefix('/')?, Below::InRoot)?,
            ))
        };
        let debug = id.and_then(|id| {
            let name = format!(".build-id/{}/{}.debug", &id[..2], &id[2..]);
            self.debug.iter().find_map(|d| below(d, &name, Below::InRoot))
        });
        Opened { file: kept().or_else(there), debug }
    }

    /// Under which name the module's file is kept: as the record says. Without a record that with the build-id, if it is the only one: anybody may have made another.
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
