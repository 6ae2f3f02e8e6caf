//! Where the record of a crash goes, and how many records an account may have.

use crate::config::Config;
use crate::record::{Outcome, Record};
use crate::registry::Registry;
use crate::store::{RecordFile, Records, Store};
use crate::sys::{OwnedFd, file, process};
use crate::vacuum;
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The names of an account's records, the oldest first, a line each.
const NAMES: &str = "records";

/// Shortest name of a record with its line end, in bytes.
const SHORTEST: u64 = 26;

/// Largest list of names that is read, in bytes.
const MAX: usize = 16 << 20;

/// How long another process may have the list.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the store may take for one line of a record. Its disk may be frozen or gone, and the
/// crashed process waits.
const PROMPT: Duration = Duration::from_secs(2);

/// How long for counting one more crash, which waits for two locks besides.
const COUNTING: Duration = Duration::from_secs(6);

/// The record of one crash.
pub(crate) struct Ledger {
    config: Arc<Config>,
    state: State,
}

enum State {
    /// The store was not opened yet.
    Closed,
    Open(Box<Records>, Option<RecordFile>),
    /// It cannot be opened, and why; or it does not answer, and is not asked again.
    Gone(String),
}

impl Ledger {
    /// Opens nothing yet. That the store cannot be opened is said where there is something to
    /// write.
    pub(crate) fn new(config: &Config) -> Self {
        Ledger { config: Arc::new(config.clone()), state: State::Closed }
    }

    /// The directory of the records, if it could be opened and has answered so far.
    pub(crate) fn records(&self) -> Option<&Records> {
        match &self.state {
            State::Open(records, _) => Some(records),
            _ => None,
        }
    }

    /// Counts a crash by the records.
    ///
    /// # Errors
    /// They could not be opened, or do not answer.
    pub(crate) fn count<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Records) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let config = self.config.clone();
        let before = std::mem::replace(&mut self.state, State::Closed);
        let after = timely(COUNTING, before, move |state| {
            let state = state.opened(&config);
            let done = match &state {
                State::Open(records, _) => work(records),
                State::Gone(why) => Err(anyhow::anyhow!("{why}")),
                State::Closed => Err(anyhow::anyhow!("the store is not open")),
            };
            (state, done)
        });
        let (state, done) = after.unwrap_or_else(|| {
            (State::silent(), Err(anyhow::anyhow!("the store does not answer")))
        });
        self.state = state;
        done
    }

    /// Says what is known now. If that cannot be saved it is in the log all the same.
    pub(crate) fn say(&mut self, record: &Record) {
        let (config, shared) = (self.config.clone(), record.clone());
        let mut said = Ok(());
        let before = std::mem::replace(&mut self.state, State::Closed);
        let after = timely(PROMPT, before, move |state| {
            let mut state = state.opened(&config);
            let said = state.say(&shared);
            (state, said)
        });
        self.state = match after {
            Some((state, result)) => {
                said = result;
                state
            }
            None => State::silent(),
        };
        if let State::Gone(why) = &self.state {
            said = Err(anyhow::anyhow!("{why}"));
        }
        if let Err(e) = said {
            log::error!("cannot save the record of this crash: {e:#}: {record}");
        }
    }

    /// What became of the core. The process is let go when it is in the record, and does not wait
    /// for the log.
    pub(crate) fn close(&mut self, record: &Record) {
        self.say(record);
        process::release_stdin();
        match record.outcome {
            Outcome::Written => log::info!("{record}"),
            _ => log::warn!("{record}"),
        }
    }
}

impl State {
    fn silent() -> Self {
        State::Gone("the store does not answer".into())
    }

    fn opened(self, config: &Config) -> Self {
        match self {
            State::Closed => match Store::open(config).and_then(|s| s.records()) {
                Ok(records) => State::Open(Box::new(records), None),
                Err(e) => State::Gone(format!("{e:#}")),
            },
            other => other,
        }
    }

    fn say(&mut self, record: &Record) -> Result<()> {
        match self {
            State::Open(_, Some(file)) => file.add(record),
            State::Open(records, file) => records.begin(record).map(|begun| *file = Some(begun)),
            _ => Ok(()),
        }
    }
}

