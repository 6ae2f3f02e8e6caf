//! Selects crashes by the MATCH words, `--since` and `--until`. Pure.

use crate::config::matches as glob;
use crate::record::{Names, Record};
use crate::store::Records;
use anyhow::{Result, bail, ensure};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::ffi::OsStr;
use std::str::FromStr;

/// The conditions, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Query {
    terms: Vec<Term>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// A MATCH of the command line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    Of(QueryField, String),
    /// A bare number.
    Pid(i32),
    /// A bare path.
    Path(String),
    /// Any other bare word.
    Name(String),
}

/// What a condition is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueryField {
    Container,
    Pod,
    Namespace,
    Image,
    Exe,
    Comm,
    Pid,
    Signal,
    Core,
    /// The user whose rootless container it was.
    User,
    /// The ID of the crash: the name of its record.
    Record,
}

/// The fields of a MATCH, by their names.
pub(super) const FIELDS: [(&str, QueryField); 11] = [
    ("container", QueryField::Container),
    ("pod", QueryField::Pod),
    ("namespace", QueryField::Namespace),
    ("image", QueryField::Image),
    ("exe", QueryField::Exe),
    ("comm", QueryField::Comm),
    ("pid", QueryField::Pid),
    ("signal", QueryField::Signal),
    ("core", QueryField::Core),
    ("user", QueryField::User),
    ("record", QueryField::Record),
];

impl Query {
    /// The crashes that match all of the terms, from `since` to `until`.
    pub(super) fn new(
        terms: Vec<Term>,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Self {
        Query { terms, since, until }
    }

    /// Whether the record of this name may match: a name that begins with the time as the
    /// dispatcher writes it says when the crash was.
    pub(super) fn may_take(&self, name: &OsStr) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let time = name.to_str().and_then(|name| Some(name.split_once('-')?.0));
        let time = time.and_then(|time| DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok());
        let time = time.and_then(|time| time.to_zoned_datetime(TimeZone::UTC).ok());
        time.is_none_or(|time| self.is_in_time(time.timestamp()))
    }

    fn is_in_time(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|s| time >= s) && self.until.is_none_or(|u| time <= u)
    }

    /// Whether the record matches.
    pub(super) fn takes(&self, record: &Record) -> bool {
        let in_time = match record.time.parse::<Timestamp>() {
            Ok(t) => self.is_in_time(t),
            Err(_) => self.since.is_none() && self.until.is_none(),
        };
        // The names that a user gave a container could be those of root's.
        let is_said = record.user.is_none()
            || self.terms.iter().any(|t| matches!(t, Term::Of(QueryField::User, _)))
            || !self.terms.iter().any(Term::is_name);
        in_time && is_said && self.terms.iter().all(|t| t.takes(record))
    }
}

impl FromStr for Term {
    type Err = anyhow::Error;

    /// # Errors
    /// It is empty, or there is no such field.
    fn from_str(word: &str) -> Result<Self> {
        ensure!(!word.is_empty(), "expected a PID, a path, a name or FIELD=VALUE");
        if let Some((key, value)) = word.split_once('=').filter(|(key, _)| !key.contains('/')) {
            let Some((_, field)) = FIELDS.iter().find(|(name, _)| *name == key) else {
                bail!("there is no field {key:?}, but {}", FIELDS.map(|(name, _)| name).join(", "));
            };
            return Ok(Term::Of(*field, value.to_owned()));
        }
        Ok(match word.parse() {
            Ok(pid) => Term::Pid(pid),
            Err(_) if word.starts_with('/') => Term::Path(word.to_owned()),
            Err(_) => Term::Name(word.to_owned()),
        })
    }
}

impl Term {
    /// The word, if it is a path or a name.
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Term::Path(word) | Term::Name(word) => Some(word),
            Term::Of(..) | Term::Pid(_) => None,
        }
    }

    /// Whether the condition is on a name that the engine gave a container.
    fn is_name(&self) -> bool {
        use QueryField::{Container, Image, Namespace, Pod};
        matches!(self, Term::Name(_) | Term::Of(Container | Image | Namespace | Pod, _))
    }

    fn takes(&self, r: &Record) -> bool {
        match self {
            Term::Of(field, value) => field.takes(value, r),
            Term::Pid(pid) => [r.pid, r.host_pid, r.tid, r.host_tid].contains(pid),
            Term::Path(path) => QueryField::Exe.takes(path, r) || QueryField::Core.takes(path, r),
            Term::Name(name) => [
                QueryField::Container,
                QueryField::Pod,
                QueryField::Exe,
                QueryField::Comm,
                QueryField::Signal,
            ]
            .iter()
            .any(|f| f.takes(name, r)),
        }
    }
}

impl QueryField {
    fn takes(self, value: &str, r: &Record) -> bool {
        let is = |have: &Option<String>| have.as_deref().is_some_and(|h| glob(value, h));
        match self {
            QueryField::Container => {
                is(&r.names.container_name)
                    || r.names.is_called(value)
                    || glob(value, &r.names.container_id)
                    || glob(value, &container(&r.names))
            }
            QueryField::Pod => is(&r.names.pod_name),
            QueryField::Namespace => is(&r.names.pod_namespace),
            QueryField::Image => is(&r.names.image),
            QueryField::Exe => glob(value, &r.exe) || glob(value, base(&r.exe)),
            QueryField::Comm => glob(value, &r.comm),
            QueryField::Pid => value.parse().is_ok_and(|pid| [r.pid, r.host_pid].contains(&pid)),
            QueryField::Signal => {
                let value = value.to_ascii_uppercase();
                glob(&value, &r.signal_name)
                    || r.signal_name.strip_prefix("SIG").is_some_and(|short| glob(&value, short))
                    || value.parse() == Ok(r.signal)
            }
            QueryField::User => value.parse().is_ok_and(|uid: u32| r.user == Some(uid)),
            QueryField::Record => Records::id_of(r) == value,
            QueryField::Core => [&r.core_path, &r.host_path]
                .into_iter()
                .flatten()
                .any(|p| glob(value, p) || glob(value, base(p))),
        }
    }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A container in one word: `namespace/pod/container`, its name, or the beginning of its ID.
pub(super) fn container(names: &Names) -> String {
    let own = names
        .container_name
        .clone()
        .unwrap_or_else(|| names.container_id.chars().take(12).collect());
    [names.pod_namespace.clone(), names.pod_name.clone()]
        .into_iter()
        .flatten()
        .chain([own])
        .collect::<Vec<_>>()
        .join("/")
}

/// The same, with the user whose container it was if that is not root.
pub(super) fn whose(record: &Record) -> String {
    let name = container(&record.names);
    record.user.map_or(name.clone(), |uid| format!("user {uid}: {name}"))
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
