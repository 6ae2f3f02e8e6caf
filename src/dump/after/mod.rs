//! What is left of a crash beside its core: the record, the user's copy of it, the line for
//! Kubernetes, and the executable and libraries.

pub(super) mod crash_record;
pub(super) mod deleted_files;
mod kept_binaries;
pub(super) mod kept_with_last_core;
pub(super) mod on_host;
mod reading;
mod record_list;
mod record_without_core;
pub(super) mod released;
pub(super) mod termination_log;
pub(super) mod unreported_core;
pub(super) mod user_record;
