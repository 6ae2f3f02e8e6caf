//! The registered containers.

use super::check::{Check, ok, warning};
use crate::config::RUN_DIR;
use crate::first_process::{IGNORED, is_init};
use crate::registry::{Entry, Registry};
use crate::sys::proc::{Proc, printable};
use std::collections::BTreeSet;

/// How many there are, and those that were refused.
pub(super) fn containers() -> Vec<Check> {
    let Some(registry) = Registry::own() else {
        return vec![ok("containers", format!("none is registered ({RUN_DIR} is not there)"))];
    };
    let entries: Vec<_> = registry
        .ids()
        .unwrap_or_default()
        .iter()
        .filter_map(|id| registry.get(id))
        .filter(|e| e.init_lives())
        .collect();
    let mut all = vec![ok(
        "containers",
        format!("{} registered", entries.iter().filter(|e| e.refused.is_none()).count()),
    )];
    all.extend(first_processes(&entries));
    for e in entries.iter() {
        for remark in &e.remarks {
            all.push(warning(
                "containers",
                format!("{}: {remark}", e.names.container_id),
                "docs/annotations.md says more (One name, many cores)",
            ));
        }
        if let Some(why) = &e.refused {
            all.push(warning(
                "containers",
                format!("{} asked, and was refused: {why}", e.names.container_id),
                "correct the annotation and start it anew",
            ));
        }
    }
    all
}

/// Containers whose first process is their program.
fn first_processes(entries: &[Entry]) -> Option<Check> {
    let name = |entry: &Entry| -> Option<String> {
        entry.init.pid_ns?;
        let comm = Proc::open(entry.init.pid).ok()?.read("comm").ok()?;
        let comm = printable(comm.strip_suffix(b"\n").unwrap_or(&comm));
        (!is_init(&comm)).then_some(comm)
    };
    let names: BTreeSet<String> = entries.iter().filter_map(name).collect();
    let names: Vec<String> = names.into_iter().take(5).collect();
    (!names.is_empty()).then(|| Check {
        hint: Some(IGNORED.into()),
        ..ok("pid 1", format!("programs that are one themselves: {}", names.join(", ")))
    })
}
