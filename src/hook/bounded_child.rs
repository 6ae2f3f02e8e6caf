//! Runs what touches the container in a child, under no lock and with a time limit: the container's
//! file system may have a server that does not answer (FUSE, NFS).
//!
//! A child that hangs is killed or, if it sleeps in such a file system, left behind: it holds no
//! descriptor of the runtime, and is killed as soon as it wakes up.

use crate::sys::child;
use crate::sys::{OwnedFd, budget, descriptor, process};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::time::{Duration, Instant};

/// How long the container's file systems may take to answer altogether. Engines give a hook 10
/// seconds (hooks.d), and some less.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// Most bytes of the child's report.
const MOST: usize = 64 << 10;

/// Runs `work` in a child, and returns its result.
///
/// # Errors
/// An error of `work`; or the child did not report in time: a file system of the container does not
/// answer.
pub(super) fn run<T: Serialize + for<'d> Deserialize<'d>>(
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    run_within(PATIENCE, work)
}

fn run_within<T: Serialize + for<'d> Deserialize<'d>>(
    patience: Duration,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (read, say) = descriptor::pipe()?;
    let child = child::fork(|| {
        process::end_with_parent();
        // The runtime waits until no process has these descriptors open.
        descriptor::release_streams();
        let done = work().map_err(|e| format!("{e:#}"));
        let mut line = serde_json::to_vec(&done).unwrap_or_default();
        line.push(b'\n');
        let _ = std::fs::File::from(say).write_all(&line);
        0
    })?;
    match listen(&read, patience) {
        Ok(result) => {
            child.end_within(left(patience))?;
            result.map_err(anyhow::Error::msg)
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
    let patience = left(patience);
    let until = Instant::now() + patience;
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while !text.ends_with(b"\n") && text.len() < MOST {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !descriptor::wait_readable(pipe, Some(left))? {
            bail!(
                "a file system of the container does not answer: nothing came in {:.1} seconds",
                patience.as_secs_f64()
            );
        }
        match descriptor::read(pipe, &mut buffer).context("read")? {
            0 => break,
            n => text.extend_from_slice(&buffer[..n]),
        }
    }
    serde_json::from_slice(&text).context("the hook's child ended without a valid answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than a child is delayed on a busy machine.
    const LONG: Duration = Duration::from_secs(300);

    #[test]
    fn results_and_errors() {
        assert_eq!(run_within(LONG, || Ok(vec![7])).unwrap(), [7]);
        let failed = run_within::<()>(LONG, || Err(anyhow::anyhow!("why").context("what")));
        assert_eq!(failed.unwrap_err().to_string(), "what: why");
    }

    #[test]
    fn one_that_hangs_is_not_waited_for() {
        let (begun, patience) = (Instant::now(), Duration::from_millis(300));
        let hung = run_within::<()>(patience, || {
            loop {
                std::thread::park();
            }
        });
        assert!(hung.err().unwrap().to_string().contains("does not answer"));
        assert!(begun.elapsed() >= patience);
    }
}
