//! The differential oracle: every row of a table once under the kernel's own file mode and once
//! through the project, in the same kind of container. What must be the same: the file's name,
//! owner, mode, size, every byte that does not name a time or random number, what is allocated, the
//! wait status, and that nothing else appeared anywhere.
//!
//! Needs root and runc. `ORACLE_ROWS=set-uid,limit` runs only the rows whose
//! name contains one of these.

mod oracle {
    pub mod compare;
    pub mod observe;
    pub mod row;
    pub mod rows;
    pub mod snapshot;
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use oracle::compare;
use oracle::observe::{Observed, Side, observe};
use oracle::row::{Forced, Row};
use oracle::rows::{large, names, places, privileges, processes};
use oracle::snapshot::{Change, Node};
use support::core_bytes;
use support::host::Host;
use support::require;
use support::runtime::{Kind, Runtime};
use support::server::{self, Server};

support::cases!(
    all_sides_agree_with_the_kernel: names(names::rows),
    places(places::rows),
    processes(processes::rows),
    privileges(privileges::rows),
    large(large::rows)
);

/// What the kernel does, it does again: else the masks or the crasher are wrong. The project does
/// it through the pipe, and through the kernel's coredump socket, where the wait status is the
/// kernel's too.
fn all_sides_agree_with_the_kernel(rows: fn() -> Vec<Row>) {
    let Some((host, rows)) = prepared(rows) else { return };
    let runtime = Runtime::new(Kind::Runc);
    let (host, runtime, rows) = (&host, &runtime, rows.as_slice());
    // One row at a time, when it is asked for.
    let observe_all = |side| rows.iter().map(move |row| observed(host, runtime, row, side));
    let kernel: Vec<_> = observe_all(Side::Kernel).collect();
    let mut differing = judge(rows, &kernel, Side::Kernel, observe_all(Side::Kernel));
    host.restore_sysctls();
    host.install();
    differing.extend(judge(rows, &kernel, Side::Project, observe_all(Side::Project)));
    if server::is_possible() {
        host.configure(server::WANTED);
        let _server = Server::start(host);
        differing.extend(judge(rows, &kernel, Side::Socket, observe_all(Side::Socket)));
    }
    assert!(differing.is_empty(), "{} differ: {}", differing.len(), differing.join(", "));
}

type Mutation = Box<dyn Fn(&mut Observed)>;

/// A comparison that detects nothing would let every row pass.
#[test]
fn every_kind_of_difference_is_seen() {
    let Some(host) = host() else { return };
    let runtime = Runtime::new(Kind::Runc);
    let row = Row::new("control");
    let kernel = observe(&host, &runtime, &row, Side::Kernel);
    let core = "container: /cores/core.100";
    assert_eq!(kernel.changes.keys().collect::<Vec<_>>(), [core]);
    assert!(compare::between_kernels(&row, &kernel, &kernel.clone()).is_empty());

    let node = |change: fn(&mut Node)| {
        move |observed: &mut Observed| match observed.changes.get_mut(core) {
            Some(Change::Added(node)) => change(node),
            other => panic!("{other:?}"),
        }
    };
    let mutations: [(&str, Mutation); 13] = [
        ("wait status", Box::new(|o| o.status ^= 0x80)),
        (
            "name",
            Box::new(|o| {
                drop(o.changes.remove(core).map(|change| o.changes.insert("other".into(), change)))
            }),
        ),
        ("missing", Box::new(|o| drop(o.changes.remove(core)))),
        ("another file", Box::new(|o| drop(o.changes.insert("other".into(), Change::Removed)))),
        ("mode", Box::new(node(|node| node.mode = 0o644))),
        ("owner", Box::new(node(|node| node.owner.1 = 1))),
        ("links", Box::new(node(|node| node.links = 2))),
        ("size", Box::new(node(|node| node.size -= 1))),
        ("a byte of the header", Box::new(node(|node| node.content[20] ^= 1))),
        (
            "a byte of the first note (pr_sigpend)",
            Box::new(node(|node| *byte_of_note(node, 16) ^= 1)),
        ),
        ("a byte of memory", Box::new(node(|node| *node.content.last_mut().unwrap() ^= 1))),
        ("blocks", Box::new(node(|node| node.blocks -= 8))),
        ("holes", Box::new(node(|node| node.data[0].1 -= 4096))),
    ];
    for (what, mutate) in mutations {
        let mut other = kernel.clone();
        mutate(&mut other);
        let found = compare::between_kernels(&row, &kernel, &other);
        assert!(!found.is_empty(), "a difference in {what} is not seen");
        println!("{what}: {}", found.join("; "));
    }
    let Some(Change::Added(core)) = kernel.changes.get(core) else { unreachable!() };
    let masked = core_bytes::masked(&core.content);
    let hidden = masked.iter().zip(&core.content).filter(|(a, b)| a != b).count();
    // Four times of 16 bytes, AT_RANDOM's 16 bytes, and one of XSTATE_BV.
    assert!(hidden <= 4 * 16 + 16 + 1, "{hidden} bytes are hidden");
}

/// A byte of the description of a core's first note (CORE, NT_PRSTATUS).
fn byte_of_note(node: &mut Node, at: usize) -> &mut u8 {
    let name = node.content.windows(8).position(|window| window == b"CORE\0\0\0\0").unwrap();
    &mut node.content[name + 8 + at]
}

fn host() -> Option<Host> {
    require::root();
    require::programs(&["runc", "busybox", "gcc"]).then(Host::take)
}

/// The host, and those rows of a group that are wanted, where there are any.
fn prepared(rows: fn() -> Vec<Row>) -> Option<(Host, Vec<Row>)> {
    let wanted = std::env::var("ORACLE_ROWS").unwrap_or_default();
    let mut rows = rows();
    rows.retain(|row| wanted.split(',').any(|part| row.name.contains(part)));
    if rows.is_empty() { None } else { Some((host()?, rows)) }
}

/// A row that cannot be carried out must not keep the others from running.
fn observed(host: &Host, runtime: &Runtime, row: &Row, side: Side) -> Result<Observed, String> {
    let result = catch_unwind(AssertUnwindSafe(|| observe(host, runtime, row, side)));
    host.restore(&row.sysctls.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default();
        format!("{side:?}: {text}")
    })
}

