//! What is left of a crash beside its core: the record, the user's copy of it, the line for
//! Kubernetes, and the executable and libraries.

pub(super) mod deleted_files;
pub(super) mod kept_before;
mod kept_binaries;
pub(super) mod on_host;
mod reading;
pub(super) mod record_client;
mod record_list;
mod refused;
pub(super) mod released;
pub(super) mod termination_log;
pub(super) mod unreported_core;
pub(super) mod user_record;
