//! oci-coredump gives every container its own `core_pattern`, as if the kernel had namespaced it.
//!
//! Two one-way paths. The name at the end of each arrow is the type that later stages read:
//!
//! ```text
//! hook:    stdin --read--> State --request--> Request --plan--> HookPlan --apply--> Changes
//!                    (bounded)     (valid, or a refusal)  (pure)    (ordered, each with its undo)
//!
//!          /run/oci-coredump/containers/<id>.json    how the hook tells the dispatcher
//!
//! handle:  argv, stdin
//!            --crash-->     Crash      what the kernel said
//!            --facts-->     Facts      what /proc says, read and verified again
//!            --identify-->  Origin     a registered container, or none
//!            --plan-->      Decision   write, forward, or discard and why
//!            --slot-->      Slot       rate and concurrency, which may refuse the core
//!            --begin-->     Record     a first line, `started`, before the file is made
//!            --write-->     Written    streamed, as the crashed process
//!            --finish-->    Record     a line with what became of it, in the log too; one with the
//!                                      summary and one with the kept files may follow
//! ```
//!
//! The hook also writes the saved sysctls, which the dispatcher reads, and makes the container's
//! directory of the store.
//!
//! `engine` makes the engines call the hook: it edits their specifications of containers, and their
//! configuration. `runtime_check` asks a runtime whether it does for its hooks what ours needs.
//!
//! A module may use the layers before its own; one of `values` or `shared` also others of its own
//! layer. `tests/layers.rs` holds everyone to it:
//!
//! ```text
//! sys      the kernel; all of `unsafe`
//! values   no effects; only `config` reads one file
//!  bytes, cause, first_process, pattern, record, limits, name_conflict, config, annotation
//! shared   effects that several entry points need
//!  elf, report, store, registry, users, sysctl, corefile, crash_counts, vacuum, container_identity
//! entry    never each other, except cli, which may start any
//!  hook, dump, engine, runtime_check, cli
//! ```
//!
//! The rooms of `dump`: `server` (the kernel's coredump socket, where that is used instead of
//! `handle`), `crash` (what the kernel and /proc say), `policy` (plan, quota and refusals, which
//! decide), `slots` (how many dumps at a time; a crash waits for one), `writer` (the child that
//! becomes the crashed process), `copy` (the lanes), `after` (the record and what is kept),
//! `forward` (crashes of no registered container). Beside them: `core_dump` (a container's crash
//! with a core), `without_core` (one without), `core_place` (the file's path in the container and
//! on the host).
//!
//! The rooms of `corefile`: `variables` (arguments and local variables), `reduced` (small cores).
//!
//! No files and no rooms use each other in a circle.

#![warn(unreachable_pub)]

mod sys;

pub use sys::descriptor::make_streams_safe;
pub use sys::file::{FileId, FileIdentity, identity, set_umask};

mod annotation;
mod bytes;
mod cause;
pub mod config;
mod first_process;
mod limits;
mod name_conflict;
mod pattern;
mod record;

mod container_identity;
mod corefile;
mod crash_counts;
mod elf;
mod registry;
pub mod report;
mod store;
mod sysctl;
mod users;
mod vacuum;

pub mod cli;
#[cfg(test)]
mod documents;
pub mod dump;
pub mod engine;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod hook;
#[cfg(any(test, fuzzing))]
mod invariants;
mod runtime_check;