/// Compares one side with the kernel, row by row, prints a line for each with what the kernel did,
/// and returns the names of those that differ, with the side.
fn judge(
    rows: &[Row],
    kernel: &[Result<Observed, String>],
    side: Side,
    others: impl Iterator<Item = Result<Observed, String>>,
) -> Vec<String> {
    let started = Instant::now();
    let mut differing = Vec::new();
    for ((row, kernel), other) in rows.iter().zip(kernel).zip(others) {
        let (outcome, found) = match (kernel, other) {
            (Ok(kernel), Ok(other)) => {
                let found = match side {
                    Side::Kernel => compare::between_kernels(row, kernel, &other),
                    _ => compare::with_project(row, kernel, &other, side),
                };
                (compare::outcome(kernel), found)
            }
            (Err(cause), _) => (String::new(), vec![cause.clone()]),
            (_, Err(cause)) => (String::new(), vec![cause]),
        };
        let forced = match row.forced {
            Forced::Nothing => String::new(),
            ref forced => format!(" ({forced:?})"),
        };
        if found.is_empty() {
            println!("same    {}{forced}: {outcome}", row.name);
        } else {
            println!("DIFFERS {}{forced}: {outcome}", row.name);
            found.iter().for_each(|difference| println!("    {difference}"));
            differing.push(format!("{} ({side:?})", row.name));
        }
    }
    println!(
        "kernel, {side:?}: {} rows are the same, {} differ, {:.1?}",
        rows.len() - differing.len(),
        differing.len(),
        started.elapsed()
    );
    differing
}
