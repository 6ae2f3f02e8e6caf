//! The child that writes to the store what is said of a crash. The store's disk may be frozen or
//! gone, and who sleeps there cannot be ended. The child has nothing for which the kernel or
//! another process waits, so it is left behind then, and ends with its call.

use super::{record_list, refused};
use crate::config::Config;
use crate::record::Record;
use crate::report;
use crate::store::{Begin, RecordFile, Records, Store};
use crate::sys::child::{self, Child};
use crate::sys::{AsFd, BorrowedFd, OwnedFd, descriptor, process};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long the child may take to end when it is not needed any more.
const LAST: Duration = Duration::from_secs(2);

/// How long one task may take on a machine whose processors others have.
const MOST: Duration = Duration::from_secs(60);

/// The child's name in ps(1).
const NAME: &std::ffi::CStr = c"oci-records";

/// What the child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task<'a> {
    /// Add a line to the record, and make the record if it does not exist yet.
    Say(Cow<'a, Record>),
    /// Note the record in the list of its account, which may have `most` of them.
    Note { record: Cow<'a, Record>, most: u64 },
    /// Tell of a crash without a core: [`refused::tell`].
    Refuse { record: Cow<'a, Record>, most: u64 },
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Recorded {
    /// It was done, or why not. For [`Task::Refuse`]: whether the crash has a record of its own.
    Done(Result<bool, String>),
    /// The store cannot be opened, and why.
    Closed(String),
}

/// What a task comes to.
#[derive(Debug)]
pub(super) enum Answer {
    Recorded(Recorded),
    /// The child has ended before it answered, and how that was seen.
    Ended(anyhow::Error),
    /// It slept for too long, as one does whose disk does not answer, and was killed.
    Silent,
}

/// The child, from its parent's side. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct RecordWriter {
    child: Option<Child>,
    stream: Option<UnixStream>,
}

impl RecordWriter {
    /// Starts it. It opens the store, and keeps the descriptors of the crash's `slot`. `account`:
    /// the directory of the account's limits, if there is a run directory. `begin`: how it opens
    /// the record's file.
    ///
    /// # Errors
    /// There is no child to be had.
    pub(super) fn start(
        config: &Config,
        slot: &[BorrowedFd<'_>],
        account: Option<&OwnedFd>,
        begin: Begin,
    ) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("socketpair")?;
        ours.set_write_timeout(Some(LAST))?;
        ours.set_read_timeout(Some(LAST))?;
        let child = child::fork(|| {
            process::set_name(NAME);
            process::end_with_parent();
            descriptor::release_stdin();
            // The descriptor that it holds is closed now.
            report::count_lines_in(None);
            let own = account.map(OwnedFd::as_fd).into_iter().chain([theirs.as_fd()]);
            let all: Vec<_> = slot.iter().copied().chain(own).collect();
            let served = descriptor::close_all_but(&all).and_then(|()| {
                report::count_lines_in(account.and_then(|dir| dir.try_clone().ok()));
                serve(config, &theirs, account, begin)
            });
            i32::from(served.is_err())
        })?;
        Ok(RecordWriter { child: Some(child), stream: Some(ours) })
    }

    /// Gives it a task, and waits for the answer. It may sleep for `asleep` without a break.
    pub(super) fn ask(&mut self, task: &Task<'_>, asleep: Duration) -> Answer {
        let (Some(child), Some(stream)) = (self.child.take(), &self.stream) else {
            return Answer::Ended(anyhow::anyhow!("it is not there any more"));
        };
        match exchange(stream, &child, task, asleep) {
            Ok(Some(recorded)) => {
                self.child = Some(child);
                Answer::Recorded(recorded)
            }
            Ok(None) => {
                let _ = child.kill();
                Answer::Silent
            }
            Err(e) => {
                let _ = child.end_now();
                Answer::Ended(e)
            }
        }
    }
}

impl Drop for RecordWriter {
    fn drop(&mut self) {
        drop(self.stream.take());
        if let Some(child) = self.child.take() {
            let _ = child.end_within(LAST);
        }
    }
}

/// `None`: no answer has come.
///
/// # Errors
/// The child has ended.
fn exchange(
    stream: &UnixStream,
    child: &Child,
    task: &Task<'_>,
    asleep: Duration,
) -> Result<Option<Recorded>> {
    send(stream, task)?;
    if !child.wait_readable(stream, asleep, MOST)? {
        return Ok(None);
    }
    let mut line = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut line)?;
    Ok(Some(serde_json::from_slice(&line)?))
}

fn send(mut stream: &UnixStream, message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(stream.write_all(&line)?)
}

/// Does what it is told until its parent has closed the other end.
fn serve(
    config: &Config,
    stream: &UnixStream,
    account: Option<&OwnedFd>,
    begin: Begin,
) -> Result<()> {
    let records = Store::open(config).and_then(|store| store.records());
    let mut file = None;
    for line in BufReader::new(stream).split(b'\n') {
        let task: Task<'_> = serde_json::from_slice(&line?)?;
        let answer = match &records {
            Ok(records) => {
                let done = perform(task, records, account, begin, &mut file);
                Recorded::Done(done.map_err(|e| format!("{e:#}")))
            }
            Err(e) => Recorded::Closed(format!("{e:#}")),
        };
        send(stream, &answer)?;
    }
    Ok(())
}

fn perform(
    task: Task<'_>,
    records: &Records,
    account: Option<&OwnedFd>,
    begin: Begin,
    file: &mut Option<RecordFile>,
) -> Result<bool> {
    match task {
        Task::Say(record) => match file {
            Some(file) => file.add(&record)?,
            None => *file = Some(begin(records, &record)?),
        },
        Task::Note { record, most } => {
            let account = account.context("the directory of its limits cannot be opened")?;
            record_list::add(account, most, records, &record)?;
        }
        Task::Refuse { record, most } => {
            return refused::tell(account, most, records, &record, begin);
        }
    }
    Ok(true)
}
