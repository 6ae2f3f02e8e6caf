//! What the kernel said of a crash: the arguments of its pipe helper.

use super::transport::Transport;
use crate::pattern::{HANDLE_SPECIFIERS, Specifiers};
use crate::sys::{OwnedFd, descriptor};
use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// A crash as the kernel told it. Everything but the names is a number of the kernel's own; the
/// names are what a container chose, escaped by the kernel.
#[derive(Debug)]
pub(crate) struct Crash {
    /// The values of core(5)'s specifiers.
    pub said: Specifiers,
    /// The crasher, pinned, where the kernel gives a pidfd (Linux 6.16).
    pub pidfd: Option<OwnedFd>,
    /// How its core comes on stdin.
    pub transport: Transport,
}

impl Crash {
    /// Reads the arguments in the order of `crate::pattern::HANDLE_SPECIFIERS`, and takes over the
    /// pidfd.
    ///
    /// # Errors
    /// The argument that is missing or no number.
    pub(crate) fn from_arguments(args: &[OsString]) -> Result<Self> {
        let mut said = parse(args)?;
        // KERNEL(6.16): drop the Option when %F can be assumed.
        let pidfd = said.pidfd.and_then(descriptor::inherited);
        said.pidfd = pidfd.as_ref().map(descriptor::number);
        Ok(Crash { said, pidfd, transport: Transport::Pipe })
    }
}

/// How many there must be: the numbers without which nothing can be done.
pub(crate) const NEEDED: usize = 10;

/// The list may be another version's: the program can be replaced while a pattern of before is in
/// the kernel. What is added to the list comes at its end, and is ignored here where it is not
/// known; what is missing at its end counts as empty.
pub(crate) fn parse(args: &[OsString]) -> Result<Specifiers> {
    let is_version = |word: &OsString| {
        word.as_bytes()
            .strip_prefix(b"v")
            .is_some_and(|n| n.first().is_some_and(u8::is_ascii_digit))
    };
    let args = if args.first().is_some_and(is_version) { &args[1..] } else { args };
    ensure!(
        args.len() >= NEEDED,
        "expected at least {NEEDED} arguments ({}), got {}: this verb is for the kernel",
        HANDLE_SPECIFIERS[..NEEDED].join(" "),
        args.len()
    );
    let mut args = args.to_vec();
    args.resize(args.len().max(HANDLE_SPECIFIERS.len()), OsString::new());
    let args = args.as_slice();
    fn number<T: std::str::FromStr>(args: &[OsString], i: usize) -> Result<T> {
        args[i].to_str().and_then(|s| s.parse().ok()).with_context(|| {
            format!("{} = {:?} is no number of its range", HANDLE_SPECIFIERS[i], args[i])
        })
    }
    let bytes = |i: usize| args[i].as_bytes().to_vec();
    Ok(Specifiers {
        host_pid: number(args, 0)?,
        pid: number(args, 1)?,
        host_tid: number(args, 2)?,
        tid: number(args, 3)?,
        uid: number(args, 4)?,
        gid: number(args, 5)?,
        dump_mode: number(args, 6)?,
        signal: number(args, 7)?,
        time: number(args, 8)?,
        limit: number(args, 9)?,
        // Empty where %C is an unknown specifier.
        cpu: if args[10].is_empty() { None } else { Some(number(args, 10)?) },
        // Empty before Linux 6.16, where %F is an unknown specifier.
        pidfd: number(args, 11).ok(),
        hostname: bytes(12),
        comm: bytes(13),
        exe_name: bytes(14),
        exe_path: bytes(15),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn args(list: &[&[u8]]) -> Vec<OsString> {
        list.iter().map(|a| OsString::from_vec(a.to_vec())).collect()
    }

    const GOOD: [&[u8]; 16] = [
        b"400",
        b"12",
        b"401",
        b"13",
        b"4294967295",
        b"0",
        b"1",
        b"11",
        b"1700000000",
        b"18446744073709551615",
        b"0",
        b"",
        b"web",
        b"\xff !",
        b"x",
        b"!x",
    ];

    #[test]
    fn reads_what_the_kernel_passes() {
        let s = parse(&args(&GOOD)).unwrap();
        assert_eq!(
            (s.host_pid, s.pid, s.host_tid, s.tid, s.uid, s.limit),
            (400, 12, 401, 13, u32::MAX, u64::MAX)
        );
        assert_eq!(
            (s.pidfd, s.comm.as_slice(), s.exe_path.as_slice()),
            (None, &b"\xff !"[..], &b"!x"[..])
        );
    }

    #[test]
    fn an_older_kernel_leaves_some_empty() {
        let mut list = GOOD;
        assert_eq!(parse(&args(&list)).unwrap().cpu, Some(0));
        (list[10], list[11]) = (b"", b"");
        let said = parse(&args(&list)).unwrap();
        assert_eq!((said.cpu, said.pidfd), (None, None));
    }

    #[test]
    fn names_the_argument_that_is_wrong() {
        let mut list = GOOD;
        list[7] = b"SEGV";
        assert!(format!("{:#}", parse(&args(&list)).unwrap_err()).contains("%s"));
        assert!(format!("{:#}", parse(&args(&GOOD[..5])).unwrap_err()).contains("got 5"));
    }
}
