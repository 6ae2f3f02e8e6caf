//! The differences between what the kernel did and what the project did, for a person to read.
use std::collections::BTreeMap;

use serde_json::Value;

use super::observe::{MARKER, Observed, PID, Side};
use super::row::{Forced, Row};
use super::snapshot::{Change, Node};
use support::core_bytes::{clear_privilege, describe, is_core, masked, whole};

/// WCOREDUMP in a raw wait status.
const CORE_FLAG: i64 = 0x80;
const PAGE: usize = 4096;

/// Differences between two runs of the kernel's file mode: none, if the masks are right.
pub fn between_kernels(row: &Row, one: &Observed, two: &Observed) -> Vec<String> {
    let mut differences = Vec::new();
    statuses(one.status, two.status, &mut differences);
    files(row, one, two, same_allocation, &mut differences);
    forced(row, one, &mut differences);
    differences
}

/// What the kernel did, in a line.
pub fn outcome(kernel: &Observed) -> String {
    let changes = kernel.changes.iter().map(|(path, change)| format!("; {path}: {}", told(change)));
    format!("{:#06x}{}", kernel.status, changes.collect::<String>())
}

/// The kernel's half of what the row says is forced.
fn forced(row: &Row, kernel: &Observed, differences: &mut Vec<String>) {
    let keeps = kernel
        .changes
        .values()
        .any(|change| matches!(change, Change::Added(node) if is_core(&node.content)));
    let truth = match row.forced {
        Forced::Nothing => true,
        Forced::CoreFlag => kernel.status & CORE_FLAG == 0 && !keeps,
        Forced::NoCoreOfPrivileged | Forced::MoreFits => kernel.status & CORE_FLAG != 0 && keeps,
        Forced::EscapesToHost => {
            kernel.status & CORE_FLAG != 0
                && !keeps
                && kernel.stray.iter().any(|path| path.contains(MARKER))
        }
        Forced::PrivilegeUsed => kernel.changes.values().all(|change| {
            let mut without = change.clone();
            without_privilege(&mut without);
            without != *change
        }),
        Forced::Refused => true,
    };
    if !truth {
        differences.push(format!(
            "the row says {:?}, but the kernel did otherwise: {}",
            row.forced,
            outcome(kernel)
        ));
    }
}

/// Differences between the kernel and the project, but for what the row says is forced. Through the
/// socket the wait status is the kernel's in every row in which both have a core or none has: the
/// kernel is told before it makes one.
pub fn with_project(row: &Row, kernel: &Observed, ours: &Observed, side: Side) -> Vec<String> {
    let through_socket = side == Side::Socket;
    let mut differences = Vec::new();
    let mut expected = kernel.clone();
    match row.forced {
        Forced::Nothing => {}
        Forced::CoreFlag if through_socket => {}
        Forced::CoreFlag => expected.status |= CORE_FLAG,
        Forced::NoCoreOfPrivileged => {
            expected.changes.clear();
            if through_socket {
                expected.status &= !CORE_FLAG;
            }
        }
        Forced::EscapesToHost => expected.changes = roots_own(row, ours),
        Forced::MoreFits => more_fits(&mut expected, ours, &mut differences),
        Forced::PrivilegeUsed => expected.changes.values_mut().for_each(without_privilege),
        Forced::Refused => {
            expected.status |= CORE_FLAG;
            expected.changes = kept_by_earlier_handler(ours);
        }
    }
    statuses(expected.status, ours.status, &mut differences);
    files(row, &expected, ours, same_but_for_zeros, &mut differences);
    forced(row, kernel, &mut differences);
    let escaped = |path: &&String| row.forced == Forced::EscapesToHost && path.contains(MARKER);
    differences.extend(
        kernel
            .stray
            .iter()
            .filter(|path| !escaped(path))
            .map(|path| format!("kernel's run: stray on the host: {path}")),
    );
    differences
        .extend(ours.stray.iter().map(|path| format!("project's run: stray on the host: {path}")));
    records(row, kernel, ours, &mut differences);
    differences
}

/// Where the kernel had no space for more: what the project has beyond that is
/// expected, if there is anything.
fn more_fits(expected: &mut Observed, ours: &Observed, differences: &mut Vec<String>) {
    for (path, change) in &mut expected.changes {
        let (Change::Added(kernel), Some(Change::Added(own))) = (change, ours.changes.get(path))
        else {
            continue;
        };
        if own.size <= kernel.size {
            differences.push(format!(
                "{path}: the row says that more fits, but the project has {} bytes, the kernel {}",
                own.size, kernel.size
            ));
            continue;
        }
        // Pages that are in the kernel's file must be the same; those behind
        // them are the project's own.
        let common = kernel.content.len();
        kernel.content.extend_from_slice(&own.content[common..]);
        kernel.data.extend(
            own.data
                .iter()
                .map(|(start, end)| (common as u64).max(*start)..*end)
                .filter(|r| !r.is_empty())
                .map(|r| (r.start, r.end)),
        );
        kernel.size = own.size;
        // What is full is full: no more than that may be allocated.
        if own.blocks > kernel.blocks {
            differences.push(format!(
                "{path}: {} blocks, where the kernel has {}",
                own.blocks, kernel.blocks
            ));
        }
    }
}

