//! The part of the hook that touches the container. The container's file system may have a server
//! that does not answer (FUSE, NFS), so a child does this, under no lock and with a time limit.
//!
//! The child reports its result, and stays until it is told whether that is kept. A child that
//! hangs is killed or, if it sleeps in such a file system, left behind: it holds no descriptor of
//! the runtime, and is killed as soon as it wakes up.

use crate::sys::child::{self, Child};
use crate::sys::{OwnedFd, budget, process};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::time::{Duration, Instant};

/// How long the container's file systems may take to answer altogether. Engines give a hook 10
/// seconds (hooks.d), and some less.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// Most bytes of the child's report.
const MOST: usize = 64 << 10;

const KEEP: u8 = b'k';

/// How a step is undone; run at most once, in the reverse order of the steps.
pub(super) type Undo<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

/// What was done, for as long as it can be undone.
pub(super) struct Inside {
    child: Child,
    tell: OwnedFd,
    /// As [`PATIENCE`].
    patience: Duration,
}

impl Inside {
    /// Ends the child and keeps what it did.
    pub(super) fn keep(self) -> Result<()> {
        // A child that is gone cannot undo anything any more.
        let _ = process::write(&self.tell, &[KEEP]);
        self.child.end_within(left(self.patience)).map(drop)
    }

    /// Makes the child undo its steps, and waits for its end.
    ///
    /// # Errors
    /// The container's file system does not answer in time; what was mounted there stays.
    pub(super) fn undo(self) -> Result<()> {
        drop(self.tell);
        match self.child.end_within(left(self.patience))? {
            Some(_) => Ok(()),
            None => {
                bail!("the container's file system does not answer, leaving what was mounted there")
            }
        }
    }
}

/// Runs `work` in a child. `work` adds to the list how each of its steps is
/// undone. Returns its result.
///
/// # Errors
/// An error of `work`, whose steps are undone then; or the child did not report in time.
pub(super) fn run<'a, T: Serialize + for<'d> Deserialize<'d>>(
    work: impl FnOnce(&mut Vec<(String, Undo<'a>)>) -> Result<T>,
) -> Result<(T, Inside)> {
    run_within(PATIENCE, work)
}

fn run_within<'a, T: Serialize + for<'d> Deserialize<'d>>(
    patience: Duration,
    work: impl FnOnce(&mut Vec<(String, Undo<'a>)>) -> Result<T>,
) -> Result<(T, Inside)> {
    let (read, say) = process::pipe()?;
    let (hear, tell) = process::pipe()?;
    let child = child::fork(|| {
        process::end_with_parent();
        // The runtime waits until no process has these descriptors open.
        process::release_streams();
        let _ = process::close(&tell);
        let mut undo = Vec::new();
        let done = work(&mut undo).map_err(|e| format!("{e:#}"));
        let failed = done.is_err();
        let mut line = serde_json::to_vec(&done).unwrap_or_default();
        line.push(b'\n');
        let mut word = [0];
        let _ = std::fs::File::from(say).write_all(&line);
        if failed || process::read(&hear, &mut word) != Ok(1) || word[0] != KEEP {
            for (what, back) in undo.into_iter().rev() {
                if let Err(e) = back() {
                    log::warn!("cannot undo `{what}`, ignoring: {e:#}");
                }
            }
        }
        0
    })?;
    match listen(&read, patience) {
        Ok(Ok(found)) => Ok((found, Inside { child, tell, patience })),
        Ok(Err(why)) => {
            drop(tell);
            child.end_within(left(patience))?;
            bail!("{why}")
        }
        Err(e) => {
            child.end_now()?;
            Err(e)
        }
    }
}

/// The time that is left for a child to end, or to be found hanging.
fn left(patience: Duration) -> Duration {
    budget::left(patience).max(Duration::from_millis(200))
}

fn listen<T: for<'d> Deserialize<'d>>(
    pipe: &OwnedFd,
    patience: Duration,
) -> Result<Result<T, String>> {
    let patience = budget::left(patience);
    let until = Instant::now() + patience;
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while !text.ends_with(b"\n") && text.len() < MOST {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !process::wait_readable(pipe, Some(left))? {
            bail!(
                "a file system of the container does not answer: nothing came in {:.1} seconds",
                patience.as_secs_f64()
            );
        }
        match process::read(pipe, &mut buffer).context("read")? {
            0 => break,
            n => text.extend_from_slice(&buffer[..n]),
        }
    }
    serde_json::from_slice(&text).context("who looked into the container has ended without a word")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than a child is delayed on a busy machine.
    const LONG: Duration = Duration::from_secs(300);

    fn undone(path: &std::path::Path, tell: impl FnOnce(Inside) -> Result<()>) -> bool {
        let (found, inside) = run_within(LONG, |undo| {
            std::fs::write(path, "")?;
            undo.push(("write".into(), Box::new(|| Ok(std::fs::remove_file(path)?))));
            Ok(7)
        })
        .unwrap();
        assert_eq!(found, 7);
        tell(inside).unwrap();
        !path.exists()
    }

    #[test]
    fn kept_taken_back_and_failed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!undone(&dir.path().join("kept"), Inside::keep));
        assert!(undone(&dir.path().join("undone"), Inside::undo));
        let path = dir.path().join("failed");
        let failed = run_within::<()>(LONG, |undo| {
            std::fs::write(&path, "")?;
            undo.push(("write".into(), Box::new(|| Ok(std::fs::remove_file(&path)?))));
            bail!("no")
        });
        assert_eq!((failed.err().unwrap().to_string(), path.exists()), ("no".into(), false));
    }

    #[test]
    fn one_that_hangs_is_not_waited_for() {
        let (begun, patience) = (Instant::now(), Duration::from_millis(300));
        let hung = run_within::<()>(patience, |_| {
            loop {
                std::thread::park();
            }
        });
        assert!(hung.err().unwrap().to_string().contains("does not answer"));
        assert!(begun.elapsed() >= patience);
    }
}
