//! One line in the container's termination log, which Kubernetes shows when a container has ended
//! (`kubectl describe pod`). Written before the process is let go, since the kubelet reads it as
//! soon as that has gone.

use crate::config::TerminationLog;
use crate::dump::crash::container_crash::ContainerCrash;
use crate::dump::crash::facts::Facts;
use crate::dump::policy::plan::CorePlan;
use crate::dump::writer::as_crasher::{self, Charge, Urgency};
use crate::dump::writer::create_file::split;
use crate::first_process::{INITS, SUPERVISORS};
use crate::record::{Outcome, Record};
use crate::registry::Entry;
use crate::report::one_line;
use crate::store::Records;
use crate::sys::proc::{self, Proc};
use crate::sys::sandbox::SandboxBounds;
use crate::sys::text::head;
use crate::sys::{BorrowedFd, OwnedFd, file, resolve};
use anyhow::{Result, ensure};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Where it is, unless `terminationMessagePath` says otherwise.
const USUAL: &str = "/dev/termination-log";

/// The kubelet reads the last 4 KiB of it.
const MOST: usize = 4096;

/// A file that does not take a line at once is not waited for: the process is.
const BOUNDS: SandboxBounds = SandboxBounds {
    memory: 1 << 30,
    cpu: 1,
    time: Duration::from_secs(2),
    output: 4096,
    file: MOST as u64,
};

/// Most processes between the first one and the program.
const BETWEEN: usize = 4;

/// Whether a line of this crash is to be written. Not of a set-user-ID program, whose rights are
/// not those of whoever started it.
pub(crate) fn is_wanted(case: &ContainerCrash<'_>, record: &Record) -> bool {
    let ContainerCrash { facts, entry, config, .. } = *case;
    !facts.has_more_rights()
        && record.outcome != Outcome::Started
        && match config.termination_log {
            TerminationLog::Off => false,
            TerminationLog::Init => ends_container(record.host_pid, entry, facts),
            TerminationLog::Any => true,
        }
}

/// Whether the container ends with this process: it is the one that the runtime started, whatever
/// PID namespace it is in, or the program of an init.
fn ends_container(pid: i32, entry: &Entry, facts: &Facts) -> bool {
    let first = entry.init.pid;
    if pid == first {
        // Its PID may be another process's by now; one that was let go early has ended.
        let started = Proc::open(first).and_then(|process| process.start_time());
        return started.map_or(true, |time| time == entry.init.start_time);
    }
    is_program_of_init(pid, facts.status.parent, first) && entry.init_lives()
}

fn is_program_of_init(pid: i32, mut parent: i32, first: i32) -> bool {
    for _ in 0..BETWEEN {
        let Ok(process) = Proc::open(parent) else { return false };
        let comm = process.read("comm").unwrap_or_default();
        let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
        let is_one_of = |names: &[&str]| names.iter().any(|name| name.as_bytes() == comm);
        if parent == first && is_one_of(&INITS) {
            // Orphans become its children too, after its program.
            let children = process.read(&format!("task/{first}/children"));
            return children.map_or(true, |all| is_oldest(pid, &all));
        }
        if !is_one_of(&SUPERVISORS) {
            return false;
        }
        if parent == first {
            return true;
        }
        match process.status() {
            Ok(status) => parent = status.parent,
            Err(_) => return false,
        }
    }
    false
}

/// Whether a PID is the first of a list of children; a kernel without the list has an empty one.
fn is_oldest(pid: i32, children: &[u8]) -> bool {
    let first = children.split(|b| *b == b' ').next().unwrap_or_default();
    first.is_empty() || first == pid.to_string().as_bytes()
}

