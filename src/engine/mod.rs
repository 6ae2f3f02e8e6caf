//! The ways into the engines: what makes each of them call the hook, and the limit that its `exec` gives.
//!
//! ```text
//! runtime    Docker, ctr: an OCI runtime that edits the bundle and becomes the real one
//! ```

pub mod runtime;
pub mod spec;

/// The name by which this program is an OCI runtime.
pub const RUNTIME_NAME: &str = "oci-coredump-runtime";
