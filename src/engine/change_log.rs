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
    /// Opens the ledger of an engine for writing.
    pub(super) fn of(config: &Config, engine: &str) -> Result<Self> {
        let store = Store::open(config)?.dir().try_clone().context("dup")?;
        let dir = file::make_dir(&store, DIRECTORY.as_ref(), 0o700)?;
        Ok(ChangeLog { dir, store, name: format!("{engine}.json") })
    }

    /// Opens the ledger of an engine, if it has one.
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
    pub(super) fn apply(&self, changes: &[Change]) -> Result<()> {
        let old = self.load()?;
        let new: Vec<&Change> = changes.iter().filter(|c| !c.is_done()).collect();
        self.save(&merged(old.clone(), &new))?;
        for (i, change) in new.iter().enumerate() {
            let Err(e) = change.apply() else { continue };
            for done in new[..i].iter().rev() {
                if let Err(e) = done.undo(&|_, _| Ok(None), false) {
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
    pub(super) fn disturbed(&self) -> Result<Vec<PathBuf>> {
        Ok(self.load()?.iter().filter(|c| !c.stands()).map(|c| c.path().to_owned()).collect())
    }

    /// Undoes everything, the last change first. Returns what was done, or would be, one line each.
    ///
    /// # Errors
    /// Names what cannot be undone; it stays recorded.
    pub(super) fn undo(
        &self,
        dry_run: bool,
        without_us: impl Fn(&str, Option<&str>) -> Result<Option<String>>,
    ) -> Result<Vec<String>> {
        let mut left = self.load()?;
        let mut lines = Vec::new();
        let all = left.clone();
        for change in all.iter().rev() {
            lines.extend(change.undo(&without_us, dry_run)?);
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
