//! Why a crash has no core, or a truncated one. A [`Cause`] is made where the decision is made; its
//! `Display` is the prose of a record's `reason`, its [`CauseCode`] the record's `cause`, for
//! machines.
//! Pure.

mod code;

pub(crate) use code::CauseCode;

use crate::name_conflict::{Existing, LAST};
use crate::sys::Errno;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why there is no core, or why it is truncated. Error numbers are those of errno(3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// The hook refused the container's request, with this reason.
    Refused(String),
    /// Dump mode other than 1 and 2.
    DumpMode(u32),
    /// Dump mode 2, and why the container's root cannot have the core.
    RootsCore(String),
    /// The process has more rights than the container's user.
    SetUserId,
    /// A set-user-ID program, and a pattern that is a relative path.
    RelativePath,
    /// RLIMIT_CORE, in bytes, is less than one page.
    RlimitCoreTooLow(u64),
    /// RLIMIT_CORE, in bytes, was reached.
    RlimitCore(u64),
    /// RLIMIT_FSIZE, in bytes, was reached.
    RlimitFsize(u64),
    /// A limit of the configuration or the annotation.
    Limit {
        key: CauseCode,
        value: String,
        /// What it met.
        met: String,
    },
    /// The target accepted no byte for this many seconds.
    Stall(u64),
    /// The directory of this path could not be opened.
    Directory { path: String, errno: i32 },
    /// The file could not be made.
    Open {
        path: String,
        errno: i32,
        /// Why what has its name could not be removed.
        kept: Option<String>,
    },
    /// A file of this path exists, and the configuration or the annotation keeps it.
    Exists {
        path: String,
        /// `keep`, or `number` where all numbers are taken.
        existing: Existing,
    },
    /// A bound by the size of the file system.
    Share {
        /// The bound, as it is written: `core_max_size = 50%`.
        bound: String,
        /// Bytes that it leaves for the core.
        room: u64,
    },
    /// SELinux forbids the file, or its label cannot be given.
    Selinux {
        path: String,
        /// Which rule, or what failed.
        why: String,
    },
    /// The crasher's AppArmor profile could not be taken on.
    Apparmor { path: String, why: String },
    /// The file that was made is not as the kernel would accept it.
    Unfit { path: String, rule: String },
    /// A write failed.
    Write(i32),
    /// The kernel's pipe could not be read.
    Read(i32),
    /// After an early release the process's memory could not be read.
    Memory(i32),
    /// The kernel stopped sending.
    Killed,
    /// The writer made the file and ended without a report.
    Interrupted,
    /// The writer tried a system call that its filter does not allow.
    Forbidden,
    /// The writer was killed.
    WriterKilled {
        how: String,
        /// On a volume whose bytes are the container's memory.
        memory: bool,
    },
    /// The writer cannot be ended.
    WriterHangs,
    /// A user of the container has stopped the writer.
    WriterStopped,
    /// The crasher's credentials, root or namespaces could not be taken on.
    Credentials(String),
    /// Another failure of this program.
    Failed(String),
}

impl Cause {
    /// A limit that acted, `key`, its value, and what it met.
    pub(crate) fn limit(key: CauseCode, value: impl fmt::Display, met: impl fmt::Display) -> Self {
        Cause::Limit { key, value: value.to_string(), met: met.to_string() }
    }

    /// The file of this path could not be opened.
    pub(crate) fn open(path: &str, errno: Errno) -> Self {
        Cause::Open { path: path.to_owned(), errno: errno.raw_os_error(), kept: None }
    }

