//! The record of one crash: what is said of it, and when.

use super::record_writer::{Answer, RecordWriter, Recorded, Task};
use crate::config::Config;
use crate::record::{Outcome, Record};
use crate::registry::Registry;
use crate::store::{Begin, Records};
use crate::sys::{BorrowedFd, OwnedFd, descriptor};
use anyhow::{Context, Result, bail};
use std::borrow::Cow;
use std::time::Duration;

/// How long the child may sleep without a break for one line of a record. The store's disk may be
/// frozen or gone, and the crashed process waits.
const PROMPT: Duration = Duration::from_secs(2);

/// The same for counting one more crash: longer than it waits for a lock.
const COUNTING: Duration = Duration::from_secs(6);

/// The record of one crash.
pub(crate) struct RecordClient<'a> {
    config: &'a Config,
    /// Whose record it is, and the directory of the account's limits; none without a run directory.
    account: String,
    limits: Result<Option<OwnedFd>>,
    /// The descriptors of the crash's slot, which lasts as long as the child that writes.
    slot: Vec<BorrowedFd<'a>>,
    state: RecordWriterState,
}

enum RecordWriterState {
    /// Nothing was to be written yet.
    Closed,
    Open(RecordWriter),
    /// The store cannot be opened, and why; or it does not answer, and is not asked again.
    Gone(String),
}

impl<'a> RecordClient<'a> {
    /// Opens nothing yet. That the store cannot be opened is said where there is something to
    /// write. `account`: whose record it is. `slot`: descriptors of the crash's slot.
    pub(crate) fn new(
        config: &'a Config,
        registry: Option<&Registry>,
        account: String,
        slot: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> Self {
        let limits = registry.map(|registry| registry.limits_dir(&account)).transpose();
        RecordClient {
            config,
            account,
            limits,
            slot: slot.collect(),
            state: RecordWriterState::Closed,
        }
    }

    /// Whether the store could be opened and has answered so far.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, RecordWriterState::Open(_))
    }

    /// Tells of a crash without a core, and returns whether it has a record of its own. `most`:
    /// records that the account may have.
    ///
    /// # Errors
    /// It could not be told, or the store does not answer.
    pub(crate) fn refuse(&mut self, record: &Record, most: u64) -> Result<bool> {
        if let Err(e) = &self.limits {
            bail!("{e:#}");
        }
        self.ask(&Task::Refuse { record: Cow::Borrowed(record), most }, COUNTING)
    }

    /// Says what is known now. If that cannot be saved it is in the log all the same.
    pub(crate) fn say(&mut self, record: &Record) {
        if let Err(e) = self.ask(&Task::Say(Cow::Borrowed(record)), PROMPT) {
            log::error!("cannot save the record of this crash: {e:#}: {record}");
        }
    }

    /// What became of the core. The process is let go when it is in the record, and does not wait
    /// for the log.
    pub(crate) fn close(&mut self, record: &Record) {
        self.say(record);
        descriptor::release_stdin();
        match record.outcome {
            Outcome::Written => log::info!("{record}"),
            _ => log::warn!("{record}"),
        }
    }

    /// Notes the record in its account's list, and removes the oldest ones where there are more
    /// than `most`. No process waits for that.
    pub(crate) fn note(&mut self, record: &Record, most: u64) {
        if !self.is_open() || matches!(self.limits, Ok(None)) {
            return;
        }
        let task = Task::Note { record: Cow::Borrowed(record), most };
        if let Err(e) = self.ask(&task, COUNTING) {
            let account = &self.account;
            log::warn!("the records of account {account} cannot be counted, ignoring: {e:#}");
        }
    }

    /// A child that was killed, as by the kernel that needs memory, is replaced once.
    fn ask(&mut self, task: &Task<'_>, asleep: Duration) -> Result<bool> {
        match self.try_ask(task, asleep, Records::begin)? {
            Some(done) => Ok(done),
            None => self
                .try_ask(task, asleep, Records::begin_again)?
                .context("the process that writes records has ended, twice"),
        }
    }

    /// `None`: the child was killed, and another one may be asked. `begin`: see [`Begin`].
    fn try_ask(&mut self, task: &Task<'_>, asleep: Duration, begin: Begin) -> Result<Option<bool>> {
        if matches!(self.state, RecordWriterState::Closed) {
            let account = self.limits.as_ref().ok().and_then(Option::as_ref);
            let started = RecordWriter::start(self.config, &self.slot, account, begin)?;
            self.state = RecordWriterState::Open(started);
        }
        let why = match &mut self.state {
            RecordWriterState::Gone(why) => bail!("{why}"),
            RecordWriterState::Closed => bail!("the store is not open"),
            RecordWriterState::Open(writer) => match writer.ask(task, asleep) {
                Answer::Recorded(Recorded::Done(result)) => {
                    return result.map(Some).map_err(anyhow::Error::msg);
                }
                Answer::Ended(e) => {
                    log::warn!("the process that writes records has ended: {e:#}");
                    self.state = RecordWriterState::Closed;
                    return Ok(None);
                }
                Answer::Recorded(Recorded::Closed(why)) => why,
                Answer::Silent => "the store does not answer".into(),
            },
        };
        self.state = RecordWriterState::Gone(why.clone());
        bail!("{why}")
    }
}
