//! `[debuginfod]` of the configuration.

use super::age;
use crate::bytes::Limit;
use serde::{Deserialize, Serialize};

/// `[debuginfod]`: servers that have debug information and executables by build-id. They learn
/// which programs crash, so they are asked only if this or `--debuginfod` says so
/// ([stack.md](stack.md)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Debuginfod {
    /// `info`, `report`, `debug` and `export` ask without `--debuginfod` too.
    pub enabled: bool,
    /// The servers, such as `["https://debuginfod.debian.net"]`, where the environment has no
    /// `DEBUGINFOD_URLS`. They are asked one after the other.
    pub urls: Vec<String>,
    /// Most bytes of one file; a larger file is not fetched.
    pub max_file: Limit,
    /// Most bytes of all files that are kept. Those that were needed longest ago go first.
    pub max_total: Limit,
    /// How long a file is kept since it was last needed, such as `7d`.
    #[serde(deserialize_with = "age::read", serialize_with = "age::text")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub max_unused: Option<u64>,
}

impl Default for Debuginfod {
    fn default() -> Self {
        Debuginfod {
            enabled: false,
            urls: Vec::new(),
            max_file: Limit::Finite(2 << 30),
            max_total: Limit::Finite(4 << 30),
            max_unused: Some(7 * 86400),
        }
    }
}
