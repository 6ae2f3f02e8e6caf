//! Calls that may never return: those into a file system whose disk may be frozen or gone. Who
//! sleeps there cannot be ended, so they are made on a thread of their own.

use super::child::{self, Ended};
use super::descriptor;
use super::proc::Proc;
use anyhow::{Result, bail};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The interval at which the state of a thread that does not answer is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The least time that a child has to answer: its clock goes on while others have the processors.
const BUSY: Duration = Duration::from_secs(10);

/// Bytes of its stack: paths, and a record as JSON.
const STACK: usize = 256 << 10;

/// Runs `work` on a thread, and returns what it returns. `None`: it slept for `asleep` without a
/// break, or has not come to its end after `most`. A thread that only waits for a processor is
/// given that time: the machine is busy.
///
/// A thread that does not answer is left behind. It keeps what `work` owns, and all descriptors of
/// this process as they are then, until its call returns, also where the process ends meanwhile.
/// Where it answers it is gone, so that the process has one thread again, as `child::fork` needs.
/// One that hangs does so in a system call, in which it holds no lock that a child could need.
///
/// Where there is no thread to be had, a child is asked whether the file system `answers`, with a
/// deadline of its own, and this process does the work only if it does.
///
/// # Errors
/// The thread has panicked, or there is neither a thread nor a child to be had.
pub(crate) fn within<T: Send + 'static>(
    asleep: Duration,
    most: Duration,
    answers: impl FnOnce() -> bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>> {
    share_memory();
    let (say, answer) = sync_channel(1);
    let id = Arc::new(AtomicI32::new(0));
    let own = id.clone();
    let work = Arc::new(Mutex::new(Some(work)));
    let take = |work: &Mutex<Option<_>>| work.lock().ok().and_then(|mut work| work.take());
    let theirs = work.clone();
    let run = move || {
        own.store(rustix::thread::gettid().as_raw_nonzero().get(), Relaxed);
        let Some(work) = take(&theirs) else { return };
        let _ = say.send(work());
    };
    let Ok(thread) = std::thread::Builder::new().stack_size(STACK).spawn(run) else {
        let answers = child_says(asleep.max(BUSY), answers)?;
        return Ok(answers.then(|| take(&work)).flatten().map(|work| work()));
    };
    let begun = Instant::now();
    let mut sleep = (None, begun);
    loop {
        match answer.recv_timeout(asleep.min(LOOK)) {
            Ok(answer) => {
                let _ = thread.join();
                return Ok(Some(answer));
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the thread has panicked"),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = Instant::now();
        let seen = match id.load(Relaxed) {
            0 => None,
            id => Proc::open(id).and_then(|thread| thread.sleep()).unwrap_or(None),
        };
        if seen.is_none() || seen != sleep.0 {
            sleep = (seen, now);
        }
        if now - sleep.1 >= asleep || now - begun >= most {
            return Ok(None);
        }
    }
}

/// Whether a child finds that the file system answers, within `time`.
fn child_says(time: Duration, answers: impl FnOnce() -> bool) -> Result<bool> {
    let child = child::fork(|| {
        // What hangs must not hold the crashed process.
        descriptor::release_stdin();
        i32::from(!answers())
    });
    Ok(matches!(child?.end_within(time)?, Some(Ended::Exit(0))))
}

/// Has the C library's threads take memory from one place: a place for each costs more than what
/// the few threads could have waited for each other.
fn share_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::descriptor;

    #[test]
    fn an_answer_comes_and_a_sleeper_is_left_behind() {
        let second = Duration::from_secs(1);
        assert_eq!(within(second, 60 * second, || true, || 7).unwrap(), Some(7));
        let (read, write) = descriptor::pipe().unwrap();
        let hangs = move || descriptor::read(&read, &mut [0]).is_ok();
        assert_eq!(within(Duration::from_millis(10), 60 * second, || true, hangs).unwrap(), None);
        drop(write);
    }

    #[test]
    fn one_that_works_is_waited_for() {
        let asleep = Duration::from_millis(20);
        let works = move || {
            let begun = Instant::now();
            while begun.elapsed() < 4 * asleep {
                std::hint::black_box(());
            }
            7
        };
        assert_eq!(within(asleep, 600 * Duration::from_secs(1), || true, works).unwrap(), Some(7));
    }
}
