//! The changes of an installation to the host: planned, applied as a whole, recorded, and undone.

use crate::config::Config;
use crate::store::Store;
use crate::sys::file;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Largest ledger that is read, in bytes.
const MAX: usize = 16 << 20;

/// One change to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// A file gets a new text.
    File {
        /// Path of the file.
        path: PathBuf,
        /// Its text before; `None` if it did not exist.
        before: Option<String>,
        /// Its text after the change.
        after: String,
    },
    /// A symbolic link is made.
    Link {
        /// Path of the link.
        path: PathBuf,
        /// Target of the link.
        target: PathBuf,
    },
    /// A directory is made, for one of the other changes.
    Directory {
        /// Path of the directory.
        path: PathBuf,
    },
}

impl Change {
    /// The change that makes `after` the text of a file, compared with its present text.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn file(path: &Path, after: String) -> Result<Self> {
        // A symbolic link to the file stays a link.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let before = read(&path)?;
        Ok(Change::File { path, before, after })
    }

    fn path(&self) -> &Path {
        match self {
            Change::File { path, .. } | Change::Link { path, .. } | Change::Directory { path } => {
                path
            }
        }
    }

    /// Whether there is nothing to do.
    pub fn is_done(&self) -> bool {
        match self {
            Change::File { before, after, .. } => before.as_ref() == Some(after),
            Change::Link { path, target } => std::fs::read_link(path).is_ok_and(|t| t == *target),
            Change::Directory { path } => path.is_dir(),
        }
    }

    /// Whether it still is as it was left.
    fn stands(&self) -> bool {
        match self {
            Change::File { path, after, .. } => {
                read(path).is_ok_and(|now| now.as_ref() == Some(after))
            }
            Change::Link { path, .. } => self.is_done() && path.exists(),
            Change::Directory { path } => path.is_dir(),
        }
    }

    /// The change as one line of text.
    pub fn summary(&self) -> String {
        match self {
            Change::File { path, before: None, .. } => format!("new file {}", path.display()),
            Change::File { path, .. } => format!("changed {}", path.display()),
            Change::Link { path, target } => {
                format!("link {} -> {}", path.display(), target.display())
            }
            Change::Directory { path } => format!("new directory {}", path.display()),
        }
    }

    fn apply(&self) -> Result<()> {
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
}

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
pub struct EngineChanges {
    /// The changes, in the order in which they are applied.
    pub changes: Vec<Change>,
    /// What the administrator has to do or know, one line each.
    pub notes: Vec<String>,
}

