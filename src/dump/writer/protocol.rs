//! What the writer tells its parent: a line of JSON for each message.

use crate::cause::Cause;
use crate::sys::file::{FileId, FileIdentity};
use crate::sys::{AsFd, BorrowedFd, OwnedFd, descriptor};
use serde::{Deserialize, Serialize};
use std::io::Write;

/// A message of the writer. `Created` comes once at most, then `ReleasedEarly` once at most; the
/// last one is `Retry` or `Done`, after which the writer waits for its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    Created {
        made: CreatedFile,
        /// Cores in the host's store that have to go for this one: the parent's to remove.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        evict: Vec<FileIdentity>,
        /// What went wrong without keeping the core from being written, for the log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// The process was let go before its core is whole.
    ReleasedEarly,
    /// Nothing was read yet, and no file made: an early release is not for this target.
    Retry,
    /// What became of the core. Without `Created` before it there is no file.
    Done(Finished),
}

/// A file that was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CreatedFile {
    pub id: Option<FileId>,
    /// Whether it is on a memory-backed file system.
    pub memory_backed: bool,
    /// The number that its name got; 0 and 1 are the name without one.
    #[serde(default)]
    pub number: u32,
    /// What tells the file from others, as far as it is known before its first byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<FileIdentity>,
}

/// What became of the core.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Finished {
    /// Size of the file in bytes.
    pub size: Option<u64>,
    /// Bytes on disk.
    pub disk_size: Option<u64>,
    /// Size in bytes of the core with all of the memory, if this one keeps less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_size: Option<u64>,
    /// What tells the file from others.
    pub identity: Option<FileIdentity>,
    /// Why it is short, or was not made.
    pub cause: Option<Cause>,
    /// Cores of the container that are not there any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<FileIdentity>,
}

impl Finished {
    /// The core was not written, or only in part.
    pub(crate) fn failed(cause: Cause, gone: Vec<FileIdentity>) -> Self {
        Finished { cause: Some(cause), gone, ..Finished::default() }
    }
}

/// What was heard of a writer, so that each message is acted on once.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    created: bool,
    released: bool,
}

impl Heard {
    /// The message in a line. `None`: there is none to act on, since the line is damaged or says
    /// again what was said before.
    pub(crate) fn message(&mut self, line: &[u8]) -> Option<Message> {
        let message = serde_json::from_slice(line).ok()?;
        let again = match &message {
            Message::Created { .. } => std::mem::replace(&mut self.created, true),
            Message::ReleasedEarly => std::mem::replace(&mut self.released, true),
            Message::Retry | Message::Done(_) => false,
        };
        (!again).then_some(message)
    }
}

/// The writer's end of the pipe to its parent.
pub(crate) struct ToParent(std::fs::File);

impl ToParent {
    /// Reports into this end of a pipe.
    pub(crate) fn over(pipe: OwnedFd) -> Self {
        ToParent(pipe.into())
    }

    /// Waits until the parent has closed its end, or has ended.
    pub(crate) fn wait_until_unheard(&self) {
        // There is never anything to read at this end: it ends with an error.
        let _ = descriptor::wait_readable(&self.0, None);
    }

    /// Sends a message. If that fails, there is no parent any more to read it.
    pub(crate) fn say(&mut self, message: &Message) {
        let mut line = serde_json::to_vec(message).unwrap_or_default();
        line.push(b'\n');
        let _ = self.0.write_all(&line);
    }
}

impl AsFd for ToParent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::CauseCode;

    #[test]
    fn every_message_is_a_line() {
        let made =
            CreatedFile { id: Some(FileId(7, 9)), memory_backed: true, number: 3, identity: None };
        let evict = vec![FileIdentity::default()];
        let note = Some("one\ntwo".to_owned());
        let refused =
            Finished::failed(Cause::limit(CauseCode::Cores, 3, "too many"), evict.clone());
        let messages = [
            Message::Created { made, evict, note },
            Message::Created { made: CreatedFile::default(), evict: Vec::new(), note: None },
            Message::ReleasedEarly,
            Message::Retry,
            Message::Done(Finished { size: Some(1), ..Finished::default() }),
            Message::Done(refused),
        ];
        for message in messages {
            let line = serde_json::to_string(&message).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), message, "{line}");
        }
    }

    #[test]
    fn each_message_is_acted_on_once() {
        let line = |message: &Message| serde_json::to_vec(message).unwrap();
        let created = Message::Created {
            made: CreatedFile::default(),
            evict: vec![FileIdentity::default()],
            note: None,
        };
        let mut heard = Heard::default();
        assert_eq!(heard.message(b"{\"Created\":"), None, "a damaged line");
        assert_eq!(heard.message(&line(&created)), Some(created.clone()));
        assert_eq!(heard.message(&line(&created)), None);
        assert_eq!(heard.message(&line(&Message::ReleasedEarly)), Some(Message::ReleasedEarly));
        assert_eq!(heard.message(&line(&Message::ReleasedEarly)), None);
        let done = Message::Done(Finished::default());
        assert_eq!(heard.message(&line(&done)), Some(done));
    }
}
