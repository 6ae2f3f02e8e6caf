//! Programs that the command line names.

use anyhow::{Context, Result, ensure};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs are if PATH says nothing.
pub(super) const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The absolute path of the program that the caller's shell would start.
///
/// # Errors
/// There is no such program, or it is not a file that may be executed.
pub(super) fn find(program: &Path) -> Result<PathBuf> {
    if program.as_os_str().as_bytes().contains(&b'/') {
        let path = std::path::absolute(program).context("its path")?;
        let meta = std::fs::metadata(&path).with_context(|| path.display().to_string())?;
        ensure!(meta.is_file(), "{} is not a file", path.display());
        ensure!(meta.permissions().mode() & 0o111 != 0, "{} is not executable", path.display());
        return Ok(path);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| SEARCH.into());
    let is_there = |candidate: &PathBuf| {
        std::fs::metadata(candidate)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(is_there)
        .with_context(|| format!("{} is in no directory of PATH", program.display()))
}