impl EngineChanges {
    /// Adds a change, and the directories that it needs.
    pub fn add(&mut self, change: Change) {
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

/// What was done for one engine, kept in the store so that it can be undone.
pub struct ChangeLog {
    dir: OwnedFd,
    store: OwnedFd,
    name: String,
}

const DIRECTORY: &str = "engines";

impl ChangeLog {
    /// Opens the ledger of an engine for writing.
    pub fn of(config: &Config, engine: &str) -> Result<Self> {
        let store = Store::open(config)?.dir().try_clone().context("dup")?;
        let dir = file::make_dir(&store, DIRECTORY.as_ref(), 0o700)?;
        Ok(ChangeLog { dir, store, name: format!("{engine}.json") })
    }

    /// Opens the ledger of an engine, if it has one.
    pub fn peek(config: &Config, engine: &str) -> Result<Option<Self>> {
        if !config.store.join(DIRECTORY).join(format!("{engine}.json")).exists() {
            return Ok(None);
        }
        Self::of(config, engine).map(Some)
    }

    fn load(&self) -> Result<Vec<Change>> {
        let Ok(open) = file::open_read(&self.dir, self.name.as_ref()) else {
            return Ok(Vec::new());
        };
        let text = file::read_bounded(open, MAX, &self.name)?;
        serde_json::from_slice(&text).with_context(|| format!("ledger {}", self.name))
    }

    fn save(&self, changes: &[Change]) -> Result<()> {
        if !changes.is_empty() {
            return file::replace(
                &self.dir,
                self.name.as_ref(),
                &serde_json::to_vec_pretty(changes)?,
                0o600,
            );
        }
        file::unlink(&self.dir, self.name.as_ref())?;
        file::remove_empty_dir(&self.store, DIRECTORY.as_ref())?;
        Ok(())
    }

    /// Applies the changes that are not done yet. They are recorded first, so that
    /// whatever was begun can be undone.
    ///
    /// # Errors
    /// The change that failed; those before it are undone.
    pub fn apply(&self, changes: &[Change]) -> Result<()> {
        let old = self.load()?;
        let new: Vec<&Change> = changes.iter().filter(|c| !c.is_done()).collect();
        self.save(&merged(old.clone(), &new))?;
        for (i, change) in new.iter().enumerate() {
            let Err(e) = change.apply() else { continue };
            for done in new[..i].iter().rev() {
                if let Err(e) = undo(done, &|_, _| Ok(None), false) {
                    log::warn!("{e:#}, ignoring");
                }
            }
            self.save(&old)?;
            return Err(e);
        }
        // Nothing was to be done now or before: do not leave an empty ledger.
        self.save(&merged(old, &new))
    }

    /// The paths that were changed and are no longer as they were left.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn disturbed(&self) -> Result<Vec<PathBuf>> {
        Ok(self.load()?.iter().filter(|c| !c.stands()).map(|c| c.path().to_owned()).collect())
    }

    /// Undoes everything, the last change first. Returns what was done, or would be, one line each.
    ///
    /// # Errors
    /// Names what cannot be undone; it stays recorded.
    pub fn undo(
        &self,
        dry_run: bool,
        without_us: impl Fn(&str, Option<&str>) -> Result<Option<String>>,
    ) -> Result<Vec<String>> {
        let mut left = self.load()?;
        let mut lines = Vec::new();
        let all = left.clone();
        for change in all.iter().rev() {
            lines.extend(undo(change, &without_us, dry_run)?);
            if !dry_run {
                left.pop();
                self.save(&left)?;
            }
        }
        Ok(lines)
    }
}

/// The ledger after further changes. For a file that was changed twice, the first text
/// before is the one to restore.
fn merged(mut ledger: Vec<Change>, new: &[&Change]) -> Vec<Change> {
    for change in new {
        let known = ledger.iter_mut().find(|old| old.path() == change.path());
        match (known, *change) {
            (
                Some(Change::File { after: old_after, .. }),
                Change::File { before: Some(now), after, .. },
            ) if old_after == now => *old_after = after.clone(),
            (Some(old), _) => *old = (*change).clone(),
            (None, _) => ledger.push((*change).clone()),
        }
    }
    ledger
}

/// Removes only our part of a text that another program has changed since, given the text before
/// our change. `None` leaves the file as it is.
type WithoutUs<'a> = &'a dyn Fn(&str, Option<&str>) -> Result<Option<String>>;

fn undo(change: &Change, without_us: WithoutUs<'_>, dry_run: bool) -> Result<Option<String>> {
    let would = if dry_run { "would: " } else { "" };
    let remove = |path: &Path| {
        std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
    };
    match change {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> Config {
        Config { store: dir.join("store"), ..Config::default() }
    }

    #[test]
    fn done_and_undone_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let at = |n: &str| dir.path().join(n);
        std::fs::write(at("old"), "a\t\n\n").unwrap();
        let mut plan = EngineChanges::default();
        plan.add(Change::file(&at("old"), "b".into()).unwrap());
        plan.add(Change::file(&at("x/y/new"), "c".into()).unwrap());
        plan.add(Change::Link { path: at("x/link"), target: "y/new".into() });
        let ledger = ChangeLog::of(&config(dir.path()), "docker").unwrap();
        ledger.apply(&plan.changes).unwrap();
        assert_eq!(std::fs::read_to_string(at("x/link")).unwrap(), "c");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(at("x/y")).unwrap().permissions().mode() & 0o022, 0);
        // A second time with another text, as a newer version would do.
        ledger.apply(&[Change::file(&at("old"), "bb".into()).unwrap()]).unwrap();
        let ledger = ChangeLog::peek(&config(dir.path()), "docker").unwrap().unwrap();
        assert!(!ledger.undo(true, |_, _| unreachable!()).unwrap().is_empty());
        assert_eq!(std::fs::read_to_string(at("old")).unwrap(), "bb");
        ledger.undo(false, |_, _| unreachable!()).unwrap();
        assert_eq!(std::fs::read_to_string(at("old")).unwrap(), "a\t\n\n");
        assert!(!at("x").exists() && !at("store/engines").exists());
    }

    #[test]
    fn what_somebody_else_changed_keeps_that() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "1").unwrap();
        let ledger = ChangeLog::of(&config(dir.path()), "docker").unwrap();
        ledger
            .apply(&[
                Change::file(&a, "1+us".into()).unwrap(),
                Change::file(&b, "us".into()).unwrap(),
            ])
            .unwrap();
        assert_eq!(ledger.disturbed().unwrap(), Vec::<PathBuf>::new());
        std::fs::write(&a, "1+us+them").unwrap();
        assert_eq!(ledger.disturbed().unwrap(), std::slice::from_ref(&a));
        std::fs::write(&b, "them").unwrap();
        ledger.undo(false, |text, before| Ok(before.map(|_| text.replace("+us", "")))).unwrap();
        assert_eq!(std::fs::read_to_string(&a).unwrap(), "1+them");
        assert_eq!(std::fs::read_to_string(&b).unwrap(), "them");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (a, bad) = (dir.path().join("a"), dir.path().join("none/b"));
        let ledger = ChangeLog::of(&config(dir.path()), "docker").unwrap();
        ledger
            .apply(&[
                Change::file(&a, "x".into()).unwrap(),
                Change::File { path: bad, before: None, after: String::new() },
            ])
            .unwrap_err();
        assert!(!a.exists() && !dir.path().join("store/engines").exists());
    }
}
