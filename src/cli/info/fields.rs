//! What `info` and `report` say of a crash, field by field.

use crate::cli::list::colour;
use crate::cli::locate::{self, CoreStatus};
use crate::cli::source::Packed;
use crate::cli::{clock, query, still_copied, table};
use crate::corefile::Overview;
use crate::record::{Location, Outcome, Record};
use crate::store::Records;
use crate::sys::file;
use anstyle::Style;
use jiff::tz::TimeZone;
use std::fmt;
use std::fs::File;

/// The sizes of a core's file, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Of the file.
    file: u64,
    /// On disk.
    disk: u64,
    /// Decompressed, if it is compressed.
    whole: Option<u64>,
}

impl Sizes {
    /// Of a file that is not compressed, as far as is known yet.
    pub(crate) fn of(core: &File) -> Self {
        let disk = file::stat(core).map_or(0, |stat| stat.allocated);
        Sizes { file: locate::size(core), disk, whole: None }
    }

    /// With what came out when it was decompressed.
    pub(super) fn with(self, core: &File) -> Self {
        let whole = locate::size(core);
        Sizes { whole: (whole != self.file).then_some(whole), ..self }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [file, disk] = [self.file, self.disk].map(table::size);
        match self.whole {
            Some(whole) => {
                write!(f, "{}, compressed to {file} ({disk} on disk)", table::size(whole))
            }
            None => write!(f, "{file} ({disk} on disk)"),
        }
    }
}

