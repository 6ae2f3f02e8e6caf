//! A crash of a container of which there is to be no core.

use super::after::crash_record::CrashRecord;
use super::after::{termination_log, user_record};
use super::crash::container_crash::ContainerCrash;
use super::policy::plan::CorePlan;
use super::slots::{Slot, free_slot};
use crate::cause::Cause;
use crate::record::Outcome;
use crate::sys::descriptor;
use crate::vacuum;
use anyhow::{Result, anyhow};

/// Records that there will be no core. Nothing of the container was touched, and the process is
/// let go at once.
///
/// # Errors
/// The rules of the configuration's `[vacuum]` could not be applied.
pub(super) fn without_core(case: &ContainerCrash<'_>, cause: &Cause) -> Result<()> {
    let ContainerCrash { facts, entry, registry, config, account_dir, .. } = *case;
    let mut record = case.record();
    record.outcome = Outcome::None;
    record.set_cause(Some(cause));
    let mut client = CrashRecord::new(&config.store, account_dir);
    // Without the directory there would be records without end.
    let told = match (registry, account_dir) {
        (Some(_), None) => Err(anyhow!("the directory of its account cannot be opened")),
        _ => client.say_without_core(&record, case.most_records()),
    };
    // What a child does for it is done only if a slot is free at this moment, and only for a
    // crash with a record of its own, of which there are few: nothing waits.
    let is_own = matches!(told, Ok(true));
    let slot = if is_own { free_slot(case) } else { None };
    if slot.is_some() && termination_log::is_wanted(case, &record) {
        let file = CorePlan::default();
        let locks: Vec<_> = slot.iter().flat_map(Slot::fds).collect();
        termination_log::write(facts, &file, entry, &record, None, &locks)
            .unwrap_or_else(|e| log::warn!("cannot write the termination log, ignoring: {e:#}"));
    }
    descriptor::release_stdin();
    case.count(&record);
    match told {
        Ok(true) => {
            log::warn!("{record}");
            if entry.user.is_some() && slot.is_some() {
                user_record::give_copy(&mut record, entry, None, slot.as_ref());
            }
        }
        Ok(false) => {}
        Err(e) => log::error!("cannot save the record of this crash: {e:#}: {record}"),
    }
    vacuum::now_and_then(config)
}
