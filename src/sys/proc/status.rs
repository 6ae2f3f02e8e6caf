//! /proc/PID/status.

use crate::sys::cred::Credentials;

/// The fields of /proc/PID/status that are used here, see proc_pid_status(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// File mode creation mask, see umask(2).
    pub umask: u32,
    /// PID of the parent in the reader's PID namespace; 0 if it is outside.
    pub parent: i32,
    /// User and group IDs, supplementary groups and capabilities.
    pub credentials: Credentials,
    /// The thread group's ID in each PID namespace, from the reader's to its own.
    pub ns_tgid: Vec<i32>,
    /// The thread's ID in each of them.
    pub ns_pid: Vec<i32>,
    /// Whether the process is dumping core now; `None` before Linux 4.15.
    pub core_dumping: Option<bool>,
}

impl Status {
    /// Parses the text. The kernel escapes a newline in the name, so that every line but the
    /// first is the kernel's own.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let field = |key| field(text, key);
        let numbers = |key| -> Option<Vec<u32>> {
            field(key)?.split_whitespace().map(|n| n.parse().ok()).collect()
        };
        let ids = |key| match field(key) {
            None => Some(Vec::new()),
            Some(ids) => ids.split_whitespace().map(|n| n.parse().ok()).collect(),
        };
        let mask = |key| u64::from_str_radix(field(key)?, 16).ok();
        Some(Status {
            // Absent before Linux 4.7.
            umask: field("Umask").map_or(Some(0o022), |v| u32::from_str_radix(v, 8).ok())?,
            parent: field("PPid")?.parse().ok()?,
            credentials: Credentials {
                uid: numbers("Uid")?.try_into().ok()?,
                gid: numbers("Gid")?.try_into().ok()?,
                groups: numbers("Groups")?,
                effective: mask("CapEff")?,
                permitted: mask("CapPrm")?,
            },
            ns_tgid: ids("NStgid")?,
            ns_pid: ids("NSpid")?,
            core_dumping: field("CoreDumping").map(|v| v == "1"),
        })
    }
}

/// The value of a line of /proc/PID/status; the first line is the name.
pub(super) fn field<'a>(status: &'a [u8], key: &str) -> Option<&'a str> {
    let line = status
        .split(|b| *b == b'\n')
        .skip(1)
        .find(|l| l.starts_with(key.as_bytes()) && l.get(key.len()) == Some(&b':'))?;
    std::str::from_utf8(&line[key.len() + 1..]).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &[u8] = b"Name:\ta)\\nUid:\t0 0 0 0 \xff\nUmask:\t0077\nState:\tS\nPPid:\t7\n\
                            Uid:\t1000\t1001\t1002\t1003\nGid:\t1\t2\t3\t4\nGroups:\t4 24 \n\
                            NStgid:\t900\t12\nNSpid:\t901\t13\nCapPrm:\t00000000a80425ff\n\
                            CapEff:\t00000000a80425fb\nCoreDumping:\t1\n";

    #[test]
    fn status_survives_a_hostile_name() {
        let s = Status::parse(STATUS).unwrap();
        assert_eq!((s.umask, s.parent, s.core_dumping), (0o077, 7, Some(true)));
        assert_eq!(s.credentials.uid, [1000, 1001, 1002, 1003]);
        assert_eq!(s.credentials.groups, [4, 24]);
        assert_eq!((s.ns_tgid.as_slice(), s.ns_pid.as_slice()), (&[900, 12][..], &[901, 13][..]));
        assert!(s.credentials.mixed());
        assert_eq!(Status::parse(b""), None);
        assert_eq!(Status::parse(b"Name:\tx\nUid:\t1 2\n"), None);
    }
}