    /// The machine's word for it.
    pub(crate) fn code(&self) -> CauseCode {
        match self {
            Cause::Refused(_) => CauseCode::Refused,
            Cause::DumpMode(_) | Cause::RootsCore(_) => CauseCode::DumpMode,
            Cause::SetUserId | Cause::RelativePath => CauseCode::SetUserId,
            Cause::RlimitCoreTooLow(_) | Cause::RlimitCore(_) => CauseCode::RlimitCore,
            Cause::RlimitFsize(_) => CauseCode::RlimitFsize,
            Cause::Limit { key, .. } => *key,
            Cause::Stall(_) => CauseCode::Stall,
            Cause::Directory { errno, .. } => match error(*errno) {
                Errno::NOENT | Errno::NOTDIR => CauseCode::DirectoryMissing,
                _ => of_target(*errno).unwrap_or(CauseCode::Target),
            },
            Cause::Open { errno, .. } => of_target(*errno).unwrap_or(CauseCode::Target),
            Cause::Exists { .. } => CauseCode::Exists,
            Cause::Share { .. } => CauseCode::Share,
            Cause::Selinux { .. } => CauseCode::Selinux,
            Cause::Apparmor { .. } => CauseCode::Apparmor,
            Cause::Unfit { .. } => CauseCode::Unfit,
            Cause::Write(errno) => match of_target(*errno) {
                Some(word @ (CauseCode::NoSpace | CauseCode::Quota)) => word,
                _ => CauseCode::Write,
            },
            Cause::Read(_) | Cause::Memory(_) => CauseCode::Read,
            Cause::Killed => CauseCode::Killed,
            Cause::Interrupted | Cause::Forbidden | Cause::WriterKilled { .. } => {
                CauseCode::WriterKilled
            }
            Cause::WriterHangs => CauseCode::WriterHangs,
            Cause::WriterStopped => CauseCode::WriterStopped,
            Cause::Credentials(_) => CauseCode::Credentials,
            Cause::Failed(_) => CauseCode::Failed,
        }
    }

    /// The limit of the configuration or the annotation that acted, with its value: `rate =
    /// 10/min`.
    pub(crate) fn acted(&self) -> Option<String> {
        match self {
            Cause::Limit { key, value, .. } => Some(format!("{} = {value}", config_key(*key))),
            Cause::Stall(seconds) => Some(format!("stall = {seconds}")),
            Cause::Exists { existing, .. } => Some(format!("existing = {}", existing.as_str())),
            Cause::Share { bound, .. } => Some(bound.clone()),
            _ => None,
        }
    }
}

fn config_key(key: CauseCode) -> String {
    key.as_str().replace('-', "_")
}

fn error(errno: i32) -> Errno {
    Errno::from_raw_os_error(errno)
}

fn of_target(errno: i32) -> Option<CauseCode> {
    Some(match error(errno) {
        Errno::ACCESS | Errno::PERM => CauseCode::Permission,
        Errno::ROFS => CauseCode::ReadOnly,
        Errno::NOSPC => CauseCode::NoSpace,
        Errno::DQUOT => CauseCode::Quota,
        Errno::ISDIR => CauseCode::NamesDirectory,
        _ => return None,
    })
}

