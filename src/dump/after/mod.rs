//! What is left of a crash beside its core: the record, the user's copy of it, the line for
//! Kubernetes, and the executable and libraries.

pub mod kept_binaries;
pub mod ledger;
pub mod on_host;
pub mod refused;
pub mod termination_log;
pub mod user_record;
