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
    the_kernel_agrees_with_itself: names(names::rows),
    places(places::rows),
    processes(processes::rows),
    privileges(privileges::rows),
    large(large::rows)
);

/// The masks and the crasher are correct only if two runs of the kernel's mode agree.
fn the_kernel_agrees_with_itself(rows: fn() -> Vec<Row>) {
    let Some((host, rows)) = prepared(rows) else { return };
    let runtime = Runtime::new(Kind::Runc);
    judge("kernel, kernel", &rows, |row| {
        let (one, two) = (
            observed(&host, &runtime, row, Side::Kernel)?,
            observed(&host, &runtime, row, Side::Kernel)?,
        );
        Ok((compare::outcome(&one), compare::between_kernels(row, &one, &two)))
    });
}

support::cases!(
    the_project_agrees_with_the_kernel: names(names::rows),
    places(places::rows),
    processes(processes::rows),
    privileges(privileges::rows),
    large(large::rows)
);

/// The project does what the kernel does.
fn the_project_agrees_with_the_kernel(rows: fn() -> Vec<Row>) {
    let Some((host, rows)) = prepared(rows) else { return };
    agrees(&host, &rows, Side::Project);
}

support::cases!(
    the_socket_agrees_with_the_kernel: names(names::rows),
    places(places::rows),
    processes(processes::rows),
    privileges(privileges::rows),
    large(large::rows)
);

/// The same through the kernel's coredump socket, where the wait status is the kernel's too.
fn the_socket_agrees_with_the_kernel(rows: fn() -> Vec<Row>) {
    if !server::is_possible() {
        return;
    }
    let Some((host, rows)) = prepared(rows) else { return };
    agrees(&host, &rows, Side::Socket);
}

fn agrees(host: &Host, rows: &[Row], side: Side) {
    let runtime = Runtime::new(Kind::Runc);
    let kernel: Vec<_> =
        rows.iter().map(|row| observed(host, &runtime, row, Side::Kernel)).collect();
    host.restore_sysctls();
    host.install();
    let server = (side == Side::Socket).then(|| {
        host.configure(server::WANTED);
        Server::start(host)
    });
    let mut kernel = kernel.into_iter();
    judge(&format!("kernel, {side:?}"), rows, |row| {
        let kernel = kernel.next().unwrap()?;
        let project = observed(host, &runtime, row, side)?;
        Ok((compare::outcome(&kernel), compare::with_project(row, &kernel, &project, side)))
    });
    drop(server);
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

/// Runs the rows, prints a line for each with what the kernel did, and fails with the
/// list of those that differ.
fn judge(
    sides: &str,
    rows: &[Row],
    mut compare: impl FnMut(&Row) -> Result<(String, Vec<String>), String>,
) {
    let (mut failed, mut passed, started) = (Vec::new(), 0, Instant::now());
    for row in rows {
        let (outcome, found) = compare(row).unwrap_or_else(|cause| (String::new(), vec![cause]));
        let forced = if row.forced == Forced::Nothing {
            String::new()
        } else {
            format!(" ({:?})", row.forced)
        };
        if found.is_empty() {
            passed += 1;
            println!("same    {}{forced}: {outcome}", row.name);
        } else {
            println!("DIFFERS {}{forced}: {outcome}", row.name);
            found.iter().for_each(|difference| println!("    {difference}"));
            failed.push(row.name.clone());
        }
    }
    println!(
        "{sides}: {passed} rows are the same, {} differ, {:.1?}",
        failed.len(),
        started.elapsed()
    );
    assert!(failed.is_empty(), "{sides}: {} rows differ: {}", failed.len(), failed.join(", "));
}