/// Does something that takes the time of the store's disk, in a thread: one that sleeps there
/// cannot be ended, only left behind, and ends with its call. What it had is lost then.
fn timely<T: Send + 'static>(
    time: Duration,
    state: State,
    work: impl FnOnce(State) -> (State, T) + Send + 'static,
) -> Option<(State, T)> {
    if matches!(state, State::Gone(_)) {
        return Some(work(state));
    }
    let (say, hear) = std::sync::mpsc::sync_channel(1);
    let task = Arc::new(Mutex::new(Some((state, work))));
    let take = |task: &Mutex<Option<_>>| task.lock().ok().and_then(|mut task| task.take());
    let thread = std::thread::Builder::new().spawn({
        let task = task.clone();
        move || {
            if let Some((state, work)) = take(&task) {
                let _ = say.send(work(state));
            }
        }
    });
    // Where there is no thread to be had, the disk's time is taken.
    if thread.is_err()
        && let Some((state, work)) = take(&task)
    {
        return Some(work(state));
    }
    let done = hear.recv_timeout(time).ok();
    if let (Some(_), Ok(thread)) = (&done, thread) {
        // Whoever forks next has one thread.
        let _ = thread.join();
    }
    done
}

/// Notes a record of the account, and removes its oldest ones where it has more than `most`. One
/// whose core is in the store stays: those are removed by `vacuum` and `rm`, with their cores.
pub(crate) fn remember(
    registry: &Registry,
    account: &str,
    most: u64,
    records: &Records,
    record: &Record,
) {
    let attempt = || -> Result<()> {
        let dir = registry.limits_dir(account)?;
        let mut list =
            file::open_append(&dir, NAMES.as_ref()).context("open the list of records")?;
        let mut line = Records::name_of(record).into_encoded_bytes();
        line.push(b'\n');
        list.write_all(&line).context("write")?;
        let (after, added) = (file::stat(&list)?.size, line.len() as u64);
        if is_due(after - added.min(after), after, most) {
            trim(&dir, most, records)
        } else {
            Ok(())
        }
    };
    if let Err(e) = attempt() {
        log::warn!("the records of account {account} cannot be counted, ignoring: {e:#}");
    }
}

/// Whether the list, which was `before` bytes long and is `after` long now, may hold too many
/// names. Once for each eighth of `most`: where nothing can be removed, few look in vain.
fn is_due(before: u64, after: u64, most: u64) -> bool {
    let step = (most / 8).max(1).saturating_mul(SHORTEST);
    after > most.saturating_mul(SHORTEST) && before / step != after / step
}

/// Removes the oldest records until an eighth of `most` is free, so that this is done now and then
/// only.
fn trim(dir: &OwnedFd, most: u64, records: &Records) -> Result<()> {
    let lock = file::reopen_dir(dir)?;
    if !file::lock_within(&lock, PATIENCE)? {
        return Ok(());
    }
    let list = file::open_read(dir, NAMES.as_ref()).context("open the list of records")?;
    let text = file::read_bounded(list, MAX, "the list of records")?;
    let names: Vec<&[u8]> = text.split(|b| *b == b'\n').filter(|name| !name.is_empty()).collect();
    if names.len() as u64 <= most {
        return Ok(());
    }
    let surplus = names.len() - (most - most / 8) as usize;
    let mut left = Vec::new();
    for name in &names[..surplus] {
        let name = OsStr::from_bytes(name);
        match records.read(name) {
            Some(record) if has_core_in_store(&record) => left.extend([name.as_bytes(), b"\n"]),
            _ => records.remove(name)?,
        }
    }
    names[surplus..].iter().for_each(|name| left.extend([*name, b"\n"]));
    file::replace(dir, NAMES.as_ref(), &left.concat(), 0o600)
}

fn has_core_in_store(record: &Record) -> bool {
    let container = record.host_dir.as_deref().map(Path::new);
    let store = container.and_then(|dir| dir.parent()?.parent());
    store.is_some_and(|store| vacuum::has_core_in_store(store, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_look_in_vain() {
        const LINE: u64 = 40;
        let looks = |most: u64, names: u64| {
            (0..names).filter(|n| is_due(n * LINE, (n + 1) * LINE, most)).count()
        };
        assert_eq!(looks(1000, 650), 0);
        // Each eighth of the most, however many there are already.
        assert!((10..=16).contains(&(looks(1000, 2000) - looks(1000, 1000))));
        assert_eq!(looks(1, 10), 10);
        assert_eq!(looks(u64::MAX, 1000), 0);
    }
}
