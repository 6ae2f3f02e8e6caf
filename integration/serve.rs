//! The resident dispatcher: the matrix's crashes and forwarding with it running, and what happens when it dies, hangs, or is told to end. Needs root and the machine's
//! `core_pattern`: `--test-threads=1`.
#[path = "matrix/core_file.rs"]
#[allow(dead_code, reason = "the matrix uses the rest")]
mod core_file;
#[path = "matrix/crashes.rs"]
mod crashes;
#[path = "matrix/forwarding.rs"]
mod forwarding;
#[path = "serve/resident.rs"]
mod resident;
#[path = "matrix/scene.rs"]
#[allow(dead_code, reason = "the matrix uses the rest")]
mod scene;
mod support;
