//! A crash as JSON, for `list` and `info`: one object on one line. docs/crash.schema.json is made
//! from these types.

use super::locate::CoreStatus;
use super::overwriter::Overwriter;
use crate::corefile::{GoroutineStack, Overview, ThreadStack};
use crate::record::{Record, Schema};
use crate::store::Records;
use crate::sys::text;
use anyhow::Result;
use serde::Serialize;
use std::io::Write;

/// A crash, or with `info --core` a core file without one.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(title = "A crash, as oci-coredump list --json and info --json print it"))]
pub(super) struct CrashJson<'a> {
    /// The version of this schema, where no record says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
    /// The record's ID, as the MATCH `record=` takes it.
    #[serde(rename = "record", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub record: Option<&'a Record>,
    /// The state of the core's file.
    pub corefile: Option<CoreStatus>,
    /// The crash whose core has this one's name, where the core was overwritten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overwritten_by: Option<&'a Overwriter>,
    /// What the core alone says. `info` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<Overview>,
    /// The stack of every thread, the crashed one first. `info` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, schemars(default))]
    pub stacks: Vec<ThreadStack>,
    /// The goroutines of a Go program that do not run, at most 256. `info` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, schemars(default))]
    pub goroutines: Vec<GoroutineStack>,
    /// How many goroutines there are besides. `info` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more_goroutines: Option<usize>,
    /// Why the core could not be read, or not completely. `info` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_error: Option<String>,
}

impl<'a> CrashJson<'a> {
    /// A crash with a record.
    pub(super) fn of(record: &'a Record, state: CoreStatus, by: Option<&'a Overwriter>) -> Self {
        CrashJson {
            id: Some(Records::id_of(record)),
            record: Some(record),
            corefile: Some(state),
            overwritten_by: by,
            ..Self::default()
        }
    }

    /// A core file without a record.
    pub(super) fn of_core() -> Self {
        CrashJson { schema: Some(Schema), ..Self::default() }
    }

    /// Prints it on one line.
    pub(super) fn print(&self, out: &mut impl Write) -> Result<()> {
        Ok(writeln!(out, "{}", text::json(&serde_json::to_string(self)?))?)
    }
}