/// Writes the line as the crasher, if the file is there and empty. `url`: where crashes are
/// uploaded to. `locks`: what a child that hangs keeps.
///
/// # Errors
/// The child could not be started. Why it could not write is not reported.
pub(crate) fn write(
    facts: &Facts,
    core_file: &CorePlan,
    entry: &Entry,
    record: &Record,
    url: Option<&str>,
    locks: &[BorrowedFd<'_>],
) -> Result<()> {
    put(facts, core_file, entry, locks, Urgency::Now, &line(record, url), "")
}

/// Adds in which function it crashed, if the log still has only the line that [`write`] wrote. By
/// then the process is gone: the kubelet, which reads the log whenever it looks at a container that
/// has ended, may have read the first line without the second.
///
/// # Errors
/// As for [`write`].
pub(crate) fn add(
    facts: &Facts,
    core_file: &CorePlan,
    entry: &Entry,
    text: &str,
    locks: &[BorrowedFd<'_>],
) -> Result<()> {
    let text = format!("\n{}", head(&one_line(text), MOST / 2));
    put(facts, core_file, entry, locks, Urgency::Later, &text, OURS)
}

/// How the line of a core begins.
const OURS: &str = "core dumped";

/// Appends to the log as the crasher. `after`: how what is in it begins; if empty, nothing is.
fn put(
    facts: &Facts,
    core_file: &CorePlan,
    entry: &Entry,
    locks: &[BorrowedFd<'_>],
    urgency: Urgency,
    text: &str,
    after: &str,
) -> Result<()> {
    let path = entry.termination_log.as_deref().unwrap_or(USUAL);
    let charge = if urgency == Urgency::Now { Charge::Crasher } else { Charge::Nobody };
    as_crasher::run::<()>(facts, core_file, &BOUNDS, urgency, charge, locks, |own, _| {
        let _ = append(text, after, path, own);
    })?;
    Ok(())
}

fn append(text: &str, after: &str, path: &str, own: &OwnedFd) -> Result<()> {
    let (directory, name) = split(path.as_bytes());
    let directory = resolve::open_dir_as_process(directory)?;
    let log = resolve::open_to_write_in(own, &directory, proc::os(name))?;
    let size = file::stat(&log)?.size;
    if after.is_empty() {
        ensure!(size == 0, "the log is not empty");
    } else {
        let mut there = vec![0; MOST];
        let read = resolve::open_pinned_file(own, &log)?;
        let n = read.read_at(&mut there, 0)?;
        let is_ours = there[..n].starts_with(after.as_bytes()) && !there[..n].contains(&b'\n');
        ensure!(is_ours && n as u64 == size, "the log has another text than this program's");
    }
    ensure!(size as usize + text.len() <= MOST, "there is no room for it");
    Ok(log.write_all_at(text.as_bytes(), size)?)
}

fn line(record: &Record, url: Option<&str>) -> String {
    let whom = format!("({} in {})", record.signal_name, one_line(&record.comm));
    let mut text = if record.outcome == Outcome::None {
        let why = one_line(record.reason.as_deref().unwrap_or("the reason is not known"));
        // The end tells who it was; a text that is cut gets three dots.
        let most = MOST.saturating_sub(whom.len() + "no core: ... ".len());
        format!("no core: {} {whom}", head(&why, most))
    } else {
        let short = if record.truncated { ", truncated" } else { "" };
        let path = one_line(record.core_path.as_deref().unwrap_or_default());
        let there = url.filter(|_| record.upload != Some(false)).map(|url| {
            let id = Records::id_of(record);
            format!(", goes to {}/.../{id}", url.trim_end_matches('/'))
        });
        format!("core dumped{short}: {path} {whom}{}", there.unwrap_or_default())
    };
    while text.len() > MOST {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_child() {
        assert!(is_oldest(12, b"12 7 ") && is_oldest(12, b"12 ") && is_oldest(12, b""));
        assert!(!is_oldest(7, b"12 7 ") && !is_oldest(1, b"12 "));
    }

    #[test]
    fn one_line_of_bounded_length() {
        let record = |path: &str| Record {
            core_path: Some(path.into()),
            outcome: Outcome::Written,
            signal_name: "SIGSEGV".into(),
            comm: "nginx".into(),
            ..Record::default()
        };
        assert_eq!(
            line(&record("/pod/data/dump/core-eci.12"), None),
            "core dumped: /pod/data/dump/core-eci.12 (SIGSEGV in nginx)"
        );
        let none = Record {
            outcome: Outcome::None,
            reason: Some("RLIMIT_CORE is 0 bytes".into()),
            ..record("")
        };
        assert_eq!(
            line(&none, Some("s3://b")),
            "no core: RLIMIT_CORE is 0 bytes (SIGSEGV in nginx)"
        );
        let long = line(&Record { reason: Some("é\n".repeat(4000)), ..none }, None);
        assert!(long.len() <= MOST && long.ends_with(" (SIGSEGV in nginx)"), "{long}");
        let mut crash = record("/d/core.1");
        crash.time = "2026-01-02T03:04:05Z".into();
        assert_eq!(
            line(&crash, Some("s3://b/p/")),
            "core dumped: /d/core.1 (SIGSEGV in nginx), goes to s3://b/p/.../20260102T030405Z-0-"
        );
        crash.upload = Some(false);
        assert!(!line(&crash, Some("s3://b/p/")).contains("s3:"));
        let hostile = line(&record(&"é\n".repeat(4000)), Some("s3://b"));
        assert!(hostile.len() <= MOST && !hostile.contains('\n'));
    }
}
