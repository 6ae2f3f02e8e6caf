//! The differential oracle: every row of a table once under the kernel's own file mode and once through the project, in
//! the same kind of container. What must be the same: the file's name, owner, mode, size, every byte that does not
//! name a time or random number, what is allocated, the wait status, and that nothing else appeared anywhere.
//!
//! Needs root and runc. `ORACLE_ROWS=set-uid,limit` runs only the rows whose name contains one of these.
mod support;

mod oracle {
    pub mod compare;
    pub mod core_bytes;
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
use support::host::Host;
use support::require;
use support::runtime::{Kind, Runtime};

/// The masks and the crasher are right only if the kernel agrees with itself.
#[test]
fn the_kernel_agrees_with_itself() {
    let Some(host) = host() else { return };
    let runtime = Runtime::new(Kind::Runc);
    judge("kernel, kernel", |row| {
        let (one, two) = (observed(&host, &runtime, row, Side::Kernel)?, observed(&host, &runtime, row, Side::Kernel)?);
        Ok(compare::between_kernels(row, &one, &two))
    });
}

/// The project does what the kernel does.
#[test]
fn the_project_agrees_with_the_kernel() {
    let Some(host) = host() else { return };
    let runtime = Runtime::new(Kind::Runc);
    let kernel: Vec<_> = rows().iter().map(|row| observed(&host, &runtime, row, Side::Kernel)).collect();
    host.restore_sysctls();
    host.install();
    let mut kernel = kernel.into_iter();
    judge("kernel, project", |row| {
        let kernel = kernel.next().unwrap()?;
        Ok(compare::with_project(row, &kernel, &observed(&host, &runtime, row, Side::Project)?))
    });
}

fn host() -> Option<Host> {
    require::root();
    require::programs(&["runc", "busybox", "gcc"]).then(Host::take)
}

fn rows() -> Vec<Row> {
    let wanted = std::env::var("ORACLE_ROWS").unwrap_or_default();
    let mut rows = oracle::rows::all();
    rows.retain(|row| wanted.split(',').any(|part| row.name.contains(part)));
    rows
}

/// A row that cannot even be carried out must not keep the others from being run.
fn observed(host: &Host, runtime: &Runtime, row: &Row, side: Side) -> Result<Observed, String> {
    let result = catch_unwind(AssertUnwindSafe(|| observe(host, runtime, row, side)));
    host.restore(&row.sysctls.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        format!("{side:?}: {text}")
    })
}

/// Runs all rows, prints a line for each, and fails with the list of those that differ.
fn judge(sides: &str, mut differences: impl FnMut(&Row) -> Result<Vec<String>, String>) {
    let (mut failed, mut passed, started) = (Vec::new(), 0, Instant::now());
    for row in rows() {
        let found = differences(&row).unwrap_or_else(|cause| vec![cause]);
        let forced = if row.forced == Forced::Nothing { String::new() } else { format!(" ({:?})", row.forced) };
        if found.is_empty() {
            passed += 1;
            println!("same    {}{forced}", row.name);
        } else {
            println!("DIFFERS {}{forced}", row.name);
            found.iter().for_each(|difference| println!("    {difference}"));
            failed.push(row.name);
        }
    }
    println!("{sides}: {passed} rows are the same, {} differ, {:.1?}", failed.len(), started.elapsed());
    assert!(failed.is_empty(), "{sides}: {} rows differ: {}", failed.len(), failed.join(", "));
    assert_ne!(passed, 0, "no row was run");
}
