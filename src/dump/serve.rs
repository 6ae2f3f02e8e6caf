//! The resident dispatcher: crashes from the processes that the kernel starts, so that these need not start up. Optional: without it each of them does by itself
//! what is done here.
//!
//! ```text
//! kernel --exec--> relay (sys/relay.rs) <--"there"-- a child that waits here   (tells that it waits no more, and is replaced)
//!                     | --arguments, pipe, pidfd-->  |
//!                     | <--"taken"--                 |
//!                    ends                           dispatch, as in `handle`
//! ```
//!
//! A process for each crash, as the kernel would have started it: what one leaves behind no other finds. Some wait beforehand. Who dies before he has said that
//! he takes a crash has not lost it: then the relay goes on as if there was nobody.

use super::crash::Crash;
use crate::config::SERVE_SOCKET;
use crate::registry::Registry;
use crate::sys::signals::Signals;
use crate::sys::{AsFd, OwnedFd, file, limit, process, socket};
use crate::sysctl::HANDLE_COUNT;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Most crashes at a time; what comes besides is handled without us.
const MOST: usize = 1024;

/// Largest message, in bytes: of the arguments only paths and names have no length of their own, and `%E` may have 4096.
const LARGEST: usize = 16 << 10;

/// What is said to the relay: that somebody is there, and that its crash is taken.
const THERE: u8 = 0;
const TAKEN: u8 = 1;

/// Serves until SIGTERM or SIGINT, and then until the crashes that were taken are done.
///
/// # Errors
/// It cannot be done here, or somebody does it already.
pub fn serve() -> Result<()> {
    ensure!(process::is_host_root(), "only root of the host may do it; run it with sudo, outside of any container");
    process::not_dumpable()?;
    // As the kernel's own helpers have it: what crashes here makes no crash.
    limit::no_core()?;
    file::change_dir(file::open_dir(Path::new("/"))?)?;
    let registry = Registry::create()?;
    let lock = file::open_lock(registry.dir(), "serve.lock".as_ref())?;
    ensure!(file::try_lock(&lock)?, "another `oci-coredump serve` runs");
    // Of one that was killed.
    file::unlink(registry.dir(), "serve".as_ref())?;
    let listener = socket::listen(SERVE_SOCKET)?;
    let signals = Signals::take()?;
    let (taken, tell) = process::pipe()?;
    log::info!("serve: crashes are taken at {SERVE_SOCKET}");
    let mut crew = Crew::default();
    let spare = (2 * process::cpus()).clamp(2, 16);
    let mut ends = false;
    loop {
        while !ends && crew.waiting.len() < spare && crew.size() < MOST {
            let child = process::fork(|| {
                if let Err(e) = one(&listener, &tell) {
                    log::error!("serve: {e:#}");
                }
                0
            });
            crew.waiting.insert(child?.id().as_raw_nonzero().get());
        }
        process::wait_for_any(&[signals.as_fd(), taken.as_fd()])?;
        if signals.end_is_wished() && !ends {
            ends = true;
            file::unlink(registry.dir(), "serve".as_ref())?;
            socket::stop_listening(&listener)?;
        }
        crew.look(&taken)?;
        if ends && crew.size() == 0 {
            return Ok(());
        }
    }
}

/// The children: those that wait for a crash, and those that have one.
#[derive(Debug, Default)]
struct Crew {
    waiting: BTreeSet<i32>,
    busy: BTreeSet<i32>,
}

impl Crew {
    fn size(&self) -> usize {
        self.waiting.len() + self.busy.len()
    }

    /// Who has taken a crash since, and who has ended.
    fn look(&mut self, taken: &OwnedFd) -> Result<()> {
        let mut words = [0; 256];
        while process::is_readable(taken)? {
            let got = process::read(taken, &mut words).context("read")?;
            // Small writes to a pipe come whole, and so do these.
            for id in words[..got].chunks_exact(4).map(|w| i32::from_ne_bytes([w[0], w[1], w[2], w[3]])) {
                if self.waiting.remove(&id) {
                    self.busy.insert(id);
                }
            }
        }
        while let Some(id) = process::reap() {
            // One that has ended while it waited is replaced.
            self.busy.remove(&id);
            self.waiting.remove(&id);
        }
        Ok(())
    }
}

/// A child: waits for a crash, and handles it.
fn one(listener: &OwnedFd, tell: &OwnedFd) -> Result<()> {
    Signals::give_back()?;
    // Nobody would replace it, or make room for another one.
    process::end_with_parent()?;
    let Ok(connection) = socket::accept(listener) else { return Ok(()) };
    let there = socket::say(&connection, THERE);
    process::write(tell, &(std::process::id() as i32).to_ne_bytes()).context("write")?;
    // Some only ask who listens, as `doctor` does.
    let Some((words, mut descriptors)) = socket::receive(&connection, LARGEST).ok().filter(|_| there) else { return Ok(()) };
    let args = arguments(words)?;
    ensure!(!descriptors.is_empty(), "a crash without its pipe");
    let (pipe, pidfd) = (descriptors.remove(0), descriptors.pop());
    process::outlive_parent()?;
    if !socket::say(&connection, TAKEN) {
        // It came too late: the other side does it.
        return Ok(());
    }
    drop(connection);
    process::not_dumpable()?;
    let keep: Vec<_> = [Some(pipe.as_fd()), pidfd.as_ref().map(|p| p.as_fd())].into_iter().flatten().collect();
    process::close_all_but(&keep)?;
    process::quiet_output()?;
    process::replace_stdin(&pipe);
    drop(pipe);
    // Where the kernel has it: an earlier handler is told that number.
    let pidfd = pidfd.map(|fd| process::renumber(fd, 3)).transpose()?;
    super::dispatch(Crash::handed(&args, pidfd)?)
}

/// As the kernel laid them out: each ends in a NUL.
fn arguments(words: Vec<u8>) -> Result<Vec<OsString>> {
    ensure!(words.last() == Some(&0), "arguments that do not end");
    let args: Vec<_> = words[..words.len() - 1].split(|b| *b == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    ensure!(args.len() == HANDLE_COUNT, "{} arguments, not {HANDLE_COUNT}", args.len());
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_as_the_kernel_lays_them_out() {
        let text = (0..HANDLE_COUNT).map(|i| if i == 11 { "\0".into() } else { format!("{i}\0") }).collect::<String>();
        let args = arguments(text.clone().into_bytes()).unwrap();
        assert_eq!((args[0].to_str(), args[11].to_str(), args[15].to_str()), (Some("0"), Some(""), Some("15")));
        for bad in ["", "a\0", text.trim_end_matches('\0'), &format!("{text}more\0")] {
            assert!(arguments(bad.as_bytes().to_vec()).is_err(), "{bad:?}");
        }
    }
}