/// Takes PF_SUPERPRIV away.
fn without_privilege(change: &mut Change) {
    if let Change::Added(node) | Change::Changed(node) = change {
        clear_privilege(&mut node.content);
    }
}

/// What the test's earlier handler, the pattern `core`, makes of a crash in the root directory.
fn kept_by_earlier_handler(ours: &Observed) -> BTreeMap<String, Change> {
    let path = "container: /core";
    let core = ours
        .changes
        .get(path)
        .filter(|change| matches!(change, Change::Added(node) if whole(&node.content)));
    // Without it there is an expectation that nothing fulfils.
    BTreeMap::from([(path.to_owned(), core.cloned().unwrap_or(Change::Removed))])
}

/// What the kernel makes at the host's path, in the container: a core of its root's.
fn roots_own(row: &Row, ours: &Observed) -> BTreeMap<String, Change> {
    let path = format!("container: {}.{PID}", row.pattern);
    let is_it = |change: &&Change| {
        matches!(change, Change::Added(node) if whole(&node.content)
            && node.owner.0 == 0 && node.mode & 0o7777 == 0o600)
    };
    let core = ours.changes.get(&path).filter(is_it).cloned();
    // Without it there is an expectation that nothing fulfils.
    BTreeMap::from([(path, core.unwrap_or(Change::Removed))])
}

/// A change in a few words.
pub fn told(change: &Change) -> String {
    match change {
        Change::Removed => "removed it".to_owned(),
        Change::Added(node) => format!("made it: {}", outline(node)),
        Change::Changed(node) => format!("changed it: {}", outline(node)),
    }
}

fn outline(node: &Node) -> String {
    let Node { kind, mode, owner: (uid, gid), links, size, target, blocks, .. } = node;
    let target =
        target.as_ref().map(|target| format!(" -> {}", target.display())).unwrap_or_default();
    format!(
        "{kind}{target} mode {mode:04o} owner {uid}:{gid} links {links} size {size} blocks {blocks}"
    )
}

fn statuses(kernel: i64, ours: i64, differences: &mut Vec<String>) {
    if kernel != ours {
        differences.push(format!("wait status: kernel {kernel:#06x}, project {ours:#06x}"));
    }
}

fn files(
    row: &Row,
    kernel: &Observed,
    ours: &Observed,
    allocation: Allocation,
    differences: &mut Vec<String>,
) {
    for (path, change) in &kernel.changes {
        match ours.changes.get(path) {
            None => {
                differences.push(format!("{path}: kernel {}; project did nothing", told(change)))
            }
            Some(own) => change_differs(row, path, (change, own), allocation, differences),
        }
    }
    for (path, change) in
        ours.changes.iter().filter(|(path, _)| !kernel.changes.contains_key(*path))
    {
        differences.push(format!("{path}: kernel did nothing; project {}", told(change)));
    }
}

fn change_differs(
    row: &Row,
    path: &str,
    (kernel, ours): (&Change, &Change),
    allocation: Allocation,
    differences: &mut Vec<String>,
) {
    let (kernel_node, our_node) = match (kernel, ours) {
        (Change::Added(a), Change::Added(b)) | (Change::Changed(a), Change::Changed(b)) => (a, b),
        (Change::Removed, Change::Removed) => return,
        _ => {
            return differences.push(format!(
                "{path}: kernel {}; project {}",
                told(kernel),
                told(ours)
            ));
        }
    };
    let facts = |node: &Node| (node.kind, node.mode, node.owner, node.links, node.target.clone());
    let sizes_differ = kernel_node.size != our_node.size && !row.randomized;
    if facts(kernel_node) != facts(our_node) || sizes_differ {
        differences.push(format!(
            "{path}:\n      kernel  {}\n      project {}",
            told(kernel),
            told(ours)
        ));
    }
    if !row.randomized {
        bytes(path, kernel_node, our_node, differences);
        differences.extend(
            allocation(kernel_node, our_node).map(|difference| format!("{path}: {difference}")),
        );
    }
}

fn bytes(path: &str, kernel: &Node, ours: &Node, differences: &mut Vec<String>) {
    let (one, two) = (masked(&kernel.content), masked(&ours.content));
    let different: Vec<_> = one.iter().zip(&two).enumerate().filter(|(_, (a, b))| a != b).collect();
    let Some((first, (a, b))) = different.first() else { return };
    let where_ = describe(&one, *first);
    let count = different.len();
    differences.push(format!(
        "{path}: {count} bytes differ, first at {first} ({where_}): kernel {a:#04x}, project \
         {b:#04x}"
    ));
}

/// Compares what is allocated: the kernel's file first. `None` if all is well.
type Allocation = fn(&Node, &Node) -> Option<String>;

