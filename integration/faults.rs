//! Faults: the helper killed at every step, containers that disappear during a dump, failing disks,
//! damaged state, storms. No process hangs, the record is there, no incomplete file passes for a
//! complete one, and another container's core is complete. Needs root and the machine's
//! `core_pattern`: `--test-threads=1`.
#[path = "faults/containers.rs"]
mod containers;
#[path = "matrix/core_file.rs"]
#[allow(dead_code, reason = "the matrix uses the rest")]
mod core_file;
#[path = "faults/disks.rs"]
mod disks;
#[path = "attacks/fixture.rs"]
#[allow(dead_code, reason = "the attacks use the rest")]
mod fixture;
#[path = "faults/kills.rs"]
mod kills;
#[path = "matrix/scene.rs"]
#[allow(dead_code, reason = "the matrix uses the rest")]
mod scene;
#[path = "faults/state.rs"]
mod state;
#[path = "faults/storms.rs"]
mod storms;
mod support;
#[path = "faults/witness.rs"]
mod witness;
