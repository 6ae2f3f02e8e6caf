//! What `info`, `debug` and `export` read: the core of a record, or a core file that the user
//! named, and where the files of its modules are searched.

use super::debuginfod::Debuginfod;
use super::locate::{self, CoreStatus};
use super::overwriter::{self, Overwriters};
use super::query::Query;
use super::selection::{Chosen, no_match};
use super::target_file::parts;
use crate::config::KeptMemory;
use crate::corefile::decompress::decompressed;
use crate::corefile::files::SearchPaths;
use crate::corefile::shrink::shrunk;
use crate::record::Record;
use crate::registry::Registry;
use crate::sys::cred::Credentials;
use crate::sys::resolve;
use crate::sys::{OwnedFd, file, user};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Selects a core file in place of a record.
#[derive(Debug, clap::Args)]
pub(super) struct Subject {
    /// Take this core file; it needs no record.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["matches", "since", "until"])]
    pub core: Option<PathBuf>,
    /// Take executables and libraries from below this directory instead of the container's root.
    #[arg(long, value_name = "DIR")]
    pub sysroot: Option<PathBuf>,
}

/// A core, decompressed, its record, and where its files are searched.
pub(super) struct Opened {
    pub core: File,
    /// `None` for a core file that the user named.
    pub record: Option<Record>,
    pub paths: SearchPaths,
    /// The core, for messages.
    pub name: String,
}

impl Opened {
    /// The same with a core that keeps only so much of the memory.
    ///
    /// # Errors
    /// It is not a core of which a small one can be made.
    pub(super) fn keeping(self, keep: KeptMemory) -> Result<Self> {
        if keep.is_all() {
            return Ok(self);
        }
        let size = self.core.metadata().context("fstat")?.len();
        let core = shrunk(&self.core, keep).with_context(|| self.name.clone())?;
        let record = self.record.map(|record| Record {
            keep: Some(keep),
            full_size: record.full_size.or(Some(size)),
            size: core.metadata().ok().map(|m| m.len()),
            ..record
        });
        Ok(Opened { core, record, ..self })
    }
}

/// Opens the core file that was named, else the core of the newest matching crash.
///
/// # Errors
/// No crash matches, or its core is not there or cannot be opened.
pub(super) fn open(
    chosen: &Chosen,
    query: &Query,
    subject: &Subject,
    debuginfod: Debuginfod,
) -> Result<Opened> {
    let servers = debuginfod.servers(chosen);
    if let Some(path) = &subject.core {
        let (core, paths) = open_core_file(path, subject.sysroot.as_deref(), &chosen.store)?;
        let name = path.display().to_string();
        let core = read_as_core(core).with_context(|| name.clone())?;
        let paths = SearchPaths { servers, ..paths };
        return Ok(Opened { core, record: None, paths, name });
    }
    let records = chosen.newest(query, 1)?;
    let Some(record) = records.last() else {
        return no_match(chosen, query);
    };
    let registry = Registry::own();
    let overwriters = Overwriters::new(chosen);
    let core = match locate::open(record, registry.as_ref(), &overwriters) {
        Ok(core) => core,
        Err((CoreStatus::Overwritten, by)) => bail!(
            "the core of process {} is {}",
            record.pid,
            overwriter::describe(by, str::to_owned)
        ),
        Err((CoreStatus::Unreachable, _)) => bail!(
            "the core of process {} is unreachable: the file system that it is on does not answer",
            record.pid
        ),
        Err((CoreStatus::Leased, _)) => bail!(
            "the core of process {} has a lease (fcntl(2), F_SETLEASE) that a process in the \
             container holds: try again after fs.lease-break-time seconds",
            record.pid
        ),
        Err((state, _)) => bail!(
            "the core of process {} is {}{}",
            record.pid,
            state.word(),
            record.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default()
        ),
    };
    let paths = search_paths(record, registry.as_ref(), subject.sysroot.as_deref(), &chosen.store)?;
    // The same bytes before and after it was uploaded.
    let record = Record { uploaded: None, ..record.clone() };
    let name = format!("core {}", record.core_path.as_deref().unwrap_or("of the record"));
    let core = read_as_core(core).with_context(|| name.clone())?;
    let paths = SearchPaths { servers, ..paths };
    Ok(Opened { core, record: Some(record), paths, name })
}

/// The core, decompressed.
///
/// # Errors
/// It cannot be decompressed, or is no core.
fn read_as_core(file: File) -> Result<File> {
    let core = decompressed(file)?;
    let mut start = [0; 4];
    let length = core.read_at(&mut start, 0).context("read")?;
    ensure!(length > 0, "it is empty");
    ensure!(start == *b"\x7fELF", "it is not an ELF file, so no core");
    Ok(core)
}

/// Opens a core file that the user named, and returns where its files are searched.
pub(super) fn open_core_file(
    path: &Path,
    sysroot: Option<&Path>,
    store: &Path,
) -> Result<(File, SearchPaths)> {
    let root = sysroot.map(open_sysroot).transpose()?;
    Ok((open_named(path)?, SearchPaths::usual(root, Some(store))))
}

fn open_sysroot(dir: &Path) -> Result<OwnedFd> {
    file::open_dir(dir).with_context(|| format!("--sysroot {}", dir.display()))
}

/// Opens a regular file that the user named, without waiting for anything.
pub(super) fn open_named(path: &Path) -> Result<File> {
    let open = || -> Result<File> {
        let (dir, name) = parts(path)?;
        let dir = file::open_dir(dir)?;
        resolve::open_file_below(dir, name, resolve::Below::InRoot).or_else(|_| {
            let kind = std::fs::metadata(path)?;
            ensure!(kind.is_file(), "it is not a regular file");
            Ok(File::open(path)?)
        })
    };
    open().with_context(|| format!("open {}", path.display()))
}

/// The directories in which the files of a record's container are searched.
pub(super) fn search_paths(
    record: &Record,
    registry: Option<&Registry>,
    sysroot: Option<&Path>,
    store: &Path,
) -> Result<SearchPaths> {
    let given = sysroot.map(open_sysroot).transpose()?;
    // Files in the container itself are read with the rights of the crashed process.
    let reader = (given.is_none() && user::is_host_root()).then(|| Credentials {
        uid: [record.uid; 4],
        gid: [record.gid; 4],
        ..Credentials::default()
    });
    let root = given.or_else(|| locate::container_root(record, registry));
    let own = Some(record.binaries.clone());
    Ok(SearchPaths { own, reader, ..SearchPaths::usual(root, Some(store)) })
}
