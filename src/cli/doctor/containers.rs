//! The registered containers.

use super::check::{Check, ok, warning};
use crate::config::RUN_DIR;
use crate::registry::Registry;

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
