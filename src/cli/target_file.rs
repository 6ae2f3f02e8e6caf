//! Where a verb writes what it makes: a file that appears when it is complete, or stdout.

use super::usage::WrongUsage;
use crate::sys::new_file::NewFile;
use crate::sys::{AsFd, file};
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};

/// The option that names it.
#[derive(Debug, clap::Args)]
pub(super) struct TargetFile {
    /// Write to this file; - is stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

impl TargetFile {
    /// Whether that is stdout.
    pub(super) fn is_stdout(&self) -> bool {
        self.output == Path::new("-")
    }

    /// # Errors
    /// What would be written is binary, and it would go to a terminal.
    pub(super) fn check_binary(&self) -> Result<()> {
        match self.is_stdout() && stdout().is_terminal() {
            true => bail!(WrongUsage(
                "stdout is a terminal, and this is binary: name a file with --output, or add a \
                 pipe (`| zstdcat`) or a redirection (`> FILE`)"
                    .into()
            )),
            false => Ok(()),
        }
    }

    /// Whether it cannot be replaced by a file: stdout, a device, a FIFO.
    pub(super) fn is_stream(&self) -> bool {
        self.is_stdout() || is_stream(&self.output)
    }

    /// Makes the file with what `write` puts into it, or writes to a stream.
    ///
    /// # Errors
    /// Those of `write`, and that the file cannot be made.
    pub(super) fn write(&self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        if self.is_stdout() {
            let mut out = stdout().lock();
            write(&mut out)?;
            return out.flush().context("write to stdout");
        }
        if self.is_stream() {
            let open = OpenOptions::new().write(true).open(&self.output);
            return open
                .map_err(Into::into)
                .and_then(|mut stream| write(&mut stream))
                .with_context(|| format!("write {}", self.output.display()));
        }
        self.make(|mut file| write(&mut file))
    }

    /// Makes the file with what `write` puts into it. It appears when it is complete: until then it
    /// has no name, so that nothing is left of it whatever ends this process; or, on a file system
    /// without unnamed files, a temporary one.
    ///
    /// # Errors
    /// Those of `write`, and that the file cannot be made.
    pub(super) fn make(&self, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
        self.make_by(write, NewFile::name)
    }

    /// The same for a name that the user has not chosen: an earlier file stays.
    ///
    /// # Errors
    /// Also: the file is there.
    pub(super) fn make_new(&self, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
        ensure!(
            self.output.symlink_metadata().is_err(),
            "{} is there already: remove it, or name another file with --output",
            self.output.display()
        );
        self.make_by(write, NewFile::name_new)
    }

    fn make_by(
        &self,
        write: impl FnOnce(&File) -> Result<()>,
        finish: impl FnOnce(NewFile, &OsStr) -> Result<()>,
    ) -> Result<()> {
        let (dir, name) = parts(&self.output)?;
        let new = file::open_dir(dir)
            .and_then(|dir| NewFile::create(dir.as_fd()))
            .with_context(|| format!("make {}", self.output.display()))?;
        write(new.file()).with_context(|| format!("write {}", self.output.display()))?;
        finish(new, name).with_context(|| format!("make {}", self.output.display()))
    }
}

/// Whether something is there that is written to and never replaced.
pub(super) fn is_stream(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}

/// The directory and the name of a file that is to be made.
///
/// # Errors
/// The path has no file name.
pub(super) fn parts(path: &Path) -> Result<(&Path, &OsStr)> {
    let named = path.file_name().filter(|_| !path.as_os_str().as_encoded_bytes().ends_with(b"/"));
    let Some(name) = named else { bail!(WrongUsage(format!("{} names no file", path.display()))) };
    let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    Ok((dir, name))
}
