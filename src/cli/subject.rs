//! What `info`, `debug` and `export` read: the core of a record, or a core file that the user named,
//! and where the files of its modules are searched.

use super::locate::{self, State};
use super::query::Query;
use super::selection::Chosen;
use crate::corefile::decompress::decompressed;
use crate::corefile::files::SearchPaths;
use crate::record::Record;
use crate::registry::Registry;
use crate::sys::cred::Credentials;
use crate::sys::resolve;
use crate::sys::{OwnedFd, file, user};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Selects a core file in place of a record.
#[derive(Debug, clap::Args)]
pub(super) struct Subject {
    /// Take this core file; it needs no record.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["matches", "since", "until"])]
    core: Option<PathBuf>,
    /// Take executables and libraries from below this directory instead of the container's root.
    #[arg(long, value_name = "DIR")]
    sysroot: Option<PathBuf>,
}

/// Opens the core, decompressed, and returns where its files are searched.
pub(super) fn open(
    chosen: &Chosen,
    query: &Query,
    subject: &Subject,
) -> Result<(File, Option<Record>, SearchPaths)> {
    if let Some(path) = &subject.core {
        let (core, paths) = open_core_file(path, subject.sysroot.as_deref(), &chosen.store)?;
        return Ok((decompressed(core)?, None, paths));
    }
    let records = chosen.records(query)?;
    let Some(record) = records.last() else {
        bail!("no crash in {} matches", chosen.store.display())
    };
    let registry = Registry::own();
    let core = match locate::open(record, registry.as_ref()) {
        Ok(core) => core,
        Err(State::Overwritten) => bail!(
            "the core of process {} is {}",
            record.pid,
            locate::overwriter(record, registry.as_ref(), &chosen.records(&Query::default())?)
        ),
        Err(State::Unreachable) => bail!(
            "the core of process {} is unreachable: the file system that it is on does not answer",
            record.pid
        ),
        Err(State::Leased) => bail!(
            "the core of process {} has a lease (fcntl(2), F_SETLEASE) that somebody in the \
             container holds: try again after fs.lease-break-time seconds",
            record.pid
        ),
        Err(state) => bail!(
            "the core of process {} is {}{}",
            record.pid,
            state.word(),
            record.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default()
        ),
    };
    let paths = search_paths(record, registry.as_ref(), subject.sysroot.as_deref(), &chosen.store)?;
    // The same bytes before and after it was uploaded.
    let record = Record { uploaded: None, ..record.clone() };
    Ok((decompressed(core)?, Some(record), paths))
}

/// Opens a core file that the user named, and returns where its files are searched.
pub(super) fn open_core_file(
    path: &Path,
    sysroot: Option<&Path>,
    store: &Path,
) -> Result<(File, SearchPaths)> {
    let root = sysroot.map(file::open_dir).transpose()?;
    Ok((open_named(path)?, SearchPaths::usual(root, Some(store))))
}

/// Opens a core file that the user named.
pub(super) fn open_named(path: &Path) -> Result<File> {
    let dir = file::open_dir(match path.parent() {
        Some(p) if p != Path::new("") => p,
        _ => Path::new("."),
    })?;
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    resolve::open_file_below(dir, name, resolve::Below::InRoot).or_else(|_| {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        anyhow::ensure!(file.metadata()?.is_file(), "{} is not a regular file", path.display());
        Ok(file)
    })
}

/// The directories in which the files of a record's container are searched.
pub(super) fn search_paths(
    record: &Record,
    registry: Option<&Registry>,
    sysroot: Option<&Path>,
    store: &Path,
) -> Result<SearchPaths> {
    let given: Option<OwnedFd> = sysroot
        .map(|dir| file::open_dir(dir).with_context(|| format!("--sysroot {}", dir.display())))
        .transpose()?;
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
