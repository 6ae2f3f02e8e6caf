//! The runtime matrix: what containers see and get, on runc, crun and youki directly and on
//! podman over runc and crun, with real crashes. Needs root and the machine's `core_pattern`: run
//! it with `--test-threads=1`.
#[path = "matrix/announced.rs"]
mod announced;
#[path = "matrix/crashes.rs"]
mod crashes;
#[path = "matrix/daemons.rs"]
mod daemons;
#[path = "matrix/dialects.rs"]
mod dialects;
#[path = "matrix/eci.rs"]
mod eci;
#[path = "matrix/enable.rs"]
mod enable;
#[path = "matrix/forwarding.rs"]
mod forwarding;
#[path = "matrix/installation.rs"]
mod installation;
#[path = "matrix/kata.rs"]
mod kata;
#[path = "matrix/kernel_mode.rs"]
mod kernel_mode;
#[path = "matrix/killed.rs"]
mod killed;
#[path = "matrix/lifetime.rs"]
mod lifetime;
#[path = "matrix/made_directories.rs"]
mod made_directories;
#[path = "matrix/offline.rs"]
mod offline;
#[path = "matrix/one_name.rs"]
mod one_name;
#[path = "matrix/placement.rs"]
mod placement;
#[path = "matrix/refusals.rs"]
mod refusals;
#[path = "matrix/summary.rs"]
mod summary;
#[path = "matrix/termination.rs"]
mod termination;
#[path = "matrix/untouched.rs"]
mod untouched;
