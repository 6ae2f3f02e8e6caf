//! The changes that were made for one engine: applied as a whole, recorded in the store, and undone.

use super::change::Change;
use crate::config::Config;
use crate::store::Store;
use crate::sys::file;
use anyhow::{Context, Result};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Largest log that is read, in bytes.
const MAX: usize = 16 << 20;

/// What was done for one engine, kept in the store so that it can be undone.
pub(super) struct ChangeLog {
    dir: OwnedFd,
    store: OwnedFd,
    name: String,
}

const DIRECTORY: &str = "engines";

impl ChangeLog {
    /// Opens the log of an engine for writing.
    pub(super) fn of(config: &Config, engine: &str) -> Result<Self> {
        let store = Store::open(config)?.dir().try_clone().context("dup")?;
        let dir = file::make_dir(&store, DIRECTORY.as_ref(), 0o700)?;
        Ok(ChangeLog { dir, store, name: format!("{engine}.json") })
    }

    /// Opens the log of an engine, if it has one.
    pub(super) fn peek(config: &Config, engine: &str) -> Result<Option<Self>> {
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
        serde_json::from_slice(&text).with_context(|| format!("log of changes {}", self.name))
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
    pub(super) fn apply(&self, changes: &[Change]) -> Result<()> {
        let old = self.load()?;
        let new: Vec<&Change> = changes.iter().filter(|c| !c.is_done()).collect();
        self.save(&merged(old.clone(), &new))?;
        let failed =
            new.iter().enumerate().find_map(|(i, change)| Some((i, change.apply().err()?)));
        let Some((failed, e)) = failed else {
            // Nothing was to be done now or before: do not leave an empty log.
            return self.save(&merged(old, &new));
        };
        let mut left = Vec::new();
        for done in new[..failed].iter().rev() {
            if let Err(e) = done.undo(&|_, _| Ok(None), false) {
                log::warn!("{e:#}; `oci-coredump uninstall` tries it again");
                left.push(*done);
            }
        }
        left.reverse();
        self.save(&merged(old, &left))?;
        Err(e)
    }

    /// The paths that were changed and are no longer as they were left.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(super) fn disturbed(&self) -> Result<Vec<PathBuf>> {
        Ok(self.load()?.iter().filter(|c| !c.stands()).map(|c| c.path().to_owned()).collect())
    }

    /// Undoes everything, the last change first. What cannot be undone stays recorded.
    ///
    /// # Errors
    /// The log cannot be read or written.
    pub(super) fn undo(
        &self,
        dry_run: bool,
        without_us: impl Fn(&str, Option<&str>) -> Result<Option<String>>,
    ) -> Result<Undone> {
        let mut left = self.load()?;
        let mut undone = Undone::default();
        for at in (0..left.len()).rev() {
            match left[at].undo(&without_us, dry_run) {
                Ok(lines) => undone.lines.extend(lines),
                Err(e) => {
                    undone.failed.push(e);
                    continue;
                }
            }
            if !dry_run {
                left.remove(at);
                self.save(&left)?;
            }
        }
        Ok(undone)
    }
}

/// What became of the changes of an engine.
#[derive(Debug, Default)]
pub(super) struct Undone {
    /// What was done, or would be, a line each.
    pub lines: Vec<String>,
    /// Why changes could not be undone.
    pub failed: Vec<anyhow::Error>,
}

/// The log after further changes. For a file that was changed twice, the first text
/// before is the one to restore.
fn merged(mut log: Vec<Change>, new: &[&Change]) -> Vec<Change> {
    for change in new {
        let known = log.iter_mut().find(|old| old.path() == change.path());
        match (known, *change) {
            (
                Some(Change::File { after: old_after, .. }),
                Change::File { before: Some(now), after, .. },
            ) if old_after == now => *old_after = after.clone(),
            (Some(old), _) => *old = (*change).clone(),
            (None, _) => log.push((*change).clone()),
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::change::EngineChanges;
    use std::path::Path;

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
        let log = ChangeLog::of(&config(dir.path()), "docker").unwrap();
        log.apply(&plan.changes).unwrap();
        assert_eq!(std::fs::read_to_string(at("x/link")).unwrap(), "c");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(at("x/y")).unwrap().permissions().mode() & 0o022, 0);
        // A second time with another text, as a newer version would do.
        log.apply(&[Change::file(&at("old"), "bb".into()).unwrap()]).unwrap();
        let log = ChangeLog::peek(&config(dir.path()), "docker").unwrap().unwrap();
        assert!(!log.undo(true, |_, _| unreachable!()).unwrap().lines.is_empty());
        assert_eq!(std::fs::read_to_string(at("old")).unwrap(), "bb");
        log.undo(false, |_, _| unreachable!()).unwrap();
        assert_eq!(std::fs::read_to_string(at("old")).unwrap(), "a\t\n\n");
        assert!(!at("x").exists() && !at("store/engines").exists());
    }

    #[test]
    fn what_somebody_else_changed_keeps_that() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "1").unwrap();
        let log = ChangeLog::of(&config(dir.path()), "docker").unwrap();
        log.apply(&[
            Change::file(&a, "1+us".into()).unwrap(),
            Change::file(&b, "us".into()).unwrap(),
        ])
        .unwrap();
        assert_eq!(log.disturbed().unwrap(), Vec::<PathBuf>::new());
        std::fs::write(&a, "1+us+them").unwrap();
        assert_eq!(log.disturbed().unwrap(), std::slice::from_ref(&a));
        std::fs::write(&b, "them").unwrap();
        let refuse = |text: &str, before: Option<&str>| match before {
            Some(_) => Ok(Some(text.replace("+us", ""))),
            None => anyhow::bail!("not understood"),
        };
        let undone = log.undo(false, refuse).unwrap();
        assert_eq!(undone.failed.len(), 1, "{undone:?}");
        assert_eq!(std::fs::read_to_string(&a).unwrap(), "1+them");
        // What could not be undone is tried again.
        let undone =
            log.undo(false, |text, before| Ok(before.map(|_| text.replace("+us", "")))).unwrap();
        assert!(undone.failed.is_empty(), "{undone:?}");
        assert_eq!(std::fs::read_to_string(&a).unwrap(), "1+them");
        assert_eq!(std::fs::read_to_string(&b).unwrap(), "them");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (a, bad) = (dir.path().join("a"), dir.path().join("none/b"));
        let log = ChangeLog::of(&config(dir.path()), "docker").unwrap();
        log.apply(&[
            Change::file(&a, "x".into()).unwrap(),
            Change::File { path: bad, before: None, after: String::new() },
        ])
        .unwrap_err();
        assert!(!a.exists() && !dir.path().join("store/engines").exists());
    }
}
