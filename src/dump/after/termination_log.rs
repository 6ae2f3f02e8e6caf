//! One line in `/dev/termination-log`, which Kubernetes shows when a container has ended (`kubectl
//! describe pod`). Written before the process is let go, since the kubelet reads it as soon as that
//! has gone.

use crate::config::TerminationLog;
use crate::dump::crash::facts::Facts;
use crate::dump::policy::plan::CoreFile;
use crate::dump::policy::slots::Slot;
use crate::dump::writer::as_crasher::{self, Charge, Haste};
use crate::record::{Outcome, Record};
use crate::report::one_line;
use crate::store::Records;
use crate::sys::sandbox::Bounds;
use crate::sys::{OwnedFd, file, resolve};
use anyhow::{Result, ensure};
use std::time::Duration;

const DIRECTORY: &[u8] = b"/dev";
const NAME: &str = "termination-log";

/// The kubelet reads the last 4 KiB of it.
const MOST: usize = 4096;

/// A file that does not take a line at once is not waited for: the process is.
const BOUNDS: Bounds = Bounds {
    memory: 1 << 30,
    cpu: 1,
    time: Duration::from_secs(2),
    output: 4096,
    file: MOST as u64,
};

/// Whether this crash is one to be told of.
pub(crate) fn concerns(record: &Record, which: TerminationLog) -> bool {
    let one_that_counts = match which {
        TerminationLog::Off => false,
        TerminationLog::Init => record.pid == 1,
        TerminationLog::Any => true,
    };
    one_that_counts && matches!(record.outcome, Outcome::Written | Outcome::Truncated)
}

/// Writes the line as the crasher, if the file is there and empty. `url`: where crashes are
/// uploaded to.
///
/// # Errors
/// There is no child. What keeps it from writing is nobody's business.
pub(crate) fn write(
    facts: &Facts,
    core_file: &CoreFile,
    record: &Record,
    url: Option<&str>,
    slot: Option<&Slot>,
) -> Result<()> {
    let text = line(record, url);
    let files: Vec<_> = slot.iter().flat_map(|t| t.fds()).collect();
    as_crasher::run::<()>(
        facts,
        core_file,
        &BOUNDS,
        Haste::Now,
        Charge::Crasher,
        &files,
        |own, _| {
            let _ = put(&text, own);
        },
    )?;
    Ok(())
}

fn put(text: &str, own: &OwnedFd) -> Result<()> {
    let log =
        resolve::open_to_write_in(own, resolve::open_dir_as_process(DIRECTORY)?, NAME.as_ref())?;
    ensure!(file::stat(&log)?.size == 0, "somebody has said something already");
    Ok(std::io::Write::write_all(&mut { log }, text.as_bytes())?)
}

fn line(record: &Record, url: Option<&str>) -> String {
    let short = if record.truncated { ", truncated" } else { "" };
    let path = one_line(record.core_path.as_deref().unwrap_or_default());
    let mut text = format!(
        "core dumped{short}: {path} ({} in {})",
        record.signal_name,
        one_line(&record.comm)
    );
    if let Some(url) = url.filter(|_| record.upload != Some(false)) {
        let id = Records::id_of(record);
        text.push_str(&format!(", uploaded to {}/.../{id}", url.trim_end_matches('/')));
    }
    while text.len() > MOST {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_of() {
        let record = |pid, outcome| Record { pid, outcome, ..Record::default() };
        let of = |pid, outcome| {
            [TerminationLog::Off, TerminationLog::Init, TerminationLog::Any]
                .map(|which| concerns(&record(pid, outcome), which))
        };
        assert_eq!(of(1, Outcome::Written), [false, true, true]);
        assert_eq!(of(7, Outcome::Truncated), [false, false, true]);
        assert_eq!(of(1, Outcome::None), [false, false, false]);
    }

    #[test]
    fn one_line_of_bounded_length() {
        let record = |path: &str| Record {
            core_path: Some(path.into()),
            signal_name: "SIGSEGV".into(),
            comm: "nginx".into(),
            ..Record::default()
        };
        assert_eq!(
            line(&record("/pod/data/dump/core-eci.12"), None),
            "core dumped: /pod/data/dump/core-eci.12 (SIGSEGV in nginx)"
        );
        let mut crash = record("/d/core.1");
        crash.time = "2026-01-02T03:04:05Z".into();
        assert_eq!(
            line(&crash, Some("s3://b/p/")),
            "core dumped: /d/core.1 (SIGSEGV in nginx), uploaded to s3://b/p/.../20260102T030405Z-0-"
        );
        crash.upload = Some(false);
        assert!(!line(&crash, Some("s3://b/p/")).contains("s3:"));
        let hostile = line(&record(&"é\n".repeat(4000)), Some("s3://b"));
        assert!(hostile.len() <= MOST && !hostile.contains('\n'));
    }
}
