//! Finds the files of a core's modules, and those with their debug information: in the container
//! while it runs, in a directory with its files, among the kept binaries, on the host. The files
//! are only opened here; the sandboxed reader decides whether they are the right ones. Files in the
//! container are opened with the rights of the crashed process, since its core may name, and its
//! mounts may show, any file of the host.

use super::identity::{is_name, is_name_of};
use super::links::{Link, MOST_SPLIT};
use super::results::Module;
use crate::sys::cred::{self, Credentials};
use crate::sys::resolve::{self, Below};
use crate::sys::{OwnedFd, file};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

/// What is fetched of a build-id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Debug information.
    DebugInfo,
    /// The executable or library itself.
    Executable,
}

impl FileKind {
    /// As servers call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FileKind::DebugInfo => "debuginfo",
            FileKind::Executable => "executable",
        }
    }
}

/// Where a module's file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileOrigin {
    /// Among the kept binaries in the store.
    Kept,
    /// In the running container, or in the directory given in its place.
    Root,
    /// A debuginfod server gave it.
    Fetched,
}

/// Where files are by build-id that are not on this machine.
pub(crate) trait Servers: std::fmt::Debug {
    /// Fetches a file, or finds it among those that were fetched before. Its build-id is the one
    /// asked for. `None` if it cannot be had; the user was told why. `path`: the module's, for
    /// messages.
    fn fetch(&self, kind: FileKind, build_id: &str, path: &str) -> Option<File>;
}

/// A module's file and the files with its debug information, opened. Several may be candidates for
/// the same: the reader uses the one that belongs to the module.
#[derive(Debug, Default)]
pub(crate) struct OpenedFiles {
    /// The file.
    pub file: Option<(FileOrigin, File)>,
    /// Its separate debug information.
    pub debug: Vec<File>,
    /// What dwz moved out of that.
    pub supplementary: Vec<File>,
    /// The build-id of what dwz moved, in hexadecimal.
    pub common_id: Option<String>,
    /// Its split DWARF.
    pub split: Vec<File>,
}

impl OpenedFiles {
    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &File> {
        let file = self.file.iter().map(|(_, file)| file);
        file.chain(&self.debug).chain(&self.supplementary).chain(&self.split)
    }
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
    /// Asked for what is not found; `None`: nobody is asked.
    pub servers: Option<Box<dyn Servers>>,
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
        SearchPaths { root, kept, debug, ..SearchPaths::default() }
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
                FileOrigin::Kept,
                below(self.kept.as_ref()?, &self.kept_name(module)?, Below::NoLinks)?,
            ))
        };
        let path = module.path.trim_end_matches(" (deleted)");
        let in_root = || Some((FileOrigin::Root, self.in_root(path.strip_prefix('/')?)?));
        let debug = id.and_then(|id| self.by_build_id(id)).into_iter().collect();
        OpenedFiles { file: kept().or_else(in_root), debug, ..OpenedFiles::default() }
    }

    /// Opens debug information by its build-id, in the container or on the host.
    fn by_build_id(&self, id: &str) -> Option<File> {
        self.debug_file(&format!(".build-id/{}/{}.debug", id.get(..2)?, id.get(2..)?))
    }

    /// Opens a file of the directories of debug information.
    fn debug_file(&self, name: &str) -> Option<File> {
        self.in_root(&format!("{DEBUG}/{name}"))
            .or_else(|| self.debug.iter().find_map(|d| below(d, name, Below::InRoot)))
    }

    /// Opens the files that may be what `link` names, and adds them to the module's. Returns
    /// whether there were any.
    pub(crate) fn follow(&self, module: &Module, link: &Link, files: &mut OpenedFiles) -> bool {
        let path = module.path.trim_end_matches(" (deleted)").trim_start_matches('/');
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let fetch = |kind, id: Option<&str>| {
            let id = id.filter(|id| is_build_id(id))?;
            self.servers.as_ref()?.fetch(kind, id, &module.path)
        };
        match link {
            Link::Executable => {
                let id = module.build_id.as_deref().filter(|_| module.path.starts_with('/'));
                let Some(file) = fetch(FileKind::Executable, id) else { return false };
                files.file = Some((FileOrigin::Fetched, file));
                true
            }
            Link::DebugInfo => {
                let Some(file) = fetch(FileKind::DebugInfo, module.build_id.as_deref()) else {
                    return false;
                };
                files.debug.insert(0, file);
                true
            }
            Link::Debug(name) => {
                let beside = [format!("{directory}/{name}"), format!("{directory}/.debug/{name}")];
                let mut found: Vec<File> = beside.iter().filter_map(|p| self.in_root(p)).collect();
                found.extend(self.debug_file(&format!("{directory}/{name}")));
                add(&mut files.debug, found)
            }
            Link::Supplementary { path, build_id } => {
                files.common_id = Some(build_id.clone());
                let base = path.rsplit('/').next().unwrap_or_default();
                let named = match path.strip_prefix('/') {
                    Some(path) => self.in_root(path).or_else(|| {
                        self.debug_file(path.strip_prefix(DEBUG)?.trim_start_matches('/'))
                    }),
                    // Relative to the directory of the file that names it, which is not known where
                    // it was found by its build-id: distributions always tell dwz this one.
                    None => self
                        .in_root(&format!("{directory}/{path}"))
                        .or_else(|| self.debug_file(&format!(".dwz/{base}"))),
                };
                let found = self.by_build_id(build_id).into_iter().chain(named);
                add(&mut files.supplementary, found)
                    || add(&mut files.supplementary, fetch(FileKind::DebugInfo, Some(build_id)))
            }
            Link::Split { directory: compiled_in, path: dwo } => {
                let base = dwo.rsplit('/').next().unwrap_or_default();
                let mut found = Vec::new();
                if files.split.is_empty() {
                    found.extend(self.in_root(&format!("{path}.dwp")));
                    found.extend(self.debug_file(&format!("{path}.dwp")));
                }
                let named = match dwo.strip_prefix('/') {
                    Some(absolute) => absolute.to_owned(),
                    None => format!("{}/{dwo}", compiled_in.trim_start_matches('/')),
                };
                let places = [named, format!("{directory}/{base}")];
                found.extend(places.iter().find_map(|path| self.in_root(path)));
                found.truncate(MOST_SPLIT.saturating_sub(files.split.len()));
                add(&mut files.split, found)
            }
        }
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

/// Whether servers can be asked for it: 2 to 64 bytes in hexadecimal.
fn is_build_id(id: &str) -> bool {
    let is_hex = id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_hex && (4..=128).contains(&id.len()) && id.len().is_multiple_of(2)
}

fn add(files: &mut Vec<File>, found: impl IntoIterator<Item = File>) -> bool {
    let before = files.len();
    files.extend(found);
    files.len() > before
}

fn below(dir: &OwnedFd, path: &str, how: Below) -> Option<File> {
    resolve::open_file_below(dir, OsStr::new(path), how).ok()
}
