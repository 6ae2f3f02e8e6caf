//! The record of one crash: what is said of it, and when.
//!
//! The store's disk may be frozen or gone. While the crashed process waits, the store is asked on a
//! thread, which is left behind where it gets no answer.

use super::{record_list, record_without_core};
use crate::record::{Outcome, Record};
use crate::store::{RecordFile, Records, Store};
use crate::sys::new_file::NewFile;
use crate::sys::{OwnedFd, answer, descriptor};
use anyhow::{Context, Result, anyhow, bail};
use std::path::Path;
use std::time::Duration;

/// How long the store may sleep without a break over one line of a record: the crashed process
/// waits.
const PROMPT: Duration = Duration::from_secs(2);

/// The same for counting one more crash: longer than it waits for a lock.
const COUNTING: Duration = Duration::from_secs(6);

/// How long one task may take on a machine whose processors others have.
const MOST: Duration = Duration::from_secs(60);

const SILENT: &str = "the store does not answer";

/// The record of one crash.
pub(crate) struct CrashRecord<'a> {
    store: &'a Path,
    /// The directory of the limits of its account; none without a run directory.
    account: Option<&'a OwnedFd>,
    /// The crashed process waits for what is done.
    is_waited_for: bool,
    state: State,
}

enum State {
    /// Nothing was to be written yet.
    NotOpened,
    Open(Opened),
    /// The store cannot be opened, and why; or it does not answer, and is not asked again.
    Gone(String),
}

/// The store's records, and the crash's own, once that is there.
struct Opened {
    records: Records,
    file: Option<RecordFile>,
}

impl<'a> CrashRecord<'a> {
    /// Opens nothing yet. That the store cannot be opened is said where there is something to
    /// write. `account`: the directory of the limits of its account.
    pub(crate) fn new(store: &'a Path, account: Option<&'a OwnedFd>) -> Self {
        CrashRecord { store, account, is_waited_for: true, state: State::NotOpened }
    }

    /// Whether the store could be opened and has answered so far.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Tells of a crash without a core, and returns whether it has a record of its own. `most`:
    /// records that the account may have.
    ///
    /// # Errors
    /// It could not be told, or the store does not answer.
    pub(crate) fn say_without_core(&mut self, record: &Record, most: u64) -> Result<bool> {
        let account = self.account.map(OwnedFd::try_clone).transpose().context("dup")?;
        let record = record.clone();
        self.ask(COUNTING, move |opened| {
            record_without_core::tell(account.as_ref(), most, &opened.records, &record)
        })
    }

    /// Says what is known now. If that cannot be saved it is in the log all the same.
    pub(crate) fn say(&mut self, record: &Record) {
        let line = record.clone();
        let said = self.ask(PROMPT, move |opened| match &mut opened.file {
            Some(file) => file.add(&line),
            file => opened.records.begin(&line).map(|begun| *file = Some(begun)),
        });
        if let Err(e) = said {
            log::error!("cannot save the record of this crash: {e:#}: {record}");
        }
    }

    /// What became of the core. The process is let go when it is in the record, and does not wait
    /// for the log.
    pub(crate) fn say_and_release(&mut self, record: &Record) {
        self.say(record);
        descriptor::release_stdin();
        self.is_waited_for = false;
        match record.outcome {
            Outcome::Written => log::info!("{record}"),
            _ => log::warn!("{record}"),
        }
    }

    /// Notes the record in its account's list, and removes the oldest ones where there are more
    /// than `most`. No process waits for that.
    pub(crate) fn note(&self, record: &Record, most: u64) {
        let (Some(account), State::Open(opened)) = (self.account, &self.state) else { return };
        if let Err(e) = record_list::add(account, most, &opened.records, record) {
            let account = record.account.as_deref().unwrap_or_default();
            log::warn!("the records of account {account} cannot be counted, ignoring: {e:#}");
        }
    }

    /// Has the store do something, which may sleep for `asleep` without a break while the crashed
    /// process waits.
    fn ask<T: Send + 'static>(
        &mut self,
        asleep: Duration,
        task: impl FnOnce(&mut Opened) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let opened = match std::mem::replace(&mut self.state, State::Gone(SILENT.into())) {
            State::NotOpened => None,
            State::Open(opened) => Some(opened),
            State::Gone(why) => {
                self.state = State::Gone(why.clone());
                bail!(why)
            }
        };
        let store = self.store.to_owned();
        let answers = || takes_a_file(self.store).is_ok();
        let work = move || match opened.map_or_else(|| Opened::at(&store), Ok) {
            Ok(mut opened) => (task(&mut opened), State::Open(opened)),
            Err(e) => {
                let why = format!("{e:#}");
                (Err(anyhow!(why.clone())), State::Gone(why))
            }
        };
        let done = match self.is_waited_for {
            true => answer::within(asleep, MOST, answers, work)?,
            false => Some(work()),
        };
        let (done, state) = done.context(SILENT)?;
        self.state = state;
        done
    }
}

/// Makes a file in the store that has no name, and leaves it.
fn takes_a_file(store: &Path) -> Result<()> {
    NewFile::create(Store::open_at(store)?.dir()).map(drop)
}

impl Opened {
    fn at(store: &Path) -> Result<Self> {
        let records = Store::open_at(store).and_then(|store| store.records())?;
        Ok(Opened { records, file: None })
    }
}