/// The prose, in one sentence.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Refused(why) | Cause::Failed(why) => f.write_str(why),
            Cause::DumpMode(mode) => write!(f, "dump mode {mode}: the kernel makes no core of it"),
            Cause::RootsCore(why) => write!(
                f,
                "dump mode 2 (a set-user-ID program, one that gave up its rights, or one that may \
                 not be read): its core is for the container's root only, and {why}"
            ),
            Cause::SetUserId => f.write_str(
                "a set-user-ID or set-group-ID program, or one with file capabilities: its core \
                 is not for the container's user",
            ),
            Cause::RelativePath => f.write_str(
                "in dump mode 2 (a set-user-ID program, one that gave up its rights, or one that \
                 may not be read) a core goes to an absolute path only",
            ),
            Cause::RlimitCoreTooLow(bytes) => {
                write!(f, "RLIMIT_CORE is {bytes} bytes, less than one page")
            }
            Cause::RlimitCore(bytes) => write!(f, "RLIMIT_CORE of {bytes} bytes was reached"),
            Cause::RlimitFsize(bytes) => {
                write!(f, "RLIMIT_FSIZE of the process was reached ({bytes} bytes)")
            }
            Cause::Limit { key, value, met } => {
                write!(f, "limits.{} = {value}: {met}", config_key(*key))
            }
            Cause::Stall(seconds) => write!(
                f,
                "the target accepted no data for {seconds} seconds (limits.stall): given up"
            ),
            Cause::Directory { path, errno } => {
                write!(f, "open the directory of {path:?}: {}", error(*errno))
            }
            Cause::Open { path, errno, kept } => {
                write!(f, "open {path:?}: {}", error(*errno))?;
                kept.as_ref().map_or(Ok(()), |why| write!(f, ", and it cannot be removed: {why}"))
            }
            Cause::Exists { path, existing } => match existing {
                Existing::Number => {
                    write!(
                        f,
                        "{path:?} exists, and so do {} numbered ones (existing = number)",
                        LAST - 1
                    )
                }
                _ => write!(f, "{path:?} exists, and it stays (existing = {})", existing.as_str()),
            },
            Cause::Share { bound, room } => {
                write!(f, "starlingx.io/{bound}: that leaves {room} bytes for the core")
            }
            Cause::Selinux { path, why } | Cause::Apparmor { path, why } => {
                write!(f, "open {path:?}: {why}")
            }
            Cause::Unfit { path, rule } => write!(f, "{path:?} was made, but {rule}"),
            Cause::Write(errno) => write!(f, "write: {}", error(*errno)),
            Cause::Read(errno) => write!(f, "read from the kernel: {}", error(*errno)),
            Cause::Memory(errno) => {
                write!(f, "read of the process's memory after its release: {}", error(*errno))
            }
            Cause::Killed => f.write_str(
                "the kernel stopped sending: the process was killed or frozen while it dumped",
            ),
            Cause::Interrupted => f.write_str("the writer was interrupted"),
            Cause::Forbidden => f.write_str(
                "the writer was killed: it tried a system call that its filter does not allow",
            ),
            Cause::WriterKilled { how, memory } => {
                let limit = if *memory { ", as the container's memory limit does" } else { "" };
                write!(f, "the writer was killed ({how}){limit}")
            }
            Cause::WriterHangs => f.write_str(
                "the writer cannot be killed: it is blocked in the target's file system",
            ),
            Cause::WriterStopped => {
                f.write_str("the writer was stopped by a user of the container, and was given up")
            }
            Cause::Credentials(why) => write!(f, "cannot become the crasher: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_decides_the_word() {
        let directory = |errno: Errno| {
            Cause::Directory { path: "/d/core".into(), errno: errno.raw_os_error() }.code()
        };
        assert_eq!(directory(Errno::NOENT), CauseCode::DirectoryMissing);
        assert_eq!(directory(Errno::NOTDIR), CauseCode::DirectoryMissing);
        assert_eq!(directory(Errno::ACCESS), CauseCode::Permission);
        assert_eq!(directory(Errno::LOOP), CauseCode::Target);
        assert_eq!(Cause::open("/d/core", Errno::ROFS).code(), CauseCode::ReadOnly);
        assert_eq!(Cause::open("/d", Errno::ISDIR).code(), CauseCode::NamesDirectory);
        let write = |errno: Errno| Cause::Write(errno.raw_os_error());
        assert_eq!(write(Errno::NOSPC).code(), CauseCode::NoSpace);
        assert_eq!(write(Errno::DQUOT).code(), CauseCode::Quota);
        assert_eq!(write(Errno::ACCESS).code(), CauseCode::Write);
    }

    #[test]
    fn prose_and_limit() {
        let cause = Cause::limit(CauseCode::MinFree, "5%", "too little");
        assert_eq!(cause.to_string(), "limits.min_free = 5%: too little");
        assert_eq!(cause.acted().as_deref(), Some("min_free = 5%"));
        assert_eq!(Cause::Stall(30).acted().as_deref(), Some("stall = 30"));
        assert_eq!(Cause::SetUserId.acted(), None);
    }
}
