//! A change of an installation to the host, and the list of those that an engine needs.

use crate::sys::file;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// One change to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    /// A file gets a new text.
    File {
        path: PathBuf,
        /// Its text before; `None` if it did not exist.
        before: Option<String>,
        /// Its text after the change.
        after: String,
    },
    /// A symbolic link is made.
    Link { path: PathBuf, target: PathBuf },
    /// A directory is made, for one of the other changes.
    Directory { path: PathBuf },
}

impl Change {
    /// The change that makes `after` the text of a file, compared with its present text.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn file(path: &Path, after: String) -> Result<Self> {
        // A symbolic link to the file stays a link.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let before = read(&path)?;
        Ok(Change::File { path, before, after })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Change::File { path, .. } | Change::Link { path, .. } | Change::Directory { path } => {
                path
            }
        }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Change::File { before, after, .. } => before.as_ref() == Some(after),
            Change::Link { path, target } => std::fs::read_link(path).is_ok_and(|t| t == *target),
            Change::Directory { path } => path.is_dir(),
        }
    }

    /// Whether it still is as it was left.
    pub(super) fn stands(&self) -> bool {
        match self {
            Change::File { path, after, .. } => {
                read(path).is_ok_and(|now| now.as_ref() == Some(after))
            }
            Change::Link { path, .. } => self.is_done() && path.exists(),
            Change::Directory { path } => path.is_dir(),
        }
    }

    /// The change as one line of text.
    pub(crate) fn summary(&self) -> String {
        match self {
            Change::File { path, before: None, .. } => format!("new file {}", path.display()),
            Change::File { path, .. } => format!("changed {}", path.display()),
            Change::Link { path, target } => {
                format!("link {} -> {}", path.display(), target.display())
            }
            Change::Directory { path } => format!("new directory {}", path.display()),
        }
    }

    pub(super) fn apply(&self) -> Result<()> {
        match self {
            Change::File { path, after, .. } => write(path, after),
            Change::Link { path, target } => std::os::unix::fs::symlink(target, path)
                .with_context(|| format!("symlink {}", path.display())),
            // The mode is exact, whatever the umask of the administrator's shell.
            Change::Directory { path } => std::fs::DirBuilder::new()
                .mode(0o755)
                .create(path)
                .with_context(|| format!("mkdir {}", path.display())),
        }
    }

    /// Undoes it, or with `dry_run` says what would be done. Returns that as a line.
    pub(super) fn undo(&self, without_us: WithoutUs<'_>, dry_run: bool) -> Result<Option<String>> {
        let would = if dry_run { "would: " } else { "" };
        let remove = |path: &Path| {
            std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
        };
        match self {
            Change::File { path, before, after } => {
                let Some(now) = read(path)? else { return Ok(None) };
                if now != *after && Some(&now) != before.as_ref() {
                    let Some(text) = without_us(&now, before.as_deref())
                        .with_context(|| path.display().to_string())?
                    else {
                        return Ok(Some(format!(
                            "{} was changed since by somebody else, it stays",
                            path.display()
                        )));
                    };
                    if !dry_run {
                        write(path, &text)?;
                    }
                    return Ok(Some(format!(
                        "{would}{} was changed since by somebody else, taking only our part out",
                        path.display()
                    )));
                }
                match before {
                    _ if dry_run => {}
                    Some(text) => write(path, text)?,
                    None => remove(path)?,
                }
                Ok(Some(match before {
                    Some(_) => format!("{would}put {} back", path.display()),
                    None => format!("{would}remove {}", path.display()),
                }))
            }
            Change::Link { path, target } => {
                if std::fs::read_link(path).ok().as_ref() != Some(target) {
                    return Ok(None);
                }
                if !dry_run {
                    remove(path)?;
                }
                Ok(Some(format!("{would}remove {}", path.display())))
            }
            Change::Directory { path } => {
                // Another program may have put something into it since.
                let gone = dry_run || std::fs::remove_dir(path).is_ok();
                Ok(gone.then(|| format!("{would}remove {} if it is empty", path.display())))
            }
        }
    }
}

/// Removes only our part of a text that another program has changed since, given the text before
/// our change. `None` leaves the file as it is.
pub(super) type WithoutUs<'a> = &'a dyn Fn(&str, Option<&str>) -> Result<Option<String>>;

/// The text of a file; `None` if it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
    }
}

/// Writes a new file beside the old one and renames it, with the old file's mode and owner.
fn write(path: &Path, text: &str) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        anyhow::bail!("{} is no file", path.display())
    };
    let attempt = || -> Result<()> {
        let dir = file::open_dir(parent)?;
        let old = file::open_read(&dir, name).ok().map(file::stat).transpose()?;
        file::replace(&dir, name, text.as_bytes(), old.map_or(0o644, |s| s.mode))?;
        if let Some(s) = old {
            let new = file::open_read(&dir, name).context("open")?;
            file::chown(&new, s.uid, s.gid)?;
            file::chmod(&new, s.mode)?;
        }
        Ok(())
    };
    attempt().with_context(|| format!("write {}", path.display()))
}

/// What will be done, and what is left to the administrator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EngineChanges {
    /// The changes, in the order in which they are applied.
    pub changes: Vec<Change>,
    /// What the administrator has to do or know, one line each.
    pub notes: Vec<String>,
}

impl EngineChanges {
    /// Adds a change, and the directories that it needs.
    pub(crate) fn add(&mut self, change: Change) {
        let parents: Vec<_> =
            change.path().ancestors().skip(1).take_while(|p| !p.exists()).collect();
        for parent in parents.into_iter().rev() {
            let directory = Change::Directory { path: parent.to_owned() };
            if !self.changes.contains(&directory) {
                self.changes.push(directory);
            }
        }
        self.changes.push(change);
    }
}

/// Prints every change; for a file, its whole new text.
impl fmt::Display for EngineChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in self.changes.iter().filter(|c| !c.is_done()) {
            match change {
                Change::File { after, .. } => {
                    writeln!(f, "would write: {}", change.summary())?;
                    after.lines().try_for_each(|l| writeln!(f, "    {l}"))?;
                }
                _ => writeln!(f, "would make: {}", change.summary())?,
            }
        }
        Ok(())
    }
}
