//! Faults: the helper killed at every step, containers that disappear during a dump, failing disks,
//! damaged state, storms. No process hangs, the record is there, no incomplete file passes for a
//! complete one, and another container's core is complete. Needs root and the machine's
//! `core_pattern`: `--test-threads=1`.
#[path = "faults/containers.rs"]
mod containers;
#[path = "faults/disks.rs"]
mod disks;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/state.rs"]
mod state;
#[path = "faults/storms.rs"]
mod storms;
#[path = "faults/witness.rs"]
mod witness;