/// A name, a value and its style.
pub(super) type Field = (&'static str, String, Style);

/// A field without a style.
pub(super) fn field(name: &'static str, text: impl Into<String>) -> Field {
    (name, text.into(), Style::new())
}

fn signal(number: i32, name: &str, overview: Option<&Overview>) -> Field {
    let meaning = overview
        .and_then(|o| o.signal.as_ref())
        .filter(|s| s.number == number)
        .and_then(|s| s.meaning.clone());
    let text =
        meaning.map_or_else(|| format!("{name} ({number})"), |w| format!("{name} ({number}): {w}"));
    ("Signal", text, Style::new().bold())
}

/// The fields of a core without a record.
pub(super) fn of_core(o: &Overview) -> Vec<Field> {
    let mut fields = vec![
        field("PID", o.pid.to_string()),
        field("Command", &o.comm),
        field("Arguments", &o.arguments),
        field("Machine", &o.machine),
    ];
    fields.extend(package(o));
    if let Some(s) = &o.signal {
        fields.push(signal(s.number, &s.name, Some(o)));
    }
    fields.extend(cut_short(o));
    fields
}

fn package(o: &Overview) -> Option<Field> {
    let package = o.modules.first()?.package.as_ref()?;
    Some(field("Package", package.to_string()))
}

fn cut_short(o: &Overview) -> Option<Field> {
    (o.missing > 0).then(|| {
        field("Missing", format!("{} of memory: the file is short", table::size(o.missing)))
    })
}

/// The fields of a record, and of its core as far as that could be read.
pub(crate) fn of_record(
    r: &Record,
    state: CoreStatus,
    sizes: Option<Sizes>,
    overview: Option<&Overview>,
    zone: &TimeZone,
) -> Vec<Field> {
    // First what is asked at night: who crashed of what, in which container, and where the core is.
    let mut all = vec![
        signal(r.signal, &r.signal_name, overview),
        field("Command", &r.comm),
        field("Executable", &r.exe),
    ];
    all.extend(overview.map(|o| field("Arguments", &o.arguments)));
    if r.pid == 1 && r.signal_name == "SIGSEGV" {
        all.push(field("Note", "abort() ends so in the first process of a container, too"));
    }
    all.push(field("Time", clock::shown(&r.time, zone)));
    all.extend(overview.and_then(package));
    all.extend(r.stack_hash.as_ref().map(|hash| field("Stack hash", hash)));
    all.push(field("Container", query::container(&r.names)));
    all.extend(r.user.map(|uid| {
        let whose = format!("user {uid}'s: what is said of the container is that user's word");
        ("Registered", whose, Style::new().bold())
    }));
    all.extend(r.names.pod_name.as_ref().map(|p| field("Pod", p)));
    all.extend(r.names.pod_namespace.as_ref().map(|n| field("Namespace", n)));
    all.extend(r.names.image.as_ref().map(|i| field("Image", i)));
    let core = r.core_path.as_deref().unwrap_or("none");
    all.push((
        "Core",
        if state == CoreStatus::None {
            core.to_owned()
        } else {
            format!("{core} ({})", state.word())
        },
        colour(state),
    ));
    all.extend(r.host_path.as_ref().map(|p| field("On the host", p)));
    match (sizes, r.size) {
        (Some(sizes), _) => all.push(field("Size", sizes.to_string())),
        (None, Some(size)) => {
            all.push(field("Size", format!("{} when it was written", table::size(size))))
        }
        (None, None) => {}
    }
    if let (Some(keep), Some(full)) = (r.keep, r.full_size) {
        let whole = table::size(full);
        all.push(field("Memory", format!("{} of a core of {whole}", keep.meaning())));
    }
    if r.outcome != Outcome::None {
        all.push(field("Kept on", place(r.location)));
    }
    if r.outcome == Outcome::Started {
        all.push(field("Reason", "the dump is going on, or its helper was killed"));
    }
    all.extend(r.reason.as_ref().map(|why| ("Reason", why.clone(), Style::new().bold())));
    if still_copied::is_copied(r) {
        let text = "its executable and libraries are still being copied, ask again for names";
        all.push(("Stack", text.into(), Style::new().bold()));
    }
    all.extend(overview.and_then(cut_short));
    all.extend(r.uploaded.as_ref().map(|u| {
        let time = clock::shown(&u.time, zone);
        field("Uploaded", format!("{} ({}, {time})", u.url, table::size(u.size)))
    }));
    if r.upload == Some(false) {
        all.push(field("Uploaded", "never: oci-coredump/upload is false"));
    }
    all.push(field("PID", format!("{} in the container, {} on the host", r.pid, r.host_pid)));
    all.push(field("Thread", format!("{} in the container, {} on the host", r.tid, r.host_tid)));
    all.push(field("User", format!("uid {}, gid {} on the host", r.uid, r.gid)));
    all.push(field("Container ID", &r.names.container_id));
    all.push(field("Pattern", &r.pattern));
    if r.dump_mode != 1 {
        all.push(field("Dump mode", format!("{} (the core is root's)", r.dump_mode)));
    }
    all.push(field("Record", Records::id_of(r)));
    all
}

/// What to do next.
pub(super) fn next(r: &Record, state: CoreStatus, bundle: Option<Packed<'_>>) -> Option<Field> {
    let next = match (state, bundle) {
        (CoreStatus::Present | CoreStatus::Truncated, Some(bundle)) => {
            format!("oci-coredump debug {}", bundle.name())
        }
        (CoreStatus::Present | CoreStatus::Truncated, None) => {
            format!("oci-coredump debug record={}", Records::id_of(r))
        }
        (CoreStatus::Inaccessible, _) => "run this as root: you may not read the core".to_owned(),
        (CoreStatus::Leased | CoreStatus::Unreachable, _) => "try again later".to_owned(),
        _ => return None,
    };
    Some(field("Next", next))
}

fn place(location: Location) -> &'static str {
    match location {
        Location::Volume => "a volume: it stays when the container goes",
        Location::Store => "the host's store: it stays when the container goes",
        Location::OwnVolume => "a volume that is removed with the container: it goes away with it",
        Location::Memory => "a memory-backed volume: it goes away with the container",
        Location::PodMemory => "the pod's memory: it goes away with the pod",
        Location::Layer => "the container's own layer: it goes away with the container",
    }
}