fn same_allocation(kernel: &Node, other: &Node) -> Option<String> {
    let same = (kernel.blocks, &kernel.data) == (other.blocks, &other.data);
    (!same).then(|| {
        format!(
            "{} blocks, data {:x?}; then {} blocks, data {:x?}",
            kernel.blocks, kernel.data, other.blocks, other.data
        )
    })
}

/// The project leaves every page of zeros as a hole; everything else is allocated
/// where the kernel allocates it.
fn same_but_for_zeros(kernel: &Node, ours: &Node) -> Option<String> {
    // A last page that is cut is no page of memory, but of the notes.
    let zero = |page: usize| {
        kernel
            .content
            .get(page * PAGE..(page + 1) * PAGE)
            .is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
    };
    let allocated = |node: &Node, page: usize| {
        let (start, end) = ((page * PAGE) as u64, ((page + 1) * PAGE) as u64);
        node.data.iter().any(|(from, to)| *from < end && start < *to)
    };
    let pages = 0..kernel.content.len().min(ours.content.len()).div_ceil(PAGE);
    let (mut wrong, mut saved) = (Vec::new(), 0);
    for page in pages {
        let (theirs, own) = (allocated(kernel, page), allocated(ours, page));
        saved += u64::from(theirs && !own);
        if own != (theirs && !zero(page)) {
            wrong.push(format!(
                "{:#x}: kernel {}, project {}",
                page * PAGE,
                said(theirs),
                said(own)
            ));
        }
    }
    if ours.blocks > kernel.blocks || saved == 0 && ours.blocks != kernel.blocks {
        wrong.push(format!(
            "kernel {} blocks, project {}, although {saved} pages of zeros are holes",
            kernel.blocks, ours.blocks
        ));
    }
    Some(format!("{} wrongly allocated pages: {}", wrong.len(), wrong.first()?))
}

fn said(allocated: bool) -> &'static str {
    if allocated { "has data" } else { "has a hole" }
}

/// What the project tells the administrator must be what happened.
fn records(row: &Row, kernel: &Observed, ours: &Observed, differences: &mut Vec<String>) {
    // The dispatcher has every crash for which the kernel dumps a core, and those that only the
    // project's side can refuse.
    let is_dumped = kernel.status & CORE_FLAG != 0 || row.forced == Forced::CoreFlag;
    let expected = usize::from(is_dumped && row.forced != Forced::Refused);
    if ours.records.len() != expected {
        differences.push(format!("{} records, not {expected}", ours.records.len()));
    }
    let Some(record) = ours.records.first() else { return };
    let mut check = |key: &str, truth: Value| {
        if record[key] != truth {
            differences.push(format!("record: {key} is {}, not {truth}", record[key]));
        }
    };
    check("pid", ours.pid.into());
    check("tid", ours.tid.into());
    check("host_pid", ours.host_pid.into());
    check("host_tid", ours.host_tid.into());
    check("signal", (ours.status & 0x7f).into());
    check("pattern", row.pattern.as_str().into());
    let keeps = kernel.status & CORE_FLAG != 0 && row.forced != Forced::NoCoreOfPrivileged;
    let file = ours.changes.values().find_map(|change| match change {
        Change::Added(node) | Change::Changed(node)
            if is_core(&node.content) || node.content.is_empty() =>
        {
            Some(node)
        }
        _ => None,
    });
    match file.filter(|_| keeps) {
        Some(node) => {
            let outcome = if whole(&node.content) { "written" } else { "truncated" };
            check("outcome", outcome.into());
            check("truncated", (outcome == "truncated").into());
            check("size", node.size.into());
            if let Some(location) = row.location {
                check("location", location.into());
            }
            paths(ours, node, differences);
            if outcome == "truncated" && !record["reason"].is_string() {
                differences.push("record: truncated, but it does not say why".to_owned());
            }
        }
        None => {
            check("outcome", "none".into());
            if !record["reason"].is_string() {
                differences.push("record: no core, but it does not say why".to_owned());
            }
        }
    }
}

/// The record's paths lead to the core.
fn paths(ours: &Observed, core: &Node, differences: &mut Vec<String>) {
    let record = &ours.records[0];
    // Names that are no plain text are escaped in the record.
    let plain = record["core_path"].as_str().is_some_and(|path| !path.contains('\\'));
    if plain && ours.core_path != Some(core.id) {
        differences.push(format!("record: core_path {} is not the core", record["core_path"]));
    }
    if plain && !record["host_path"].is_null() && ours.host_path != Some(core.id) {
        differences.push(format!("record: host_path {} is not the core", record["host_path"]));
    }
    let kept_on_host = matches!(record["location"].as_str(), Some("store" | "volume"));
    if plain
        && ours.changes.values().count() == 1
        && kept_on_host
        && record["host_path"].is_null()
        && core.links == 1
    {
        differences.push(format!("record: location {}, but no host_path", record["location"]));
    }
}
